import { expect, test } from 'vitest';
import { type Exact, read, write } from '../../api/exact';
import { asCurl, asPython, asTypeScript, quoted } from './programs';

const HOSTILE =
  '\'"`$(id) $\u007bx}\\ !! \u001b[31m\u0085\u202e\u2028\u{1f600}\ud800 {{}} #{x} %0a </script>';
const input = read(JSON.stringify({ payload: { email: { [HOSTILE]: HOSTILE } } }));
const all = (value: Exact, authenticated = false) =>
  [asCurl, asPython, asTypeScript].map((make) =>
    make("http://[::1]:8000/it's/graphql", value, authenticated),
  );

test('one word of a shell stays one word', () => {
  expect(quoted("it's; $(id)")).toBe("'it'\\''s; $(id)'");
});

test('nothing in a program is invisible, but the ends of its lines', () => {
  for (const text of all(input)) expect(text).toMatch(/^(?:\n|[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}])*$/u);
});

test('the body that a command sends is the input, once a shell has read it', () => {
  const command = asCurl('http://a/graphql', input, false);
  const word = command.slice(command.indexOf('--data-binary ') + '--data-binary '.length);
  const body = word.slice(1, -1).replaceAll("'\\''", "'");
  expect(word.startsWith("'{")).toBe(true);
  expect((read(body) as { variables: Exact }).variables).toEqual({ input });
});

test('a key or token is named, where one is needed, and never copied', () => {
  for (const text of all(input, true)) expect(text).toContain('GQL_JOBS_TOKEN');
  for (const text of all(input, false)) expect(text).not.toContain('TOKEN');
});

test('TypeScript sends numbers that it would round as they are written', () => {
  const given = read('{"n":9007199254740993,"m":1.10}');
  expect(asTypeScript('http://a', given, false)).toContain(JSON.stringify(write(given, 0)));
  expect(asTypeScript('http://a', read('{"n":1.5}'), false)).toContain('"n": 1.5');
  expect(asTypeScript('http://a', read('{"__proto__":1}'), false)).toContain('\\"__proto__\\"');
});

test('Python has its own names for what is no number, text or table', () => {
  expect(asPython('http://a', read('{"a":[true,false,null,1e3,{}]}'), false)).toContain(
    '    "a": [\n        True,\n        False,\n        None,\n        1e3,\n        {},\n    ],',
  );
});
