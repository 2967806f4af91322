// What is wrong with a form: at the fields, and what no field is at fault for.

import { CombinedError } from '@urql/core';
import { type RefObject, useState } from 'react';
import type { Exact } from '../../api/exact';
import { type Problems, placeOf } from './drafts';
import { type Field, isRecord, payloadMember } from './fields';
import { focusFirst } from './Labelled';

/** What stands before the names of options among the problems, which are those of the payload's fields otherwise. */
export const OPTION = '(option) ';

/** What is wrong now, and how it is said: the first field that is at fault has the focus then. */
export function useProblems(form: RefObject<HTMLElement | null>): {
  problems: Problems;
  refusal: string;
  say: (found: Problems, general?: string) => void;
} {
  const [problems, setProblems] = useState<Problems>({});
  const [refusal, setRefusal] = useState('');

  function say(found: Problems, general = ''): void {
    setProblems(found);
    setRefusal(general);
    // The fields have to be marked before one of them can be told about.
    requestAnimationFrame(() => {
      const missing = focusFirst(form.current, Object.keys(found));
      const said = [general, ...missing.map((path) => `${path}: ${found[path]}`)].filter(Boolean);
      setRefusal(said.join('\n'));
    });
  }

  return { problems, refusal, say };
}

/** Codes after which it is not known whether what was asked for was done. */
const UNCERTAIN = new Set(['QUEUE_UNAVAILABLE', 'TIMEOUT', 'INTERNAL', 'SERVER_STOPPING']);

/** Whether it is not known, after this, whether what was asked for was done. */
export const isUncertain = (error: unknown): boolean =>
  !(error instanceof CombinedError) ||
  error.networkError !== undefined ||
  error.graphQLErrors.some(({ extensions }) => UNCERTAIN.has(String(extensions?.code)));

/** What a refusal says of which fields of a payload and of which options, and what it says of none. */
export function faultsOf(
  error: CombinedError,
  type: string,
  field: Field | null,
): { fields: Problems; general: string[] } {
  const fields: Problems = {};
  const general: string[] = [];
  for (const { message, extensions } of error.graphQLErrors) {
    const { code, fields: faults, argument } = (extensions ?? {}) as { [name: string]: Exact };
    if (code === 'INVALID_PAYLOAD' && Array.isArray(faults) && field) {
      for (const fault of faults) {
        if (!isRecord(fault)) continue;
        const { path, rest } = placeOf(field, payloadPath(String(fault.path), type));
        const said = rest.length > 0 ? `${rest.join('.')}: ${String(fault.message)}` : String(fault.message);
        fields[path] = fields[path] === undefined ? said : `${fields[path]}\n${said}`;
      }
    } else if (code === 'INVALID_ARGUMENT' && typeof argument === 'string' && argument.startsWith('input.')) {
      const [option = '', place] = argument.slice('input.'.length).split('.');
      const isLine = place !== undefined && /^\d+$/.test(place);
      const path = place === undefined || isLine ? option : `${option}.${place}`;
      fields[`${OPTION}${path}`] = isLine ? `Line ${Number(place) + 1}: ${message}` : message;
    } else if (code === 'IDEMPOTENCY_CONFLICT') fields[`${OPTION}idempotencyKey`] = message;
    else general.push(message);
  }
  return { fields, general };
}

function payloadPath(path: string, type: string): string[] {
  const parts = path.split('.');
  const below = parts.indexOf('payload') + 1;
  return parts.slice(parts[below] === payloadMember(type) ? below + 1 : below);
}

/** In one text field for all of a payload, its problems are said together, each with its place. */
export function inJson(found: Problems): Problems {
  const ofPayload: string[] = [];
  const others: Problems = {};
  for (const [path, problem] of Object.entries(found)) {
    if (path.startsWith(OPTION)) others[path] = problem;
    else ofPayload.push(path === '' ? problem : `${path}: ${problem}`);
  }
  return ofPayload.length > 0 ? { '': ofPayload.join('\n'), ...others } : others;
}
