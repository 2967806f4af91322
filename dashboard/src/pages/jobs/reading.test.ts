import { expect, test } from 'vitest';
import type { ListedJob } from '../../api/jobList';
import type { JobFilter, JobStatus } from '../../api/generated';
import { BLOCK, HEAD, Reading } from './reading';

const job = (id: string, status: JobStatus = 'QUEUED', second = 0): ListedJob =>
  ({ id, status, updatedAt: new Date(second * 1000).toISOString() }) as ListedJob;
const jobs = (names: string, status?: JobStatus) => [...names].map((name) => job(name, status));
/** `prefix0`, `prefix1`, … */
const numbered = (prefix: string, from: number, to: number): ListedJob[] =>
  Array.from({ length: to - from }, (_, step) => job(`${prefix}${from + step}`));

function reading(names: string, total = names.length, filter: JobFilter = {}): Reading {
  const read = new Reading(filter);
  read.pushed({ jobs: jobs(names), totalCount: total });
  return read;
}
const shown = (read: Reading) => read.ids.join('');

test('while nobody reads, the rows are the list as it is pushed', () => {
  const read = reading('abc');
  read.pushed({ jobs: jobs('xbc'), totalCount: 3 });
  expect(shown(read)).toBe('xbc');
  expect(read.waiting).toBe(0);
});

test('while somebody reads, no row moves or vanishes, and new ones are counted', () => {
  const read = reading('abc');
  read.hold(true);
  read.pushed({ jobs: jobs('xyac'), totalCount: 4 });
  expect(shown(read)).toBe('abc');
  expect(read.waiting).toBe(2);
  expect(['a', 'b', 'c'].map((id) => read.indexOf(id))).toEqual([0, 1, 2]);
});

test('what waits comes in when it is asked for, and when nobody reads any more', () => {
  const asked = reading('ab');
  asked.hold(true);
  asked.pushed({ jobs: jobs('xab'), totalCount: 3 });
  asked.renew();
  expect(shown(asked)).toBe('xab');
  asked.pushed({ jobs: jobs('yxab'), totalCount: 4 });
  expect([shown(asked), asked.waiting]).toEqual(['xab', 1]);
  asked.hold(false);
  expect([shown(asked), asked.waiting]).toEqual(['yxab', 0]);
});

test('a row whose job does not match any more is marked once that is known, and gone when the list is renewed', () => {
  const read = reading('abc', 3, { status: ['QUEUED'] });
  read.hold(true);
  read.pushed({ jobs: jobs('ac'), totalCount: 2 });
  // It may have been pushed out by others as well: its own state says which.
  expect(read.isGone('b')).toBe(false);
  expect(read.blocks(0, 2)).toEqual([['b']]);
  read.watched(['b'], [job('b', 'PROCESSING', 1)]);
  expect([shown(read), read.isGone('b'), read.job('b')?.status]).toEqual(['abc', true, 'PROCESSING']);
  read.hold(false);
  expect(shown(read)).toBe('ac');
});

test('a row whose job has expired is marked, and one that comes back is not', () => {
  const read = reading('ab');
  read.hold(true);
  read.pushed({ jobs: jobs('a'), totalCount: 1 });
  read.watched(['b'], []);
  expect(read.isGone('b')).toBe(true);
  read.pushed({ jobs: jobs('ab'), totalCount: 2 });
  expect(read.isGone('b')).toBe(false);
});

test('a row changes where it stands, and an answer that was overtaken changes nothing', () => {
  const read = reading('ab');
  read.hold(true);
  read.pushed({ jobs: [job('a'), job('b', 'COMPLETED', 5)], totalCount: 2 });
  expect(read.job('b')?.status).toBe('COMPLETED');
  read.append('b', { jobs: [job('b', 'PROCESSING', 4), job('c')], cursor: 'c', more: false });
  expect([shown(read), read.job('b')?.status]).toEqual(['abc', 'COMPLETED']);
});

