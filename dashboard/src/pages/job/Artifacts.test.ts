import { expect, test } from 'vitest';
import { linesOf } from './Artifacts';

test('the lines of a table heed its quotes', () => {
  expect(linesOf('a,b\r\n"1, 2","say ""so"""\n"two\nlines",\n', false)).toEqual([
    ['a', 'b'],
    ['1, 2', 'say "so"'],
    ['two\nlines', ''],
  ]);
});

test('what separates the fields is what the first line has most of, and no other sign does', () => {
  expect(linesOf('a,b,c\n1;2,3\t4,5\n', false)[1]).toEqual(['1;2', '3\t4', '5']);
  expect(linesOf('a;b;c\n1,5;2,5;3\n', false)[1]).toEqual(['1,5', '2,5', '3']);
  expect(linesOf('a\tb\n1,5\t2;5\n', false)[1]).toEqual(['1,5', '2;5']);
  expect(linesOf('"x;y;z",b\n1;2,3\n', false)).toEqual([
    ['x;y;z', 'b'],
    ['1;2', '3'],
  ]);
});

test('a line that may go on behind the end of what was read is left out', () => {
  expect(linesOf('a,b\n1,2', true)).toEqual([['a', 'b']]);
  expect(linesOf('a,b\n1,2', false)).toEqual([
    ['a', 'b'],
    ['1', '2'],
  ]);
  expect(linesOf('a,b\n1,"open', true)).toEqual([['a', 'b']]);
  expect(linesOf('', false)).toEqual([]);
});
