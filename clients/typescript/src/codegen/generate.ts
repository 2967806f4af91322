// TypeScript of the job types of a server, made by GraphQL Code Generator from documents that are written here.

import { codegen } from '@graphql-codegen/core';
import * as typescriptOperations from '@graphql-codegen/typescript-operations';
import {
  type GraphQLCompositeType,
  type GraphQLField,
  type GraphQLOutputType,
  type GraphQLSchema,
  getNamedType,
  isInputObjectType,
  isInterfaceType,
  isLeafType,
  isObjectType,
  isUnionType,
  parse,
  printSchema,
} from 'graphql';
import { SCALARS } from './scalars.js';

const PAYLOADS = 'JobPayloadInput';

interface GeneratedType {
  name: string;
  object: string;
  /** The type of its payload, as in an input; `unknown` for any JSON. */
  payload: string;
  /** What is selected of its result; null where there is none. */
  result: string | null;
  /** The name of its result's type, where that is an object. */
  resultName: string | null;
  description: string;
}

/**
 * The text of a module with the types of all jobs that this server can create.
 *
 * Throws an Error with a sentence if the schema is not one of gql-jobs.
 */
export async function generateJobTypes(schema: GraphQLSchema): Promise<string> {
  const types = jobTypesOf(schema);
  const selected = types.filter(({ result }) => result !== null);
  const fragments = selected.map(
    ({ object, result }) => `fragment ${object}Result on ${object} { result ${result} }`,
  );
  const made = await codegen({
    schema: parse(printSchema(schema)),
    filename: 'jobs.ts',
    documents: [
      {
        location: 'jobs',
        document: parse(`query Payloads($payload: ${PAYLOADS}!) { __typename } ${fragments.join(' ')}`),
      },
    ],
    pluginMap: { typescriptOperations },
    plugins: [{ typescriptOperations: {} }],
    config: {
      scalars: SCALARS,
      defaultScalarType: 'unknown',
      enumsAsTypes: true,
      skipTypename: true,
      immutableTypes: true,
      skipDocumentsValidation: true,
    },
    skipDocumentsValidation: true,
  });
  return [HEADER, withoutOperation(made), ...aliases(types), shapes(types), table(types), REGISTRATION].join(
    '\n',
  );
}

function jobTypesOf(schema: GraphQLSchema): GeneratedType[] {
  const payloads = schema.getType(PAYLOADS);
  if (!isInputObjectType(payloads))
    throw new Error(`This is not the schema of gql-jobs: it has no input ${PAYLOADS}.`);
  return Object.values(payloads.getFields()).map(({ name, type, description }) => {
    const object = `${name.charAt(0).toUpperCase()}${name.slice(1)}Job`;
    const job = schema.getType(object);
    if (!isObjectType(job)) throw new Error(`The schema has no type ${object} for the jobs of '${name}'.`);
    const { result } = job.getFields();
    return {
      name,
      object,
      payload: isInputObjectType(getNamedType(type)) ? getNamedType(type).name : 'unknown',
      result: result ? selectionOf(schema, result.type) : null,
      resultName: result && isObjectType(getNamedType(result.type)) ? getNamedType(result.type).name : null,
      description: description ?? '',
    };
  });
}

/** All there is to select of a type; nothing of a leaf. */
function selectionOf(schema: GraphQLSchema, type: GraphQLOutputType, above: readonly string[] = []): string {
  const named = getNamedType(type);
  if (isLeafType(named)) return '';
  const { name } = named;
  // Models that contain themselves are JSON in the API, so this is none of its schemas.
  if (above.includes(name)) throw new Error(`${name} contains itself, and cannot be selected whole.`);
  const within = [...above, name];
  if (isObjectType(named)) return `{ ${fieldsOf(schema, named, within, new Set())} }`;
  const members = schema.getPossibleTypes(named as Parameters<typeof schema.getPossibleTypes>[0]);
  const different = isUnionType(named) || isInterfaceType(named) ? conflicts(members) : new Set<string>();
  const parts = members.map(
    (member) => `... on ${member.name} { ${fieldsOf(schema, member, within, different)} }`,
  );
  return `{ __typename ${parts.join(' ')} }`;
}

/** Fields that are renamed, because another member of the union has one of that name and another type. */
function fieldsOf(
  schema: GraphQLSchema,
  type: GraphQLCompositeType & { getFields(): Record<string, GraphQLField<unknown, unknown>> },
  above: readonly string[],
  different: ReadonlySet<string>,
): string {
  const fields = Object.values(type.getFields()).filter(({ args }) => args.length === 0);
  return fields
    .map((field) => {
      const alias = different.has(field.name) ? `${field.name}__${type.name}: ` : '';
      return `${alias}${field.name} ${selectionOf(schema, field.type, above)}`.trim();
    })
    .join(' ');
}

function conflicts(
  members: readonly { getFields(): Record<string, GraphQLField<unknown, unknown>> }[],
): Set<string> {
  const known = new Map<string, string>();
  const different = new Set<string>();
  for (const field of members.flatMap((member) => Object.values(member.getFields()))) {
    const type = String(field.type);
    if ((known.get(field.name) ?? type) !== type) different.add(field.name);
    known.set(field.name, type);
  }
  return different;
}

const HEADER = `// Generated by gql-jobs-codegen from the schema of the server. Do not edit: run it again.
/* eslint-disable */
// biome-ignore-all lint: generated
import type { JobTypeTable } from '@gql-jobs/client';
`;

/** Without the types of the operation, which is there for its variable's sake alone. */
const withoutOperation = (made: string): string =>
  made
    .replace(/^export type PayloadsQuery(Variables)? = .*?;\n(?=\n|export|$)/gms, '')
    .replace(/^\/\*\* Internal type[^\n]*\n[^\n]*\n/gm, '')
    .replace(/\n{3,}/g, '\n\n');

const aliases = (types: readonly GeneratedType[]): string[] =>
  types.flatMap(({ object, resultName }) =>
    resultName ? [`export type ${resultName} = NonNullable<${object}ResultFragment['result']>;`] : [],
  );

function shapes(types: readonly GeneratedType[]): string {
  const lines = types.map(({ name, object, payload, result, resultName, description }) => {
    const outcome =
      resultName ?? (result === null ? 'null' : `NonNullable<${object}ResultFragment['result']>`);
    const comment = description && `  /** ${description.replaceAll('*/', '*\\/').replaceAll('\n', ' ')} */\n`;
    return `${comment}  ${name}: { object: '${object}'; payload: ${payload}; result: ${outcome} };`;
  });
  return `\n/** The job types of the server, by the name that \`create\` takes. */\nexport interface JobTypes {\n${lines.join('\n')}\n}\n`;
}

function table(types: readonly GeneratedType[]): string {
  const lines = types.map(
    ({ name, object, result }) => `    ${name}: { object: '${object}', result: ${JSON.stringify(result)} },`,
  );
  return `/** What \`createJobsClient\` needs of them. */\nexport const jobTypes: JobTypeTable<JobTypes> = {\n  types: {\n${lines.join('\n')}\n  },\n};\n`;
}

const REGISTRATION = `declare module '@gql-jobs/client' {
  interface Register {
    jobTypes: JobTypes;
  }
}
`;
