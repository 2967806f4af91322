import { expect, test } from 'vitest';
import { type Exact, read, write } from './exact';

test.each([
  '9223372036854775807',
  '-0.10e+400',
  '"\\u2028\\ud800\\n"',
  '[]',
  '{}',
  '[null,true,false,"",[1.0,{}]]',
  '{"isLosslessNumber":true,"value":"1","toJSON":1,"toString":2}',
  '{"__proto__":{"a":1},"constructor":null}',
])('%s is written as it was read', (json) => {
  const value = read(json);
  expect(JSON.parse(write(value))).toEqual(JSON.parse(json));
  expect(write(value, 0)).toBe(json.replace('\\u2028', '\u2028'));
});

test('JSON is indented as usual', () => {
  const value = { a: [1, { b: null }], c: {}, d: [] };
  expect(write(read(JSON.stringify(value)))).toBe(JSON.stringify(value, null, 2));
  expect(write(read(JSON.stringify(value)), 4)).toBe(JSON.stringify(value, null, 4));
});

test('what is no JSON is refused, and so is a name with two values', () => {
  for (const text of ['{"a":1,"a":2}', '01', '{"a":}', '', 'NaN', "{'a':1}"])
    expect(() => read(text) as Exact).toThrow();
});
