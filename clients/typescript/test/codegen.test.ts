// The command `gql-jobs-codegen`, and what it makes of schemas.

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { buildSchema, introspectionFromSchema, parse, validate } from 'graphql';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { generateJobTypes } from '../src/codegen/generate.js';

const SCHEMA = '../../schema.graphql';
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'codegen-'));
});
afterAll(() => rm(folder, { recursive: true }));

const run = async (...given: string[]) => {
  const command = ['bin/gql-jobs-codegen.mjs', ...given];
  try {
    const { stdout } = await promisify(execFile)(process.execPath, command);
    return { code: 0, said: stdout };
  } catch (error) {
    const { code, stderr } = error as { code: number; stderr: string };
    return { code, said: stderr };
  }
};

test('the bundled job types come with their payloads, results and descriptions', async () => {
  const out = path.join(folder, 'jobs.ts');
  expect(await run(SCHEMA, '--out', out)).toEqual({ code: 0, said: '' });
  const made = await readFile(out, 'utf8');
  expect(made).toContain("email: { object: 'EmailJob'; payload: EmailPayloadInput; result: EmailResult };");
  expect(made).toContain('/** Sends one e-mail over SMTP. */');
  expect(made).toContain('email: { object: \'EmailJob\', result: "{ messageId }" },');
  expect(await run(SCHEMA, '--out', out, '--check')).toEqual({ code: 0, said: '' });
  await writeFile(out, `${made}// changed\n`);
  expect(await run(SCHEMA, '--out', out, '--check')).toMatchObject({ code: 1 });
});

test('the JSON of an introspection gives the same as the schema', async () => {
  const schema = buildSchema(await readFile(SCHEMA, 'utf8'));
  const json = path.join(folder, 'schema.json');
  await writeFile(json, JSON.stringify({ data: introspectionFromSchema(schema, { oneOf: true }) }));
  const [one, other] = [path.join(folder, 'one.ts'), path.join(folder, 'other.ts')];
  await run(json, '--out', one);
  await run(SCHEMA, '--out', other);
  expect(await readFile(one, 'utf8')).toBe(await readFile(other, 'utf8'));
});

test.each([
  [['nothing.graphql', '--out', 'jobs.ts'], 'no such file'],
  [['http://127.0.0.1:1', '--out', 'jobs.ts'], 'fetch failed'],
  [[SCHEMA], 'gql-jobs-codegen <source> --out <file>'],
  [['package.json', '--out', 'jobs.ts'], 'Invalid or incomplete introspection'],
])('%j is refused in a sentence', async (given, sentence) => {
  const { code, said } = await run(...given);
  expect(code).toBe(1);
  expect(said).toContain(sentence);
  expect(said).not.toContain('    at ');
});

const jobs = (members: string, types: string) => `
  scalar JSON
  scalar BigInt
  type Query { job: Job }
  interface Job { id: ID! }
  type UnknownJob implements Job { id: ID! }
  input JobPayloadInput @oneOf { ${members} }
  ${types}
`;

test('a type whose handler returns nothing has no result, and one whose result is any JSON has that', async () => {
  const made = await generateJobTypes(
    buildSchema(
      jobs(
        'note: NotePayloadInput any: JSON',
        `input NotePayloadInput { text: String! size: BigInt }
         type NoteJob implements Job { id: ID! payload: JSON! }
         type AnyJob implements Job { id: ID! result: JSON }`,
      ),
    ),
  );
  expect(made).toContain("note: { object: 'NoteJob'; payload: NotePayloadInput; result: null };");
  expect(made).toContain(
    "any: { object: 'AnyJob'; payload: unknown; result: NonNullable<AnyJobResultFragment['result']> };",
  );
  expect(made).toContain("note: { object: 'NoteJob', result: null },");
  expect(made).toContain('readonly size?: bigint | number | string | null | undefined;');
});

test('fields of one name that differ between the members of a union are told apart by the member', async () => {
  const schema = buildSchema(
    jobs(
      'draw: DrawPayloadInput',
      `input DrawPayloadInput { shape: String! }
       type DrawJob implements Job { id: ID! result: DrawResult }
       type DrawResult { shapes: [Shape!]! }
       union Shape = Circle | Note
       type Circle { size: Float! label: String! }
       type Note { size: Int label: String! }`,
    ),
  );
  const made = await generateJobTypes(schema);
  const selected =
    '{ shapes { __typename ... on Circle { size__Circle: size label } ... on Note { size__Note: size label } } }';
  expect(made).toContain(JSON.stringify(selected));
  expect(validate(schema, parse(`{ job { ... on DrawJob { result ${selected} } } }`))).toEqual([]);
  expect(made).toContain(
    "readonly __typename: 'Circle', readonly label: string, readonly size__Circle: number",
  );
  expect(made).toContain(
    "readonly __typename: 'Note', readonly label: string, readonly size__Note: number | null",
  );
});

test('a schema that is not one of gql-jobs is refused', async () => {
  await expect(generateJobTypes(buildSchema('type Query { hello: String }'))).rejects.toThrow(
    'This is not the schema of gql-jobs: it has no input JobPayloadInput.',
  );
});
