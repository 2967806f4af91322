// What the figures of queues and workers say: what needs a person, what has happened meanwhile, how the last hour was.

import type {
  LargestDeadLetterGroupsQuery,
  QueueFiguresSubscription,
  QueueHistoriesSubscription,
  WorkersSubscription,
} from '../../api/generated';
import { elapsed } from '../../api/clock';
import { count, many, span } from '../../format';
import { href } from '../../route';

export type Queue = QueueFiguresSubscription['queuesChanged'][number];
export type Worker = WorkersSubscription['workersChanged'][number];
export type Group = LargestDeadLetterGroupsQuery['deadLetterGroups'][number];

export type Limits = Queue['limits'];

export type Minute = QueueHistoriesSubscription['queuesChanged'][number]['history'][number];

export interface Attention {
  key: string;
  text: string;
  /** Where more is to be seen. */
  address: string | null;
}

/** How many jobs of a queue are in a state. */
export const countOf = (queue: Queue, status: string): number =>
  queue.counts.find((one) => one.status === status)?.count ?? 0;

/** Milliseconds after which a job that waits although workers serve its queue is worth a word. */
const LONG_WAIT = 300_000;

/**
 * What needs a person, the most pressing first: work that nobody does, work that failed for good, workers that are lost.
 * Groups and workers that are not known are none.
 */
export function attentionOf(
  queues: readonly Queue[],
  workers: readonly Worker[],
  groups: readonly Group[],
): Attention[] {
  const found: Attention[] = [];
  for (const queue of queues) {
    const { name, oldestQueuedAt, unservedTypes, paused } = queue;
    const waiting = countOf(queue, 'QUEUED');
    const address = href('jobs', { queue: name, status: 'QUEUED', order: 'CREATED_AT-ASC' });
    if (paused)
      found.push({
        key: `paused ${name}`,
        text: `The queue “${name}” is paused: ${many(waiting, 'job')} ${waiting === 1 ? 'waits' : 'wait'}.`,
        address,
      });
    else if (waiting && !queue.workers)
      found.push({
        key: `unserved ${name}`,
        text: `No worker serves the queue “${name}”: ${many(waiting, 'job')} ${waiting === 1 ? 'waits' : 'wait'}. Start one with: gql-jobs worker --queues ${name}`,
        address,
      });
    else if (unservedTypes.length)
      found.push({
        key: `types ${name}`,
        text: `Jobs of the queue “${name}” wait that none of its workers can run: ${unservedTypes.join(', ')}.`,
        address: href('jobs', { queue: name, status: 'QUEUED', type: [...unservedTypes] }),
      });
    else if (oldestQueuedAt && elapsed(oldestQueuedAt) > LONG_WAIT)
      found.push({
        key: `slow ${name}`,
        text: `The oldest job of the queue “${name}” has waited for ${span(elapsed(oldestQueuedAt))}: its workers do not keep up.`,
        address,
      });
  }
  const dead = queues.reduce((sum, queue) => sum + countOf(queue, 'DEAD_LETTER'), 0);
  if (dead) {
    const [largest] = groups;
    const of = largest ? ` Most of them: ${largest.errorType} in ${largest.type} (${largest.count}).` : '';
    found.push({
      key: 'dead letters',
      text: `${many(dead, 'job')} failed for good.${of}`,
      address: href('dead-letters'),
    });
  }
  for (const { id, hostname, lastSeenAt, stale, unable } of workers) {
    if (stale)
      found.push({
        key: `stale ${id}`,
        text: `Nothing was heard of the worker ${id} on ${hostname} for ${span(elapsed(lastSeenAt))}. What it runs goes to another one soon.`,
        address: null,
      });
    for (const { jobType, reason } of unable)
      found.push({
        key: `unable ${id} ${jobType}`,
        text: `${id} cannot run some jobs of ${jobType}: ${reason}`,
        address: null,
      });
  }
  return found;
}

/** The lengths of what a rate may be written by, in seconds, the shortest first. */
const RATES = [
  ['s', 1],
  ['min', 60],
  ['h', 3600],
  ['day', 86_400],
] as const;

/** A rate as it is written elsewhere, by the shortest time in which at least one starts: `10/s`, `30/min`, `1/day`. */
export function rate(perSecond: number): string {
  for (const [unit, seconds] of RATES) {
    const number = Number((perSecond * seconds).toFixed(6));
    if (number >= 1 || unit === 'day') return `${number}/${unit}`;
  }
  return '';
}

/** The limits of a queue in words, each for itself; none where nothing is limited. */
export const limitsSaid = ({ concurrency, concurrencyPerKey, perSecond }: Limits): string[] =>
  [
    concurrency !== null && `${count(concurrency)} at a time`,
    concurrencyPerKey !== null && `${count(concurrencyPerKey)} per key`,
    perSecond !== null && rate(perSecond),
  ].filter((said) => said !== false);

/** How the figures of all queues together differ, in words. */
export function differenceOfQueues(before: readonly Queue[], after: readonly Queue[]): string {
  const sum = (queues: readonly Queue[], status: string) =>
    queues.reduce((total, queue) => total + countOf(queue, status), 0);
  const parts: string[] = [];
  for (const [status, word] of [
    ['COMPLETED', 'completed'],
    ['DEAD_LETTER', 'failed for good'],
    ['CANCELLED', 'cancelled'],
  ] as const) {
    const more = sum(after, status) - sum(before, status);
    if (more > 0) parts.push(`${many(more, 'job')} ${word}`);
  }
  return parts.length ? `Queues: ${parts.join(', ')}.` : 'Queues: no job has ended.';
}

/** The values of the last hour, a null for each minute of which nothing is known. */
export function hourOf<T>(minutes: readonly Minute[], value: (minute: Minute) => T | null): (T | null)[] {
  const last = minutes.at(-1);
  if (!last) return [];
  const end = Date.parse(last.at);
  const values: (T | null)[] = Array(60).fill(null);
  for (const minute of minutes) {
    const place = 59 - Math.round((end - Date.parse(minute.at)) / 60_000);
    if (place >= 0) values[place] = value(minute);
  }
  return values;
}
