import { expect, test } from 'vitest';
import type { JobFilter } from '../../api/generated';
import { href } from '../../route';
import {
  type Asked,
  asked,
  canInclude,
  inWords,
  localField,
  momentOfField,
  narrowed,
  parametersOf,
  stillMatches,
} from './filter';

const of = (search: string): Asked => asked(new URLSearchParams(search));
const addressOf = (question: Asked): string => href('jobs', parametersOf(question));

test('an address and what it asks for lead to each other', () => {
  const question: Asked = {
    filter: {
      ids: ['a', 'b'],
      status: ['QUEUED', 'PROCESSING'],
      type: ['email'],
      queue: ['default'],
      priority: ['HIGH'],
      tags: ['customer:4711', 'a, b & c'],
      createdAfter: '2026-01-31T12:00:00Z',
      createdBefore: '2026-02-28T12:00:00Z',
      parent: 'c',
      key: 'cart of ada',
      concurrencyKey: 'customer 7',
      schedule: 'nightly',
    },
    orderBy: { field: 'PRIORITY', direction: 'ASC' },
  };
  expect(of(addressOf(question).split('?')[1] ?? '')).toEqual(question);
});

test('an address without parameters asks for all jobs, the newest first, and the other way round', () => {
  expect(of('')).toEqual({ filter: {}, orderBy: null });
  expect(of('order=CREATED_AT-DESC&status=&createdAfter=')).toEqual({ filter: {}, orderBy: null });
  expect(addressOf({ filter: {}, orderBy: { field: 'CREATED_AT', direction: 'DESC' } })).toBe('#/jobs');
});

test('a value that does not exist is asked for: the server says what is wrong with it', () => {
  expect(of('status=LOST').filter).toEqual({ status: ['LOST'] });
  expect(of('createdAfter=yesterday').filter).toEqual({ createdAfter: 'yesterday' });
});

test('a value that an address names twice counts once', () => {
  expect(of('tags=a&tags=a&tags=b').filter).toEqual({ tags: ['a', 'b'] });
});

test('what is emptied is no condition any more, and the filter before is left as it was', () => {
  const before = { status: ['QUEUED' as const], tags: ['a'] };
  expect(narrowed(before, 'status', [])).toEqual({ tags: ['a'] });
  expect(narrowed(before, 'createdAfter', null)).toEqual(before);
  expect(before.status).toEqual(['QUEUED']);
});

test('a filter is said in words, and a long list by its length', () => {
  expect(inWords({})).toBe('');
  expect(inWords({ status: ['QUEUED', 'PROCESSING'], tags: ['a', 'b'] })).toBe(
    'status Queued or Running, tags a and b',
  );
  expect(inWords({ createdAfter: 'yesterday' })).toBe('created after yesterday');
  expect(inWords({ parent: '018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42' })).toBe('created by job 018f3c6e');
  expect(inWords({ key: 'a', concurrencyKey: 'b', schedule: 'c' })).toBe(
    'key a, concurrency key b, schedule c',
  );
  expect(inWords({ queue: ['1', '2', '3', '4', '5', '6'] })).toBe('queue one of 6');
});

test('a job that matched once can cease to by its state, or by an edit', () => {
  const job = { status: 'QUEUED', priority: 'HIGH', tags: ['a', 'b'] } as const;
  expect(stillMatches({ type: ['email'] }, { ...job, status: 'CANCELLED' })).toBe(true);
  expect(stillMatches({ status: ['QUEUED'] }, { ...job, status: 'PROCESSING' })).toBe(false);
  const filter: JobFilter = { status: ['QUEUED'], priority: ['HIGH', 'LOW'], tags: ['b'] };
  expect(stillMatches(filter, job)).toBe(true);
  expect(stillMatches(filter, { ...job, priority: 'NORMAL' })).toBe(false);
  expect(stillMatches(filter, { ...job, tags: ['a'] })).toBe(false);
  expect(canInclude({ status: ['COMPLETED'] }, ['DEAD_LETTER', 'CANCELLED'])).toBe(false);
  expect(canInclude({}, ['DEAD_LETTER'])).toBe(true);
});

test('a field of local time is a moment of the address and back', () => {
  const at = momentOfField('2026-07-01T09:30');
  expect(at).toMatch(/Z$/);
  expect(localField(at)).toBe('2026-07-01T09:30');
  expect(localField('yesterday')).toBe('');
  expect(momentOfField('')).toBeNull();
});
