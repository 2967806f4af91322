import type { Client } from '@urql/core';
import { makeSubject } from 'wonka';
import { afterEach, expect, test, vi } from 'vitest';
import {
  FollowJobDocument,
  JobFactsDocument,
  JobHistoryDocument,
  type JobStatus,
  WatchEndedJobDocument,
} from '../../api/generated';
import type { Happened } from './history';
import { bounded, JobWatch } from './watch';

vi.mock('../../api/exact', () => ({
  exactly: async () => ({ job: { status: 'COMPLETED', rawPayload: {}, rawResult: {} } }),
}));

const at = (second: number) => new Date(Date.UTC(2026, 0, 31, 12, 0, second)).toISOString();
const facts = (status: JobStatus, second: number) => ({
  id: 'a-job',
  type: 'probe',
  status,
  progress: 0,
  updatedAt: at(second),
  cancellation: null,
  startedAt: null,
  children: [] as { id: string; type: string; status: JobStatus }[],
});
const event = (kind: string, second: number, status?: JobStatus) => ({
  __typename: kind,
  cursor: String(second),
  at: at(second),
  actor: null,
  ...(status && { job: facts(status, second) }),
});

/** A server as the watch sees it: what it answers, what it was asked for, and the streams that it was asked to open. */
function server() {
  const said = {
    facts: facts('PROCESSING', 1) as ReturnType<typeof facts> | null,
    history: [event('JobQueued', 0), event('JobStarted', 1)],
    asked: 0,
    opened: [] as {
      document: unknown;
      after: unknown;
      tell: (data: unknown) => void;
      end: () => void;
    }[],
    /** Answers wait for it. */
    gate: Promise.resolve(),
  };
  async function answer(document: unknown, variables: { after?: string | null }): Promise<unknown> {
    if (document === JobFactsDocument) {
      said.asked += 1;
      const job = said.facts;
      await said.gate;
      return { data: { job } };
    }
    if (document === JobHistoryDocument) {
      const { after } = variables;
      const events = said.history.filter(({ cursor }) => after == null || Number(cursor) > Number(after));
      return { data: { job: { events } } };
    }
    return { data: { jobs: { nodes: [] } } };
  }
  const client = {
    query: (document: unknown, variables: { after?: string | null }) => ({
      toPromise: () => answer(document, variables),
    }),
    subscription: (document: unknown, variables: { after?: unknown }) => {
      const { source, next, complete } = makeSubject<unknown>();
      const tell = (data: unknown) => next({ data });
      said.opened.push({ document, after: variables.after, tell, end: complete });
      return source;
    },
  };
  return { said, client: client as unknown as Client };
}

let watch: JobWatch | undefined;
afterEach(() => watch?.close());

const opened = (said: ReturnType<typeof server>['said'], number: number) =>
  vi.waitFor(() => {
    expect(said.opened).toHaveLength(number);
    return said.opened[number - 1] as (typeof said.opened)[number];
  });

test('what has happened between the facts and the history is in the facts as well', async () => {
  const { said, client } = server();
  said.history.push(event('JobQueued', 2));
  watch = new JobWatch(client, 'a-job');
  const first = await opened(said, 1);
  expect([first.document, first.after]).toEqual([FollowJobDocument, '2']);
  await vi.waitFor(() => expect(said.asked).toBe(2));
});

test('an answer that is older than an event changes nothing that the event has told', async () => {
  const { said, client } = server();
  watch = new JobWatch(client, 'a-job');
  const first = await opened(said, 1);
  let open = () => {};
  said.gate = new Promise((resolve) => {
    open = resolve;
  });
  void watch.refresh();
  first.tell({ jobProgress: event('JobFailed', 5, 'RETRYING') });
  await vi.waitFor(() => expect(watch?.watched.value.facts?.status).toBe('RETRYING'));
  open();
  await watch.refresh();
  expect(watch.watched.value.facts?.status).toBe('RETRYING');
});

test('the last event, which the end of the stream repeats, is taken once', async () => {
  const { said, client } = server();
  watch = new JobWatch(client, 'a-job');
  const first = await opened(said, 1);
  const last = { jobProgress: event('JobCompleted', 5, 'COMPLETED') };
  said.facts = facts('COMPLETED', 5);
  first.tell(last);
  first.tell(last);
  first.end();
  await opened(said, 2);
  expect(watch.watched.value.events.map(({ cursor }) => cursor)).toEqual(['0', '1', '5']);
});

