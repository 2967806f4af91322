// BullMQ on Redis: acknowledged after the work, results kept. The commands are those of driver.py.
import { Queue, Worker } from 'bullmq'

const [command, count, rate] = process.argv.slice(2)
const jobs = Number(count)
const settings = JSON.parse(process.env.PEER_SETTINGS ?? '{}')
const { hostname: host, port } = new URL(process.env.PEER_URL)
const connection = { host, port: Number(port), maxRetriesPerRequest: null }
const payload = {
  to: 'ada@example.com',
  subject: 'Your report is ready',
  body: 'Hello Ada,\n\nthe report that you asked for is ready. It is kept for a week.\n\nYours,\nthe reports',
}
const now = () => Number(process.hrtime.bigint()) / 1e9
const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')

async function fill(queue) {
  const began = now()
  for (let start = 0; start < jobs; start += 1000) {
    const number = Math.min(1000, jobs - start)
    await queue.addBulk(Array.from({ length: number }, () => ({ name: 'noop', data: { ...payload, sent: 0 } })))
  }
  say(now() - began)
}

async function one(queue) {
  const began = now()
  for (let number = 0; number < jobs; number++) await queue.add('noop', { ...payload, sent: 0 })
  say(now() - began)
}

async function fifty(queue) {
  const began = now()
  for (let start = 0; start < jobs; start += 50) {
    const together = Math.min(50, jobs - start)
    await Promise.all(Array.from({ length: together }, () => queue.add('noop', { ...payload, sent: 0 })))
  }
  say(now() - began)
}

async function send(queue) {
  const began = now()
  for (let number = 0; number < jobs; number++) {
    const wait = began + number / Number(rate) - now()
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait * 1000))
    await queue.add('noop', { ...payload, sent: now() })
  }
  say('sent')
}

function work() {
  let first, ran = 0
  const latencies = []
  new Worker(
    'noop',
    async (job) => {
      const at = now()
      first ??= at
      if (job.data.sent) latencies.push(at - job.data.sent)
      if (++ran === jobs) say(command === 'stamp' ? latencies : [first, at])
    },
    { connection, concurrency: settings.concurrency },
  ).waitUntilReady().then(() => say('ready'))
}

const enqueue = { fill, one, fifty, send }[command]
if (enqueue) {
  const queue = new Queue('noop', { connection })
  await queue.waitUntilReady()
  await enqueue(queue)
  await queue.close()
} else {
  work()
}
