// A page as an application has it: the client from its package, the types of jobs from the server. Tests write programs for
// it, with what it puts on `window`, and use its views.

import { createJobsClient, type JobHandle, type JobsClientOptions, JobsError } from '@gql-jobs/client';
import { JobsProvider, useCreateJob, useJob, useJobs } from '@gql-jobs/client/react';
import { type ReactNode, StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { type JobTypes, jobTypes, type ProbePayloadInput } from './jobs';

declare global {
  interface Window {
    /** What a test asks the page to show. */
    asked: { url: string; view: string; payload: ProbePayloadInput };
    /** How often a component was mounted. */
    mounted: number;
  }
}

const { url, view, payload } = window.asked;

const connect = (options: Partial<JobsClientOptions<JobTypes>> = {}) =>
  createJobsClient({ url, types: jobTypes, ...options });

function Job({ job, name }: { job: JobHandle<JobTypes, 'probe'>; name: string }): ReactNode {
  const { status, progress, result, error, connection, problem, retry } = useJob(job);
  return (
    <section aria-label={name}>
      <output>{`${status} ${progress} ${result?.attempt ?? error?.message ?? '-'}`}</output>
      <em>{connection}</em>
      {problem && <p role="alert">{problem.code}</p>}
      <button type="button" onClick={() => void retry()}>
        Again
      </button>
    </section>
  );
}

function Maker(): ReactNode {
  const { create, job, pending, error, reset } = useCreateJob('probe');
  return (
    <>
      <button type="button" onClick={() => create(payload)}>
        Create
      </button>
      <button type="button" onClick={reset}>
        Forget
      </button>
      <p>{pending ? 'pending' : 'idle'}</p>
      {error && <p role="alert">{`${error.code} ${error.field}`}</p>}
      {job && <Job job={job} name="first" />}
      {job && <Job job={job} name="second" />}
    </>
  );
}

function OnMount(): ReactNode {
  const { create, job } = useCreateJob('probe');
  useEffect(() => {
    window.mounted = (window.mounted ?? 0) + 1;
    void create(payload);
  }, [create]);
  return job && <Job job={job} name="first" />;
}

function List(): ReactNode {
  const { jobs, totalCount, connection, problem } = useJobs(
    { type: ['probe'] },
    { first: 3, maxPerSecond: 10, pollEvery: 200 },
  );
  return (
    <section aria-label="list" data-total={totalCount}>
      <em>{connection}</em>
      {problem && <p role="alert">{problem.code}</p>}
      <ol>
        {jobs.map(({ id, status }) => (
          <li key={id} data-id={id}>
            {status}
          </li>
        ))}
      </ol>
    </section>
  );
}

function Changed(): ReactNode {
  const { create, job } = useCreateJob('probe');
  const [reason, setReason] = useState('');
  // By its id alone, so that its type is what the job tells.
  const { status, connection, update, retryWith, delete: remove } = useJob<'probe'>(job?.id);
  const attempt = (call: Promise<void>) => void call.catch(({ code }: JobsError) => setReason(code));
  return (
    <section aria-label="first">
      <output>{`${status}`}</output>
      <em>{connection}</em>
      {reason && <p role="alert">{reason}</p>}
      <button
        type="button"
        onClick={() => create(payload, { runAt: new Date(Date.now() + 3_600_000).toISOString() })}
      >
        Create
      </button>
      <button type="button" onClick={() => attempt(update({ payload: { permanent: true }, runAt: null }))}>
        Change
      </button>
      <button type="button" onClick={() => attempt(retryWith({ steps: 1 }))}>
        Repair
      </button>
      <button type="button" onClick={() => attempt(remove())}>
        Delete
      </button>
    </section>
  );
}

const VIEWS = { Maker, OnMount, List, Changed };

function Page(): ReactNode {
  const [isShown, setShown] = useState(true);
  const View = VIEWS[view as keyof typeof VIEWS];
  return (
    <>
      <button type="button" onClick={() => setShown(!isShown)}>
        Toggle
      </button>
      {isShown && View && <View />}
    </>
  );
}

Object.assign(window, { connect, JobsError });
const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <StrictMode>
      <JobsProvider client={connect()}>
        <Page />
      </JobsProvider>
    </StrictMode>,
  );
}
