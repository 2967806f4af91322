import { CombinedError } from '@urql/core';
import { expect, test } from 'vitest';
import { type Exact, read } from '../../api/exact';
import { createOnce, refusalOf } from './creation';
import { fieldsOf, InputTypes } from '../../parts/form/fields';

const ANSWER = { createJob: { deduplicated: false, job: { id: 'a' } } };
const LOST = new CombinedError({ networkError: new Error('lost') });
const refused = (code: string, extensions: object = {}) =>
  new CombinedError({ graphQLErrors: [{ message: 'No.', extensions: { code, ...extensions } }] });

/** A creation whose sendings end like this, one after the other; the keys that were sent. */
function sending(...ends: (Error | typeof ANSWER)[]) {
  const keys: Exact[] = [];
  const create = createOnce(async (input) => {
    keys.push(input.idempotencyKey ?? null);
    const end = ends.shift();
    if (end instanceof Error || end === undefined) throw end;
    return end as Record<string, Exact>;
  });
  return { keys, create };
}

test('a creation whose outcome is not known is repeated under its key, another one has its own', async () => {
  const again = { createJob: { deduplicated: true, job: { id: 'a' } } };
  const { keys, create } = sending(LOST, refused('QUEUE_UNAVAILABLE'), again, ANSWER, LOST, ANSWER);
  await expect(create({ n: 'one' })).rejects.toBe(LOST);
  await expect(create({ n: 'one' })).rejects.toThrow();
  expect(await create({ n: 'one' })).toEqual({ id: 'a', deduplicated: false });
  await create({ n: 'one' });
  await expect(create({ n: 'one' })).rejects.toBe(LOST);
  await create({ n: 'two' });
  expect(new Set(keys.slice(0, 3)).size).toBe(1);
  expect(new Set(keys).size).toBe(4);
});

test('a creation that was refused is another one when it is tried again', async () => {
  const { keys, create } = sending(refused('RATE_LIMITED'), ANSWER);
  await expect(create({})).rejects.toThrow();
  await create({});
  expect(keys[0]).not.toBe(keys[1]);
});

test('a key that the user gives is the one that is sent', async () => {
  const { keys, create } = sending({ createJob: { deduplicated: true, job: { id: 'a' } } });
  expect(await create({ idempotencyKey: 'mine' })).toEqual({ id: 'a', deduplicated: true });
  expect(keys).toEqual(['mine']);
});

const schema = { type: 'object', properties: { to: { type: 'array', items: { type: 'string' } } } };
const field = fieldsOf('my_type', read(JSON.stringify(schema)), new InputTypes(null));

test('faults of a payload stand at their fields, and those of options at theirs', () => {
  const fields = [
    { path: 'input.payload.myType.to.1', message: 'Bad.' },
    { path: 'input.payload.myType.to.1', message: 'Worse.' },
    { path: 'input.payload.myType.gone', message: 'Unknown.' },
    { path: 'input.payload.myType', message: 'Odd.' },
  ];
  expect(refusalOf(refused('INVALID_PAYLOAD', { fields }), 'my_type', field)).toEqual({
    fields: { 'to.1': 'Bad.\nWorse.', '': 'gone: Unknown.\nOdd.' },
    general: '',
  });
  expect(
    refusalOf(refused('INVALID_ARGUMENT', { argument: 'input.tags.2' }), 'my_type', field).fields,
  ).toEqual({
    '(option) tags': 'Line 3: No.',
  });
  const place = (argument: string) => refused('INVALID_ARGUMENT', { argument });
  for (const error of [place('input.key.value'), refused('KEY_TAKEN')])
    expect(refusalOf(error, 'my_type', field)).toEqual({
      fields: { '(option) key.value': 'No.' },
      general: '',
    });
  expect(refusalOf(refused('QUEUE_FULL'), 'my_type', field)).toEqual({ fields: {}, general: 'No.' });
});

test('where it is not known whether the job is there, that is said', () => {
  for (const error of [LOST, refused('QUEUE_UNAVAILABLE')])
    expect(refusalOf(error, 'my_type', field).general).toContain(
      'It is not known whether the job was created.',
    );
});
