// Where there is no browser: pages that are rendered on a server, programs in Node.js.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { createElement } from 'react';
import { renderToString } from 'react-dom/server';
import { expect, test } from 'vitest';
import { createJobsClient, JobsError } from '../src/index.js';
import { JobsProvider, useCreateJob, useJob, useJobs } from '../src/react.js';

function Page() {
  const { connection, status } = useJob('a job');
  const { jobs } = useJobs({ status: ['QUEUED'] });
  const { pending } = useCreateJob('email');
  return createElement('p', null, `${connection} ${status} ${jobs.length} ${pending}`);
}

test('a page is rendered on a server as one that is not connected yet, and nothing is left that runs', async () => {
  const client = createJobsClient({ url: 'http://127.0.0.1:1/graphql' });
  const page = createElement(JobsProvider, { client }, createElement(Page));
  expect(renderToString(page)).toBe('<p>connecting undefined 0 false</p>');
  const program = `
    import { createElement } from 'react';
    import { renderToString } from 'react-dom/server';
    import { createJobsClient } from '@gql-jobs/client';
    import { JobsProvider, useJob } from '@gql-jobs/client/react';
    const client = createJobsClient({ url: 'http://127.0.0.1:1/graphql' });
    const Page = () => useJob('a job').connection;
    console.log(renderToString(createElement(JobsProvider, { client }, createElement(Page))));
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program]);
  expect(stdout).toBe('connecting\n');
});

test('a client of a relative address can be made on a server', () => {
  expect(() => createJobsClient({ url: '/graphql' })).not.toThrow();
});

test('a hook without a provider says what is missing', () => {
  expect(() => renderToString(createElement(Page))).toThrow('There is no JobsProvider above this component.');
});

test('whoever aborts gets their own reason, and a client that is closed says so', async () => {
  const client = createJobsClient({ url: 'http://127.0.0.1:1' });
  const reason = new Error('enough');
  await expect(client.create('email', {}, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  const created = client.create('email', {});
  const unanswered = createJobsClient({ url: 'http://127.0.0.1:1', getToken: () => new Promise(() => {}) });
  const ended = new AbortController();
  const waiting = [
    unanswered.create('email', {}, { signal: ended.signal }),
    unanswered.watch('a job', { signal: ended.signal }).next(),
  ];
  ended.abort(reason);
  for (const each of waiting) await expect(each).rejects.toBe(reason);
  const left = unanswered.watch('a job');
  const next = left.next();
  await left.return?.();
  expect(await next).toEqual({ done: true, value: undefined });
  client.close();
  await expect(created).rejects.toEqual(new JobsError('CLOSED', 'The client was closed.'));
});

test('a server that is not there is tried for as long as patience lasts, and no longer', async () => {
  const client = createJobsClient({ url: 'http://127.0.0.1:1', patience: 1500 });
  const begun = Date.now();
  await expect(client.create('email', {})).rejects.toMatchObject({ code: 'UNREACHABLE', field: null });
  expect(Date.now() - begun).toBeGreaterThanOrEqual(500);
  expect(Date.now() - begun).toBeLessThan(1500);
});
