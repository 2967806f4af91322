// What the types say: each of the marked lines has to be refused, or they say nothing.

import { createJobsClient } from '@gql-jobs/client';
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
