import { expect, test } from 'vitest';
import { type Exact, read, write } from '../api/exact';
import { firstOpen, jsonRows } from './JsonView';
import { visible } from './Said';

const ALL = '{"a":{"b":[1,{"c":null}]},"e":[],"text":"x"}';
const names = (text: string, open: string[]) =>
  jsonRows(read(text), new Set(open)).map(({ path, name, open: isOpen }) => [path, name, isOpen]);

test('what is folded has one line, and what can be unfolded says so', () => {
  expect(names(ALL, [])).toEqual([['', null, false]]);
  expect(names(ALL, ['', '/a'])).toEqual([
    ['', null, true],
    ['/a', 'a', true],
    ['/a/b', 'b', false],
    ['/e', 'e', null],
    ['/text', 'text', null],
  ]);
});

test('a name is a name, whatever is in it', () => {
  const value = read('{"__proto__":1,"a/b":2,"a~b":3,"constructor":4,"":5}');
  const rows = jsonRows(value, new Set(['']));
  expect(rows.slice(1).map(({ path }) => path)).toEqual([
    '/__proto__',
    '/a~1b',
    '/a~0b',
    '/constructor',
    '/',
  ]);
  expect(rows.slice(1).map(({ value: one }) => String(one))).toEqual(['1', '2', '3', '4', '5']);
});

test('an object that looks like a number of the library is an object', () => {
  const rows = jsonRows(read('{"isLosslessNumber":true,"value":"1"}'), new Set(['']));
  expect(rows.map(({ name }) => name)).toEqual([null, 'isLosslessNumber', 'value']);
});

test('a number is written as it was sent', () => {
  const text = '[9223372036854775807,0.10,1e400,-0]';
  expect(
    jsonRows(read(text), new Set(['']))
      .map(({ value }) => String(value))
      .slice(1),
  ).toEqual(['9223372036854775807', '0.10', '1e400', '-0']);
  expect(write(read(text), 0)).toBe(text);
});

test('a long text is one line until it is unfolded, then it comes in parts that cut no character', () => {
  const text = `${'x'.repeat(999)}😀${'y'.repeat(2000)}`;
  const root = [text];
  expect(jsonRows(root, new Set([''])).map(({ open }) => open)).toEqual([true, false]);
  const parts = jsonRows(root, new Set(['', '/0'])).slice(2);
  expect(parts.map(({ part }) => part).join('')).toBe(text);
  expect(parts.map(({ part }) => part?.length)).toEqual([999, 1000, 1000, 2]);
  for (const { part } of parts) expect(part?.isWellFormed()).toBe(true);
});

test('a small value is open from the start, and of a large one the root alone', () => {
  expect([...firstOpen(read(ALL))]).toEqual(['', '/a', '/a/b', '/a/b/1']);
  const large = Array.from({ length: 1000 }, () => ({ a: { b: 'c' } }));
  expect([...firstOpen(large)]).toEqual(['']);
  expect(jsonRows(large, firstOpen(large))).toHaveLength(1001);
});

test('nothing of what is folded is looked at, so that a large value costs what is shown of it', () => {
  const folded = new Proxy(
    { first: 1 },
    {
      get: () => {
        throw new Error('it was looked at');
      },
    },
  );
  const large = { list: Array.from({ length: 40_000 }, () => folded) } as unknown as Exact;
  expect(jsonRows(large, new Set(['']))).toHaveLength(2);
});

test('characters that are not seen and change how others are seen are written out', () => {
  expect(visible('gpj.\u202eexe\u0000\u001b[31m\ttab\nline')).toBe(
    'gpj.\\u202eexe\\u0000\\u001b[31m\ttab\nline',
  );
  expect(visible('עברית ünïcode 😀')).toBe('עברית ünïcode 😀');
});
