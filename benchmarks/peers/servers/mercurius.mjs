// Mercurius on Fastify with just-in-time compiled queries.
import Fastify from 'fastify'
import mercurius from 'mercurius'
import { eventOf, find, makeMutations, page, typeDefs } from './store.mjs'

const watched = new Set()
const app = Fastify({ logger: false })
const publish = (topic, payload) => app.graphql.pubsub.publish({ topic: topic || 'all', payload })

async function* progress(id, pubsub) {
  watched.add(id)
  try {
    yield eventOf(find(id))
    yield* await pubsub.subscribe(id)
  } finally {
    watched.delete(id)
  }
}

await app.register(mercurius, {
  schema: typeDefs,
  resolvers: {
    Query: { jobs: (_, args) => page(args) },
    Mutation: makeMutations(publish, () => watched),
    Subscription: {
      jobEvents: { subscribe: (_root, _args, { pubsub }) => pubsub.subscribe('all'), resolve: (event) => event },
      jobProgress: { subscribe: (_root, { id }, { pubsub }) => progress(id, pubsub), resolve: (event) => event },
    },
  },
  jit: 1,
  subscription: { fullWsTransport: true },
})
await app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' })
