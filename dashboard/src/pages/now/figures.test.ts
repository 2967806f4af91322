import { expect, test } from 'vitest';
import {
  attentionOf,
  differenceOfQueues,
  type Group,
  hourOf,
  type Limits,
  limitsSaid,
  type Minute,
  type Queue,
  rate,
  type Worker,
} from './figures';

const ago = (milliseconds: number): string => new Date(Date.now() - milliseconds).toISOString();

const NO_LIMITS: Limits = { concurrency: null, concurrencyPerKey: null, perSecond: null };

function queue(name: string, counts: Record<string, number>, more: Partial<Queue> = {}): Queue {
  return {
    name,
    counts: Object.entries(counts).map(([status, count]) => ({ status, count })) as Queue['counts'],
    oldestQueuedAt: null,
    workers: 1,
    unservedTypes: [],
    paused: null,
    limits: NO_LIMITS,
    ...more,
  };
}

const worker = (more: Partial<Worker>): Worker =>
  ({ id: 'w1', hostname: 'm1', lastSeenAt: ago(9000), stale: false, unable: [], ...more }) as Worker;

const keys = (...figures: Parameters<typeof attentionOf>) => attentionOf(...figures).map(({ key }) => key);

test('a system in which everything runs needs nobody', () => {
  expect(
    keys([queue('a', { QUEUED: 3, COMPLETED: 9 }, { oldestQueuedAt: ago(1000) })], [worker({})], []),
  ).toEqual([]);
});

test('what needs a person is named, with a queue that nobody serves before all else', () => {
  const queues = [
    queue('a', { QUEUED: 1, DEAD_LETTER: 2 }, { workers: 0, oldestQueuedAt: ago(900_000) }),
    queue('b', { QUEUED: 1 }, { unservedTypes: ['x'] }),
    queue('c', { QUEUED: 1 }, { oldestQueuedAt: ago(900_000) }),
    queue('idle', { QUEUED: 0 }, { workers: 0 }),
  ];
  const workers = [worker({ stale: true, unable: [{ jobType: 'x', reason: 'It lacks a library.' }] })];
  expect(keys(queues, workers, [])).toEqual([
    'unserved a',
    'types b',
    'slow c',
    'dead letters',
    'stale w1',
    'unable w1 x',
  ]);
});

test('a queue that is paused is named, and not blamed for the jobs that wait', () => {
  const paused = { at: ago(1000), by: null, reason: null, until: null };
  const [only, ...others] = attentionOf(
    [queue('a', { QUEUED: 1 }, { paused, workers: 0, oldestQueuedAt: ago(900_000) })],
    [],
    [],
  );
  expect(only?.text).toBe('The queue “a” is paused: 1 job waits.');
  expect(others).toEqual([]);
});

test('the largest group of dead letters is named with their number', () => {
  const group = { key: 'k', type: 'email', errorType: 'Refused', message: 'no', count: 2 } as Group;
  const [dead] = attentionOf([queue('a', { DEAD_LETTER: 3 })], [], [group]);
  expect(dead?.text).toBe('3 jobs failed for good. Most of them: Refused in email (2).');
});

test('what queues have done meanwhile is said, and that they have done nothing', () => {
  const before = [queue('a', { COMPLETED: 1, DEAD_LETTER: 1 })];
  const after = [queue('a', { COMPLETED: 3, DEAD_LETTER: 2 }), queue('b', { COMPLETED: 1 })];
  expect(differenceOfQueues(before, after)).toBe('Queues: 3 jobs completed, 1 job failed for good.');
  expect(differenceOfQueues(after, after)).toBe('Queues: no job has ended.');
});

test('minutes of which nothing is known are gaps, and the last one stands at the end', () => {
  const minute = (at: string, created: number) => ({ at, created }) as Minute;
  const known = [minute('2026-01-01T00:00:00Z', 7), minute('2026-01-01T00:03:00Z', 9)];
  const hour = hourOf(known, ({ created }) => created);
  expect(hour).toHaveLength(60);
  expect(hour.slice(-4)).toEqual([7, null, null, 9]);
  expect(hourOf([], ({ created }) => created)).toEqual([]);
});

test('limits are said one by one, and none where nothing is limited', () => {
  expect(limitsSaid(NO_LIMITS)).toEqual([]);
  expect(limitsSaid({ concurrency: 5, concurrencyPerKey: 1, perSecond: 10 })).toEqual([
    '5 at a time',
    '1 per key',
    '10/s',
  ]);
});

test('a rate is said by the shortest time in which at least one starts', () => {
  expect([2.5, 1, 0.5, 1 / 60, 5 / 3600, 1 / 86_400, 100_000].map(rate)).toEqual([
    '2.5/s',
    '1/s',
    '30/min',
    '1/min',
    '5/h',
    '1/day',
    '100000/s',
  ]);
});
