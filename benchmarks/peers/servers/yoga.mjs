// GraphQL Yoga with its parser and validation caches, subscriptions over ws with graphql-ws.
import { createServer } from 'node:http'
import { createPubSub, createSchema, createYoga } from 'graphql-yoga'
import { useServer } from 'graphql-ws/use/ws'
import { WebSocketServer } from 'ws'
import { eventOf, find, makeMutations, page, typeDefs } from './store.mjs'

const watched = new Map()
const pubSub = createPubSub()

async function* progress(id) {
  watched.set(id, (watched.get(id) ?? 0) + 1)
  try {
    yield eventOf(find(id))
    yield* pubSub.subscribe(id)
  } finally {
    watched.delete(id)
  }
}

const yoga = createYoga({
  schema: createSchema({
    typeDefs,
    resolvers: {
      Query: { jobs: (_, args) => page(args) },
      Mutation: makeMutations((topic, event) => pubSub.publish(topic || 'all', event), () => watched.keys()),
      Subscription: {
        jobEvents: { subscribe: () => pubSub.subscribe('all'), resolve: (event) => event },
        jobProgress: { subscribe: (_, { id }) => progress(id), resolve: (event) => event },
      },
    },
  }),
  graphiql: false,
  landingPage: false,
  logging: false,
  maskedErrors: false,
})
const server = createServer(yoga)
const sockets = new WebSocketServer({ server, path: '/graphql', perMessageDeflate: false })
useServer(
  {
    execute: (args) => args.rootValue.execute(args),
    subscribe: (args) => args.rootValue.subscribe(args),
    onSubscribe: async (context, _id, payload) => {
      const { schema, execute, subscribe, contextFactory, parse, validate } = yoga.getEnveloped({
        ...context, req: context.extra.request, socket: context.extra.socket, params: payload,
      })
      const args = {
        schema,
        operationName: payload.operationName,
        document: parse(payload.query),
        variableValues: payload.variables,
        contextValue: await contextFactory(),
        rootValue: { execute, subscribe },
      }
      const errors = validate(args.schema, args.document)
      return errors.length ? errors : args
    },
  },
  sockets,
)
server.listen(Number(process.env.PORT), '127.0.0.1')
