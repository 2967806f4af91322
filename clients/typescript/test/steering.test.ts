// What is asked of a server for steering, and what is asked again where an answer is lost.

import { expect, test } from 'vitest';
import { createJobsClient, JobsError } from '../src/index.js';

interface Asked {
  query: string;
  variables: Record<string, unknown>;
}

/** A client of a server that answers so, one after the other: data, an error, or nothing. */
function served(...answers: (object | null)[]) {
  const asked: Asked[] = [];
  const client = createJobsClient({
    url: 'http://127.0.0.1:1',
    patience: 5000,
    fetch: async (_, request) => {
      asked.push(JSON.parse(String(request?.body)));
      const answer = answers[asked.length - 1];
      if (!answer) throw new TypeError('Failed to fetch');
      return new Response(
        JSON.stringify('code' in answer ? { errors: [refusal(answer)] } : { data: answer }),
      );
    },
  });
  return { client, asked };
}

const refusal = (extensions: object) => ({ message: 'No.', extensions });
const NOT_FOUND = { code: 'NOT_FOUND' };
const GONE = { deletion: { deleted: false } };

test('a deletion whose answer is lost is asked for again, and what it finds no more may have been there', async () => {
  const { client, asked } = served(null, GONE, null, NOT_FOUND, GONE, NOT_FOUND);
  expect(await client.delete('a')).toBe(true);
  expect(await client.delete('a')).toBe(true);
  expect(await client.delete('a')).toBe(false);
  await expect(client.delete('a')).rejects.toMatchObject(NOT_FOUND);
  expect(asked).toHaveLength(6);
});

test('a refusal that has surely done nothing leaves no doubt that a schedule was not there', async () => {
  const { client, asked } = served({ code: 'RATE_LIMITED' }, GONE);
  expect(await client.deleteSchedule('nightly')).toBe(false);
  expect(asked.map(({ variables }) => variables)).toEqual([{ name: 'nightly' }, { name: 'nightly' }]);
});

test.each([
  ['retry', { payload: { to: 'ada' }, name: 'email' }],
  ['runSchedule', {}],
] as const)('%s is not asked for again, because it could run twice', async (method, options) => {
  const { client, asked } = served(null, null);
  await expect(client[method]('a', options as never)).rejects.toMatchObject({ code: 'UNREACHABLE' });
  expect(asked).toHaveLength(1);
});

test('a change has what was given and no more: null is at once, and left out is as before', async () => {
  const job = { updateJob: { job: { __typename: 'EmailJob', id: 'a', status: 'QUEUED' } } };
  const { client, asked } = served(null, job, job);
  expect(await client.update('a', { runAt: null })).toEqual({ ...job.updateJob.job, result: null });
  await client.update('a', { name: 'email', payload: { to: 'ada' }, tags: [] });
  expect(asked.map(({ variables }) => variables.input)).toEqual([
    { runAt: null },
    { runAt: null },
    { payload: { email: { to: 'ada' } }, tags: [] },
  ]);
});

test('a retry asks an API that knows no other payload for what that knows', async () => {
  const { client, asked } = served({ retryJob: { job: { id: 'a' } } });
  await client.retry('a');
  expect(asked[0]?.query).not.toContain('payload');
});

test('jobs to run after are given as handles, jobs or ids', async () => {
  const created = { createJob: { deduplicated: false, job: { id: 'a' } } };
  const { client, asked } = served(created, created);
  const first = await client.create('email', {});
  await client.create('email', {}, { after: [first, { id: 'b' }, 'c'], afterPolicy: 'RUN' });
  expect(asked[1]?.variables.input).toMatchObject({ after: ['a', 'b', 'c'], afterPolicy: 'RUN' });
});

test('what is at fault is called as whoever has called a method knows it', () => {
  const called = (field: string, name?: string, key?: string) =>
    new JobsError('INVALID_ARGUMENT', 'No.', { field, fields: [{ path: field, message: 'No.' }] }).within(
      name,
      key,
    );
  for (const [field, name, key, expected] of [
    ['input.payload.email.to', 'email', undefined, 'to'],
    ['payload.email.to.1', 'email', undefined, 'to.1'],
    ['input.payload', 'email', undefined, 'payload'],
    ['input.key.value', 'email', undefined, 'key.value'],
    ['input.idempotencyKey', 'email', 'key', 'key'],
    ['input.idempotencyKey', 'email', undefined, 'idempotencyKey'],
    ['limits.perSecond', undefined, undefined, 'perSecond'],
    ['input.cron', 'email', undefined, 'cron'],
    ['filter.ids', undefined, undefined, 'filter.ids'],
  ] as const) {
    expect(called(field, name, key).field).toBe(expected);
    expect(called(field, name, key).fields).toEqual([{ path: expected, message: 'No.' }]);
  }
});

test('schedules are read page by page, to the end', async () => {
  const page = (from: number, to: number) => ({
    schedules: Array.from({ length: to - from }, (_, number) => ({ name: `s${from + number}` })),
  });
  const { client, asked } = served(page(0, 100), page(100, 200), page(200, 200));
  expect(await client.schedules()).toHaveLength(200);
  expect(asked.map(({ variables }) => variables.after)).toEqual([undefined, 's99', 's199']);
});
