// The command `gql-jobs-codegen`.

import { readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { buildClientSchema, buildSchema, type GraphQLSchema, getIntrospectionQuery } from 'graphql';
import { generateJobTypes } from './generate.js';

const USAGE = `Writes the types of your job types for @gql-jobs/client.

  gql-jobs-codegen <source> --out <file> [--check]

  <source>   where the API is, as http://127.0.0.1:8000, or a file: the schema that
             \`gql-jobs schema\` prints, or the JSON of an introspection
  --out      the module to write, as src/jobs.ts
  --check    write nothing; exit with 1 if the file is not what would be written

Where the API asks who calls, the environment's GQL_JOBS_TOKEN is the key or token.`;

class Mistake extends Error {}

async function main(given: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: given,
    allowPositionals: true,
    options: { out: { type: 'string' }, check: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help) return console.log(USAGE);
  const [source, ...more] = positionals;
  if (source === undefined || more.length > 0 || !values.out) throw new Mistake(USAGE);
  const made = await generateJobTypes(await schemaOf(source));
  if (!values.check) return writeFile(values.out, made);
  if ((await readFile(values.out, 'utf8').catch(() => '')) !== made)
    throw new Mistake(`${values.out} is not up to date: gql-jobs-codegen ${source} --out ${values.out}`);
}

async function schemaOf(source: string): Promise<GraphQLSchema> {
  if (/^https?:/.test(source)) return buildClientSchema(await introspection(source));
  const text = await readFile(source, 'utf8');
  if (!text.trimStart().startsWith('{')) return buildSchema(text);
  const read = JSON.parse(text);
  return buildClientSchema(read.data ?? read);
}

async function introspection(source: string): Promise<Parameters<typeof buildClientSchema>[0]> {
  const address = new URL(source);
  if (address.pathname === '/') address.pathname = '/graphql';
  const token = process.env.GQL_JOBS_TOKEN;
  const response = await fetch(address, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...(token && { Authorization: `Bearer ${token}` }) },
    body: JSON.stringify({ query: getIntrospectionQuery({ oneOf: true, inputValueDeprecation: true }) }),
    signal: AbortSignal.timeout(30_000),
  });
  const answer = await response.json().catch(() => {
    throw new Mistake(`What answers at ${address.href} is not the API of gql-jobs.`);
  });
  if (answer.errors?.length) throw new Mistake(answer.errors[0].message);
  return answer.data;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const { message, cause } = error as Error & { cause?: Error };
  console.error(cause ? `${message}: ${cause.message}` : message);
  process.exitCode = 1;
}
