import { expect, test } from 'vitest';
import type { WaitReason } from '../../api/generated';
import { span } from '../../format';
import { type Failure, type Happened, type Receipts, type Row, rowsOf, usualOf } from './history';

const BEGAN = Date.parse('2026-01-31T12:00:00.000Z');
const at = (milliseconds: number) => new Date(BEGAN + milliseconds).toISOString();
const failure = (attempt: number, more: Partial<Failure> = {}): Failure => ({
  message: 'It failed.',
  type: 'TransientError',
  attempt,
  at: at(0),
  retryable: true,
  ...more,
});

let cursor = 0;
const event = (milliseconds: number) => ({ cursor: String(++cursor), at: at(milliseconds), actor: null });
const queued = (milliseconds: number, actor: string | null = null): Happened => ({
  __typename: 'JobQueued',
  ...event(milliseconds),
  actor,
});
const started = (
  milliseconds: number,
  attempt = 1,
  supersedes: number | null = null,
  error: Failure | null = null,
): Happened => ({
  __typename: 'JobStarted',
  ...event(milliseconds),
  workerId: 'w1',
  attempt,
  supersedes,
  job: { error },
});
const progress = (milliseconds: number, percent: number, message: string | null = null): Happened => ({
  __typename: 'JobProgress',
  ...event(milliseconds),
  progress: percent,
  message,
});
const failed = (milliseconds: number, attempt: number, next: number): Happened => ({
  __typename: 'JobFailed',
  ...event(milliseconds),
  error: failure(attempt),
  nextAttemptAt: at(next),
});
const completed = (milliseconds: number, durationMs: number): Happened => ({
  __typename: 'JobCompleted',
  ...event(milliseconds),
  durationMs,
});
const cancelled = (
  milliseconds: number,
  actor: string | null = null,
  cancelReason: string | null = null,
): Happened => ({
  __typename: 'JobCancelled',
  ...event(milliseconds),
  actor,
  job: { cancelReason },
});

const rows = (events: Happened[], receipts: Receipts | null = null, open: string[] = []): Row[] =>
  rowsOf(events, receipts, new Set(open), span);
const titles = (all: Row[]) =>
  all.map((row) =>
    row.kind === 'happened' || row.kind === 'idle'
      ? row.title
      : `${row.kind} ${row.kind === 'progress' ? row.reports : row.report.progress}`,
  );

test('a history says each attempt, how long it ran, and what it waited for in between', () => {
  const all = rows([
    queued(0, 'ada'),
    started(500),
    failed(2500, 1, 6500),
    started(6_510, 2),
    completed(8_510, 2000),
  ]);
  expect(titles(all)).toEqual([
    'Created',
    'Attempt 1 started',
    'Attempt 1 failed',
    'waited 4.0 s for the next attempt',
    'Attempt 2 started',
    'Completed',
  ]);
  expect(all.map((row) => (row.kind === 'happened' ? row.ran : null))).toEqual([
    null,
    null,
    2000,
    null,
    null,
    2000,
  ]);
  expect(all[0]).toMatchObject({ actor: 'ada', at: at(0) });
  expect(all[2]).toMatchObject({ failure: failure(1), next: at(6500), tone: 'warn' });
});

test('a long wait is one line', () => {
  const later: Happened = { __typename: 'JobScheduled', ...event(0), runAt: at(3_600_000) };
  expect(titles(rows([later, queued(3_600_000), started(3_600_000 + 10_920_000)]))).toEqual([
    'Created, to run later',
    'held back for 1 h',
    'Its time came',
    'waited 3 h 2 min for a worker',
    'Attempt 1 started',
  ]);
});

const waiting = (milliseconds: number, reason: WaitReason): Happened => ({
  __typename: 'JobWaiting',
  ...event(milliseconds),
  reason,
});
const edited = (milliseconds: number, ...changed: string[]): Happened => ({
  __typename: 'JobEdited',
  ...event(milliseconds),
  changed,
});

test('what a job was held back by is said, and that it was let go', () => {
  const ends = [
    cancelled(20),
    waiting(30, 'DEPENDENCY'),
    queued(40),
    started(50),
    failed(60, 1, 70),
    queued(80),
  ];
  expect(titles(rows([waiting(0, 'LIMIT'), queued(10), ...ends]))).toEqual([
    'Created, and held back by a limit',
    'Its turn came',
    'Cancelled',
    'Retried by hand, and held back until other jobs have ended',
    'Its turn came',
    'Attempt 1 started',
    'Attempt 1 failed',
    'Its turn came',
  ]);
});

