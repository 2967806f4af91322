// JSON with integers of any size, both ways: those that a number cannot hold are a bigint.
//
// Engines that know `JSON.rawJSON` (Chrome 114, Firefox 135, Safari 18.4, Node.js 22) do so exactly. In others a number that
// is too large is rounded when it is read, as by every JSON.parse, and a bigint that a number cannot hold is refused.

import { JobsError } from './errors.js';

const engine = JSON as typeof JSON & { rawJSON?: (text: string) => unknown };

/** For JSON.parse: integers that a number cannot hold become a bigint. */
export function reviver(_name: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source;
  if (typeof value !== 'number' || Number.isSafeInteger(value) || source === undefined) return value;
  return /^-?\d+$/.test(source) ? BigInt(source) : value;
}

/** For JSON.stringify: a bigint is written as the number that it is. */
export function replacer(_name: string, value: unknown): unknown {
  if (typeof value !== 'bigint') return value;
  if (engine.rawJSON) return engine.rawJSON(String(value));
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  throw new JobsError('UNREPRESENTABLE', `This JavaScript engine cannot write ${value} as JSON.`);
}

/** A value with its objects' members in one order, so that equal values give equal texts. */
export const canonical = (value: unknown): string =>
  JSON.stringify(value, (name, part) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([one], [other]) => (one < other ? -1 : 1)))
      : typeof part === 'bigint'
        ? `${part}n`
        : replacer(name, part),
  );
