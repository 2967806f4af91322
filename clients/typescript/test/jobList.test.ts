import { expect, test } from 'vitest';
import { applied, type JobList, type JobsChange, listsOf } from '../src/jobList.js';

const job = (id: string, status = 'QUEUED') => ({ __typename: 'ProbeJob', id, status });
const list = (...ids: string[]) => ({ jobs: ids.map((id) => job(id)), totalCount: 9 }) as unknown as JobList;
const change = (__typename: string, rest: object) =>
  ({ __typename, totalCount: 8, more: false, ...rest }) as unknown as JobsChange;
const ids = ({ jobs }: JobList) => jobs.map(({ id }) => id).join('');

test.each([
  ['JobsSnapshot', { nodes: [job('x')] }, 'x'],
  ['JobLeft', { id: 'b' }, 'ac'],
  ['JobUpdated', { job: job('b', 'COMPLETED') }, 'abc'],
  ['JobEntered', { job: job('x'), before: 'b' }, 'axbc'],
  ['JobEntered', { job: job('x'), before: null }, 'abcx'],
  ['JobEntered', { job: job('c'), before: 'a' }, 'cab'],
])('%s %j makes of abc %s', (name, rest, expected) => {
  const before = list('a', 'b', 'c');
  const after = applied(before, change(name, rest));
  expect(ids(after)).toBe(expected);
  expect(after.totalCount).toBe(8);
  expect(ids(before)).toBe('abc');
});

test('what is shown of an updated job is what has come of it', () => {
  const { jobs } = applied(list('a', 'b'), change('JobUpdated', { job: job('b', 'COMPLETED') }));
  expect(jobs.map(({ status }) => status)).toEqual(['QUEUED', 'COMPLETED']);
});

test('a list is given between groups of changes and not within one', async () => {
  async function* changes() {
    yield { jobsChanged: change('JobsSnapshot', { nodes: [job('a'), job('b')] }) };
    yield { jobsChanged: change('JobLeft', { id: 'b', more: true }) };
    yield { jobsChanged: change('JobEntered', { job: job('c'), before: 'a' }) };
  }
  const given: string[] = [];
  for await (const each of listsOf(changes())) given.push(ids(each));
  expect(given).toEqual(['ab', 'ca']);
});
