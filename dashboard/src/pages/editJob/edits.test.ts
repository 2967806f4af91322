import { expect, test } from 'vitest';
import { type Exact, read } from '../../api/exact';
import { fieldsOf, InputTypes } from '../../parts/form/fields';
import { type JobType, originalOf } from '../../parts/form/jobTypes';
import { entryOf } from '../../parts/form/PayloadPanel';
import { localMoment } from '../../parts/form/WhenFields';
import { allows, editsOf, type Shown } from './edits';

const schema = {
  type: 'object',
  required: ['to', 'password'],
  properties: {
    to: { type: 'string', format: 'email' },
    size: { type: 'integer' },
    password: { type: 'string', format: 'password' },
  },
};
const type: JobType = {
  name: 'mail',
  description: '',
  queue: 'default',
  maxRetries: '3',
  timeoutSeconds: '60',
  field: fieldsOf('mail', read(JSON.stringify(schema)), new InputTypes(null)),
};
const payload = '{"to": "a@b.example", "size": 9007199254740993, "password": "[redacted]"}';
const original = originalOf(read(payload));
const before: Shown = {
  when: { priority: 'NORMAL', tags: 'a\nb', runAt: '2026-01-31T12:00:00' },
  entry: entryOf(type.field, original),
};
const edits = (now: Partial<Shown>, of: JobType | null = type) =>
  editsOf(of, original.secrets, before, { ...before, ...now });
const asJson = (json: string): Partial<Shown> => ({ entry: { ...before.entry, json } });
const when = (part: Partial<Shown['when']>): Partial<Shown> => ({ when: { ...before.when, ...part } });

test('what is as it was is not sent, however it is written, and its secret is missed by nobody', () => {
  const nothing = { input: {}, problems: {}, missing: [] };
  expect(edits({})).toEqual(nothing);
  expect(edits(asJson('{"size": 9007199254740993, "to": "a@b.example"}'))).toEqual(nothing);
  expect(edits(when({ tags: 'a\n\nb\n' }))).toEqual(nothing);
});

test('each change is sent by itself', () => {
  expect(edits(when({ priority: 'HIGH' })).input).toEqual({ priority: 'HIGH' });
  expect(edits(when({ tags: '' })).input).toEqual({ tags: [] });
  expect(edits(when({ runAt: '' })).input).toEqual({ runAt: null });
  const moment = new Date('2026-02-01T12:00:00').toISOString();
  expect(edits(when({ runAt: '2026-02-01T12:00:00' })).input).toEqual({ runAt: moment });
});

test('a payload that is another one lacks its secret, and its digits stay', () => {
  const found = edits(asJson('{"to": "c@d.example", "size": 9007199254740993}'));
  expect(found.input).toEqual({
    payload: { mail: read('{"to": "c@d.example", "size": 9007199254740993}') as Exact },
  });
  expect(found.missing).toEqual(['password']);
  expect(edits(asJson(payload)).problems).toEqual({
    password: 'The secret is not known here: type it anew.',
  });
});

test('what cannot be read is a fault, also where nothing else would be another', () => {
  expect(edits(asJson('{')).problems['']).toContain('This is no JSON');
  expect(Object.keys(edits(when({ runAt: 'soon' })).problems)).toEqual(['(option) runAt']);
});

test('a payload that is not shown is not sent', () => {
  expect(edits({ ...asJson('{}'), ...when({ priority: 'LOW' }) }, null).input).toEqual({ priority: 'LOW' });
});

test('a moment is shown to the second, by the clock of the reader', () => {
  const shown = localMoment('2026-07-31T12:34:56.789Z');
  expect(shown).toMatch(/^2026-0[78]-\d\dT\d\d:\d\d:56$/);
  expect(new Date(shown).toISOString()).toBe('2026-07-31T12:34:56.000Z');
  expect(localMoment(null)).toBe('');
});

test('a job is changed before its first attempt, and retried once it has failed for good or was cancelled', () => {
  expect(allows('edit', { status: 'WAITING', attempt: 0 })).toBe(true);
  expect(allows('edit', { status: 'QUEUED', attempt: 1 })).toBe(false);
  expect(allows('edit', { status: 'RETRYING', attempt: 0 })).toBe(false);
  expect(allows('retry', { status: 'CANCELLED', attempt: 0 })).toBe(true);
  expect(allows('retry', { status: 'COMPLETED', attempt: 1 })).toBe(false);
});