test('what was changed before the start is said, and that the job waits anew', () => {
  const scheduled = (milliseconds: number): Happened => ({
    __typename: 'JobScheduled',
    ...event(milliseconds),
    runAt: at(900),
  });
  const all = rows([
    scheduled(0),
    edited(1, 'runAt', 'priority', 'payload'),
    scheduled(2),
    edited(3, 'tags'),
    queued(4),
    edited(5),
    cancelled(6),
    scheduled(7),
  ]);
  expect(titles(all)).toEqual([
    'Created, to run later',
    'Changed: when it runs, its priority and its payload',
    'Queued again, to run later',
    'Changed: its tags',
    'Queued again',
    'Held back again',
    'Cancelled',
    'Retried by hand, to run later',
  ]);
});

test('a cancellation by the system says why', () => {
  expect(rows([queued(0), cancelled(1, null, 'It is too late.')])[1]).toMatchObject({
    why: 'It is too late.',
  });
});

test('reports of progress are one line until they are unfolded, and a lone one is a line of its own', () => {
  const events = [
    queued(0),
    started(1),
    progress(2, 10),
    progress(3, 20),
    progress(4, 30, 'half'),
    failed(5, 1, 6),
  ];
  const folded = rows(events);
  expect(titles(folded)).toEqual(['Created', 'Attempt 1 started', 'progress 3', 'Attempt 1 failed']);
  const line = folded[2] as Extract<Row, { kind: 'progress' }>;
  expect([line.last.progress, line.last.message, line.open]).toEqual([30, 'half', false]);
  expect(titles(rows(events, null, [line.key]))).toEqual([
    'Created',
    'Attempt 1 started',
    'progress 3',
    'report 10',
    'report 20',
    'report 30',
    'Attempt 1 failed',
  ]);
});

test('the line of progress keeps its name while more comes', () => {
  const events = [queued(0), started(1), progress(2, 10)];
  const before = rows(events)[2]?.key;
  expect(rows([...events, progress(3, 20)])[2]?.key).toBe(before);
});

test('why a job waits again is told by what was before', () => {
  const events = [queued(0), started(1), queued(2), started(3), cancelled(4, 'bob'), queued(5, 'ada')];
  expect(titles(rows(events))).toEqual([
    'Created',
    'Attempt 1 started',
    'Handed back by its worker, which shut down; the attempt does not count',
    'Attempt 1 started',
    'Cancelled',
    'Retried by hand',
  ]);
});

test('an attempt that replaces another one says what became of that', () => {
  const lost = failure(1, { type: 'WorkerLost', message: 'w0 was lost.' });
  const [, , line] = rows([queued(0), started(1), started(2, 2, 1, lost)]);
  expect(line).toMatchObject({
    title: 'Attempt 2 started in place of attempt 1, whose worker was lost',
    tone: 'warn',
    failure: lost,
    ran: 1,
  });
  const [, plain] = rows([queued(0), started(1, 2, null, failure(1))]);
  expect(plain).toMatchObject({ failure: null });
});

test('a failure for good says whether another attempt could have helped', () => {
  const dead = (retryable: boolean): Happened => ({
    __typename: 'JobDeadLetter',
    ...event(2),
    error: failure(1, { retryable }),
  });
  expect(titles(rows([queued(0), started(1), dead(true)]))[2]).toBe('Attempt 1 failed, and no other is left');
  expect(titles(rows([queued(0), started(1), dead(false)]))[2]).toBe('Attempt 1 failed for good');
});

test('the receipts of a cancellation follow it, and are gone once the job is retried', () => {
  const receipts: Receipts = { deliveredAt: at(5), endedAt: at(9), outcome: 'STOPPED', workerId: 'w1' };
  const events = [queued(0), started(1), cancelled(4)];
  const all = rows(events, receipts);
  expect(titles(all).slice(2)).toEqual(['Cancelled', 'The handler was told to stop', 'The handler stopped']);
  expect(all.slice(3)).toMatchObject([
    { at: at(5), worker: 'w1' },
    { at: at(9), worker: 'w1' },
  ]);
  expect(titles(rows([...events, queued(20)], receipts)).at(-1)).toBe('Retried by hand');
});

test('no time is less than nothing, whatever the clocks say', () => {
  const all = rows([queued(5000), started(1000), failed(0, 1, 0), started(-5000, 2), completed(-9000, -4)]);
  expect(titles(all)).toHaveLength(5);
  for (const row of all) if (row.kind === 'happened') expect(row.ran ?? 0).toBe(0);
});

test('ten thousand reports of an attempt are one line', () => {
  const events = [queued(0), started(1)];
  for (let index = 0; index < 10_000; index++) events.push(progress(index + 2, index % 100));
  expect(titles(rows(events))).toEqual(['Created', 'Attempt 1 started', 'progress 10000']);
});

test('what is usual is said of three runs at least', () => {
  expect(usualOf([100, 200, null])).toBeNull();
  expect(usualOf([300, 100, null, 200])).toEqual({ half: 200, most: 300, runs: 3 });
  const many = Array.from({ length: 100 }, (_, index) => 100 - index);
  expect(usualOf(many)).toEqual({ half: 50, most: 95, runs: 100 });
});
