// Jobs in an array, and topics in memory. Forgets everything when it ends.
import { readFileSync } from 'node:fs'
import { randomUUID } from 'node:crypto'

export const typeDefs = readFileSync(new URL('./schema.graphql', import.meta.url), 'utf8')
const jobs = []
const byId = new Map()

function add(type, more) {
  const job = {
    id: randomUUID(), type, status: 'QUEUED', priority: 'NORMAL', queue: 'default', progress: 0, attempt: 0,
    createdAt: new Date().toISOString(), finishedAt: null, durationMs: null, ...more,
  }
  jobs.push(job)
  byId.set(job.id, job)
  return job
}

for (let n = 0; n < Number(process.env.PEER_JOBS ?? 0); n++) {
  add('noop', { status: 'COMPLETED', finishedAt: new Date().toISOString(), durationMs: 3, attempt: 1 })
}

export const find = (id) => byId.get(id)

export function page({ filter, first }) {
  const found = []
  for (let n = jobs.length - 1; n >= 0 && found.length < first; n--) {
    const job = jobs[n]
    if (filter?.status && !filter.status.includes(job.status)) continue
    if (filter?.type && !filter.type.includes(job.type)) continue
    found.push(job)
  }
  return { nodes: found }
}

let number = 0
export const eventOf = (job) => ({ cursor: String(++number), job })

// publish(topic, event); the empty topic is that of all jobs.
export function makeMutations(publish, watched) {
  const create = (input) => {
    const job = add('email', { payload: input.payload.email })
    publish('', eventOf(job))
    return job
  }
  return {
    createJob: (_, { input }) => ({ job: create(input), deduplicated: false }),
    createJobs: (_, { inputs }) => ({ jobs: inputs.map(create) }),
    tick: () => {
      let moved = 0
      for (const id of watched()) {
        const job = byId.get(id)
        job.progress = (job.progress + 1) % 100
        publish(id, eventOf(job))
        moved++
      }
      return moved
    },
  }
}
