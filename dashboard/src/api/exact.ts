// JSON as it is written: numbers beyond what JavaScript can count keep all of their digits, both ways.

import { CombinedError } from '@urql/core';
import { LosslessNumber, parse } from 'lossless-json';
import { post, saysAccessEnded } from './connection';
import { authorization, signOut } from './session';

/** A JSON value whose numbers are as written. */
export type Exact = null | boolean | string | LosslessNumber | Exact[] | { [name: string]: Exact };

/** Read JSON. Raises SyntaxError where it is none, or an object names a member twice with different values. */
export const read = (text: string): Exact => parse(text) as Exact;

/**
 * Write JSON, indented by so many spaces; in one line for none.
 *
 * The library's own writer takes every object with a member `isLosslessNumber` for a number, whoever has written it.
 */
export function write(value: Exact, indent = 2, before = ''): string {
  if (value instanceof LosslessNumber) return value.value;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const within = `${before}${' '.repeat(indent)}`;
  const colon = indent > 0 ? ': ' : ':';
  const parts = Array.isArray(value)
    ? value.map((item) => write(item, indent, within))
    : Object.entries(value).map(
        ([name, item]) => `${JSON.stringify(name)}${colon}${write(item, indent, within)}`,
      );
  const [start, end] = Array.isArray(value) ? '[]' : '{}';
  if (parts.length === 0 || indent === 0) return `${start}${parts.join(',')}${end}`;
  return `${start}\n${parts.map((part) => `${within}${part}`).join(',\n')}\n${before}${end}`;
}

/**
 * Send an operation whose variables and whose answer are exact.
 *
 * Raises CombinedError with the server's refusals, or if there is no connection.
 */
export async function exactly(
  query: string,
  variables: Record<string, Exact>,
  signal?: AbortSignal,
): Promise<Record<string, Exact>> {
  const asker = authorization().authorization;
  let text: string;
  try {
    text = await post(write({ query, variables }, 0), signal);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new CombinedError({ networkError: error as Error });
  }
  let answer: {
    data?: Record<string, Exact> | null;
    errors?: { message: string; extensions?: { code?: string } }[];
  };
  try {
    answer = read(text) as unknown as typeof answer;
  } catch {
    throw new CombinedError({ networkError: new Error('What answered is not the API of gql-jobs.') });
  }
  if (answer.errors?.length) {
    // Somebody else may have signed in since.
    if (saysAccessEnded(answer.errors) && asker === authorization().authorization)
      signOut(answer.errors[0]?.message);
    throw new CombinedError({ graphQLErrors: answer.errors });
  }
  return answer.data ?? {};
}
