import { expect, test } from 'vitest';
import { applied, type Change, difference, differenceSaid, type JobList, type ListedJob } from './jobList';

const job = (id: string, updatedAt = '2026-01-01T00:00:00Z'): ListedJob => ({ id, updatedAt }) as ListedJob;
const at = { cursor: '1', totalCount: 3, more: false };
const list: JobList = { jobs: [job('a'), job('b'), job('c')], totalCount: 3 };
const ids = ({ jobs }: JobList) => jobs.map(({ id }) => id).join('');

test('a job enters in front of the one that is named, or at the end', () => {
  const entered = (before: string | null): Change => ({
    __typename: 'JobEntered',
    ...at,
    job: job('x'),
    before,
  });
  expect(ids(applied(list, entered('a')))).toBe('xabc');
  expect(ids(applied(list, entered('c')))).toBe('abxc');
  expect(ids(applied(list, entered(null)))).toBe('abcx');
});

test('a job that is in the list already moves', () => {
  expect(ids(applied(list, { __typename: 'JobEntered', ...at, job: job('c'), before: 'a' }))).toBe('cab');
});

test('a job is replaced where it stands, or leaves, and the list before is left as it was', () => {
  const later = job('b', '2026-01-02T00:00:00Z');
  const updated = applied(list, { __typename: 'JobUpdated', ...at, job: later });
  expect(updated.jobs[1]).toBe(later);
  expect(ids(applied(list, { __typename: 'JobLeft', ...at, totalCount: 2, id: 'b' }))).toBe('ac');
  expect(list.jobs[1]).not.toBe(later);
});

test('what a list has caught up with is counted', () => {
  const after = { jobs: [job('x'), job('a'), job('b', '2026-01-02T00:00:00Z')], totalCount: 3 };
  expect(difference(list, after)).toEqual({ entered: 1, updated: 1, left: 1 });
});

test('a list that is watched in part calls no job gone that has only moved down', () => {
  const first = { jobs: [job('a'), job('b')], totalCount: 200 };
  expect(differenceSaid('Jobs', first, { jobs: [job('y'), job('x')], totalCount: 1500 })).toBe(
    'Jobs: 1,500 jobs in all, 1,300 more than before; of the first 2: 2 new.',
  );
  expect(differenceSaid('Jobs', first, { jobs: [job('b'), job('c')], totalCount: 199 })).toBe(
    'Jobs: 199 jobs in all, 1 fewer than before; of the first 2: 1 new.',
  );
  expect(
    differenceSaid('Dead letters', { jobs: [job('a')], totalCount: 3 }, { jobs: [], totalCount: 0 }),
  ).toBe('Dead letters: no jobs in all, 3 fewer than before.');
  expect(differenceSaid('Jobs', list, { jobs: [job('a'), job('b')], totalCount: 2 })).toBe(
    'Jobs: 1 gone; 2 jobs in all.',
  );
  expect(differenceSaid('Jobs', first, first)).toBe('Jobs: nothing has changed.');
});
