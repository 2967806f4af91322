// What the types say: each of the marked lines has to be refused, or they say nothing.

import { createJobsClient, type JobHandle } from '@gql-jobs/client';
import { useCreateJob, useJob } from '@gql-jobs/client/react';
import { type JobTypes, jobTypes, type ProbeResult } from './jobs';

export async function typed(): Promise<[number, string, ProbeResult | null]> {
  const client = createJobsClient({ url: 'http://127.0.0.1:8000', types: jobTypes });
  const job = await client.create('probe', { steps: 2 }, { priority: 'HIGH', runAt: new Date(), key: 'one' });
  const { attempt } = await job.result();
  // @ts-expect-error: there is no such type
  await client.create('prob', {});
  // @ts-expect-error: a number it is
  await client.create('probe', { steps: '2' });
  // @ts-expect-error: options are no part of the payload
  await client.create('probe', { priority: 'HIGH' });
  // @ts-expect-error: there is no such priority
  await client.create('probe', {}, { priority: 'URGENT' });
  // @ts-expect-error: the result has no such member
  await job.result().then(({ attempts }) => attempts);
  // @ts-expect-error: such a filter there is not
  await client.jobs({ types: ['probe'] });
  const { text } = await (await client.create('probeThread', {})).result();
  const state = await job.state();
  // @ts-expect-error: it is of that type alone
  if (state?.__typename === 'ProbeThreadJob') return [attempt, text, null];
  const found = await client.job(job.id);
  if (found?.__typename === 'ProbeJob') return [attempt, text, found.result];
  for await (const { job: state } of client.watch(job.id, { name: 'probe' })) {
    // @ts-expect-error: it is of that type alone
    if (state.__typename === 'ProbeThreadJob') return [attempt, text, null];
    return [attempt, text, state.result];
  }
  return [attempt, text, null];
}

/** What steers knows the payloads of types as `create` does. */
export async function steered(): Promise<[string, number, JobHandle<JobTypes, 'probe'>]> {
  const client = createJobsClient({ url: 'http://127.0.0.1:8000', types: jobTypes });
  const first = await client.create(
    'probe',
    {},
    { key: { value: 'one', policy: 'REPLACE' }, startBefore: new Date() },
  );
  const job = await client.create('probeThread', {}, { after: [first, first.id], concurrencyKey: 'one' });
  // @ts-expect-error: there is no such policy
  await client.create('probe', {}, { key: { value: 'one', policy: 'KEEP' } });
  // @ts-expect-error: a job it is
  await client.create('probe', {}, { after: [7] });
  const { status } = await first.update({ payload: { steps: 2 }, runAt: null, tags: ['a'] });
  // @ts-expect-error: a number it is
  await first.update({ payload: { steps: '2' } });
  // @ts-expect-error: that stays as it is
  await first.update({ maxRetries: 2 });
  await client.update(first.id, { name: 'probe', payload: { steps: 2 } });
  await client.update(first.id, { priority: 'LOW' });
  // @ts-expect-error: a number it is
  await client.update(first.id, { name: 'probe', payload: { steps: '2' } });
  // @ts-expect-error: of which type is it?
  await client.update(first.id, { payload: { steps: 2 } });
  await first.retry({ payload: { steps: 2 } });
  // @ts-expect-error: a number it is
  await first.retry({ payload: { steps: '2' } });
  await client.retry(job.id, { name: 'probeThread', payload: {} });
  // @ts-expect-error: of which type is it?
  await client.retry(job.id, { payload: {} });
  await client.upsertSchedule('nightly', 'probe', { steps: 2 }, { cron: '0 3 * * *', overlap: 'ALLOW' });
  // @ts-expect-error: a number it is
  await client.upsertSchedule('nightly', 'probe', { steps: '2' }, { cron: '0 3 * * *' });
  // @ts-expect-error: there is no such type
  await client.upsertSchedule('nightly', 'prob', {}, { cron: '0 3 * * *' });
  // @ts-expect-error: there is no such policy
  await client.upsertSchedule('nightly', 'probe', {}, { cron: '0 3 * * *', overlap: 'BOTH' });
  // @ts-expect-error: there is no such limit
  await client.setQueueLimits('default', { perMinute: 2 });
  const { ungated } = await client.setQueueLimits('default', { perSecond: 0.5 });
  const ran = await client.runSchedule<'probe'>('nightly');
  const { attempt } = await ran.result();
  // @ts-expect-error: of any type it may be
  await client.runSchedule('nightly').then(async (any) => (await any.result()).attempt);
  return [status, ungated + attempt, ran];
}

/** Hooks know the registered types without being told. */
export function useTyped(): number | undefined {
  const { create, job } = useCreateJob('probe');
  const { result } = useJob(job);
  // @ts-expect-error: a number it is
  void create({ steps: '2' });
  // @ts-expect-error: there is no such type
  useCreateJob('prob');
  return result?.attempt;
}

/** A client of which no types are known takes whatever the server does. */
export async function untyped(): Promise<unknown> {
  const client = createJobsClient<{ [name: string]: { object: string; payload: object; result: unknown } }>({
    url: '/graphql',
  });
  return (await client.create('anything', { to: 'ada' })).result();
}

export type Names = keyof JobTypes;