test('a job that has ended is followed again when it is retried, though its facts were asked for before', async () => {
  const { said, client } = server();
  said.facts = facts('DEAD_LETTER', 2);
  said.history.push(event('JobDeadLetter', 2));
  watch = new JobWatch(client, 'a-job');
  (await opened(said, 1)).end();
  const ended = await opened(said, 2);
  expect(ended.document).toBe(WatchEndedJobDocument);
  const snapshot = (second: number) => ({
    jobsChanged: { __typename: 'JobsSnapshot', nodes: [{ updatedAt: at(second) }] },
  });
  ended.tell(snapshot(2));
  expect(said.opened).toHaveLength(2);
  // It was retried, and has failed again; whoever pressed the button has asked for the facts at once.
  said.facts = facts('DEAD_LETTER', 9);
  await watch.refresh();
  ended.tell(snapshot(9));
  const again = await opened(said, 3);
  expect([again.document, again.after]).toEqual([FollowJobDocument, '2']);
});

test('a change that no event tells of is looked into once', async () => {
  const { said, client } = server();
  said.facts = facts('COMPLETED', 2);
  said.history.push(event('JobCompleted', 2));
  watch = new JobWatch(client, 'a-job');
  (await opened(said, 1)).end();
  const change = { jobsChanged: { __typename: 'JobUpdated', job: { updatedAt: at(7) } } };
  (await opened(said, 2)).tell(change);
  (await opened(said, 3)).end();
  (await opened(said, 4)).tell(change);
  await new Promise((resolve) => requestAnimationFrame(resolve));
  expect(said.opened).toHaveLength(4);
});

test('an ended job is asked about again while its children go on', async () => {
  vi.useFakeTimers();
  const { said, client } = server();
  const child = (status: JobStatus) => [{ id: 'a-child', type: 'probe', status }];
  said.facts = { ...facts('COMPLETED', 2), children: child('PROCESSING') };
  const watch = new JobWatch(client, 'a-job');
  await vi.advanceTimersByTimeAsync(5500);
  const asked = said.asked;
  said.facts = { ...facts('COMPLETED', 2), children: child('COMPLETED') };
  await vi.advanceTimersByTimeAsync(5500);
  expect(said.asked).toBe(asked + 1);
  expect(watch.watched.value.facts?.children).toEqual(child('COMPLETED'));
  await vi.advanceTimersByTimeAsync(20_000);
  expect(said.asked).toBe(asked + 1);
  watch.close();
  vi.useRealTimers();
});

test('a job that is not there is unknown, and one that goes while it is shown has expired', async () => {
  const unknown = server();
  unknown.said.facts = null;
  watch = new JobWatch(unknown.client, 'a-job');
  await vi.waitFor(() => expect(watch?.watched.value.gone).toBe('unknown'));
  watch.close();
  const { said, client } = server();
  said.facts = facts('COMPLETED', 1);
  watch = new JobWatch(client, 'a-job');
  (await opened(said, 1)).end();
  (await opened(said, 2)).tell({ jobsChanged: { __typename: 'JobLeft', id: 'a-job' } });
  expect(watch.watched.value.gone).toBe('expired');
});

test('of the reports of a job that runs for days the oldest go, and of what else has happened nothing', () => {
  const start = event('JobStarted', 0) as unknown as Happened;
  const reports = Array.from(
    { length: 11_000 },
    (_, number) => event('JobProgress', number) as unknown as Happened,
  );
  expect(bounded([start, ...reports.slice(1)])).toHaveLength(11_000);
  const kept = bounded([start, ...reports]);
  expect(kept).toHaveLength(10_001);
  expect([kept[0], kept[1]]).toEqual([start, reports[1000]]);
});

test('one that goes before it has ended was deleted, and what was deleted here is not kept', async () => {
  const { said, client } = server();
  watch = new JobWatch(client, 'a-job');
  await opened(said, 1);
  said.facts = null;
  await watch.refresh();
  expect(watch.watched.value.gone).toBe('deleted');
  watch.forget();
  expect(watch.watched.value).toMatchObject({ gone: 'deleted here', facts: null, events: [] });
  expect(watch.watched.value.payload).toBeUndefined();
});