test('pages go on behind the last row, each job once, and the cursor is that of the last row alone', () => {
  const read = reading('abc', 9);
  expect([read.more, read.cursor]).toEqual([true, null]);
  read.append('c', { jobs: jobs('cdef'), cursor: 'after f', more: true });
  expect([shown(read), read.more, read.cursor]).toEqual(['abcdef', true, 'after f']);
  // The answer to what was asked before the list was another one.
  read.append('c', { jobs: jobs('xyz'), cursor: 'after z', more: false });
  expect([shown(read), read.more]).toEqual(['abcdef', true]);
  read.append('f', { jobs: jobs('ghi'), cursor: 'after i', more: false });
  expect([shown(read), read.more]).toEqual(['abcdefghi', false]);
});

test('loaded pages stay when new jobs come in above, and go where nobody knows what is between', () => {
  const read = new Reading({});
  read.pushed({ jobs: numbered('a', 0, HEAD), totalCount: 200 });
  read.append(`a${HEAD - 1}`, { jobs: numbered('a', HEAD, 200), cursor: 'end', more: false });
  read.pushed({ jobs: [job('new'), ...numbered('a', 0, HEAD - 1)], totalCount: 201 });
  expect(read.ids).toHaveLength(201);
  expect([read.ids[0], read.ids[HEAD], read.ids.at(-1)]).toEqual(['new', `a${HEAD - 1}`, 'a199']);
  read.pushed({ jobs: numbered('b', 0, HEAD), totalCount: 500 });
  expect([read.ids.length, read.more, read.cursor]).toEqual([HEAD, true, null]);
});

test('more wait than are counted where the beginning has nothing in common with what is shown', () => {
  const read = reading('ab');
  read.hold(true);
  read.pushed({ jobs: numbered('b', 0, HEAD), totalCount: 500 });
  expect([read.waiting, read.waitsBeyond]).toEqual([HEAD, true]);
  read.pushed({ jobs: [...numbered('b', 0, HEAD - 1), job('a')], totalCount: 500 });
  expect(read.waitsBeyond).toBe(false);
});

test('jobs behind the last row are shown at once: nothing moves because of them', () => {
  const read = reading('abc');
  read.hold(true);
  read.pushed({ jobs: jobs('acde'), totalCount: 4 });
  expect([shown(read), read.waiting]).toEqual(['abcde', 0]);
});

test('an empty list that is looked at shows what comes', () => {
  const read = reading('');
  read.hold(true);
  read.pushed({ jobs: jobs('a'), totalCount: 1 });
  expect(shown(read)).toBe('a');
});

test('the rows on the screen are watched in blocks that stay the same while one scrolls', () => {
  const read = reading('');
  read.pushed({ jobs: numbered('a', 0, HEAD), totalCount: 1000 });
  read.append(`a${HEAD - 1}`, { jobs: numbered('a', HEAD, 400), cursor: 'x', more: true });
  expect(read.blocks(0, HEAD - 1)).toEqual([]);
  const [block, ...others] = read.blocks(HEAD + 3, HEAD + 30);
  expect([block?.length, block?.[0], others]).toEqual([BLOCK, `a${HEAD}`, []]);
  expect(read.blocks(HEAD + 10, HEAD + 40)).toEqual([block]);
  expect(read.blocks(HEAD + 30, HEAD + 60)).toHaveLength(2);
});

test('a range goes from either end, and is one row where its other end is not shown', () => {
  const read = reading('abcde');
  expect([read.range('b', 'd'), read.range('d', 'b')]).toEqual([
    ['b', 'c', 'd'],
    ['b', 'c', 'd'],
  ]);
  expect([read.range(null, 'c'), read.range('z', 'c')]).toEqual([['c'], ['c']]);
});

test('whoever listens is told of each change, until it ends that', () => {
  const read = reading('a');
  const seen: number[] = [];
  const end = read.subscribe(() => seen.push(read.version));
  read.pushed({ jobs: jobs('ab'), totalCount: 2 });
  read.hold(true);
  read.hold(true);
  end();
  read.renew();
  expect(seen).toHaveLength(2);
});
