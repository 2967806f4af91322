import { expect, test } from 'vitest';
import { age, bytes, many, span } from './format';

test('a span of time is said in its two largest units, never rounded to one that does not exist', () => {
  const said = [
    0, 999, 1000, 9_949, 9_950, 59_499, 59_960, 60_000, 119_999, 3_599_999, 3_600_000, 90_000_000,
  ];
  expect(said.map(span)).toEqual([
    ...[
      '0 ms',
      '999 ms',
      '1.0 s',
      '9.9 s',
      '10 s',
      '59 s',
      '1 min',
      '1 min',
      '2 min',
      '1 h',
      '1 h',
      '1 d 1 h',
    ],
  ]);
  expect(span(-5)).toBe('0 ms');
});

test('sizes and numbers are said in words', () => {
  expect([999, 1500, 999_600, 15_000_000].map(bytes)).toEqual(['999 B', '1.5 kB', '1.0 MB', '15 MB']);
  expect([0, 1, 2].map((number) => many(number, 'job'))).toEqual(['no jobs', '1 job', '2 jobs']);
});

test('an age is said in whole seconds, and is never less than none', () => {
  expect([-5000, 999, 1000, 59_499, 61_000].map(age)).toEqual(['0 s', '0 s', '1 s', '59 s', '1 min 1 s']);
});
