// What a user has entered so far, and the payload that it makes. A draft has the texts as they were typed; numbers stay
// text until they are sent, so that none of their digits is lost.

import { LosslessNumber } from 'lossless-json';
import { type Exact, read, write } from '../../api/exact';
import { type Field, isRecord, type Member } from './fields';

/** The entry for one field: nothing (it is left out), null, a text, or the entries of its parts. */
export type Draft = undefined | null | string | Raw | Items | Entries | Members | Chosen;

/** JSON in the place of a field that cannot show it: a value of another kind than the schema says. */
export interface Raw {
  raw: string;
}
export interface Items {
  items: { id: number; draft: Draft }[];
}
export interface Entries {
  entries: { id: number; key: string; draft: Draft }[];
}
export interface Members {
  members: Record<string, Draft>;
  /** What a payload has beyond the schema, as a JSON object. */
  others?: string;
}
export interface Chosen {
  choice: number;
  draft: Draft;
}

/** How the API shows a secret. */
export const REDACTED = '[redacted]';

let last = 0;
/** A new identity for an item, which it keeps while others come and go. */
export const newId = (): number => ++last;

const isPart = (draft: Draft): draft is Exclude<Draft, undefined | null | string> =>
  typeof draft === 'object' && draft !== null;
export const isRaw = (draft: Draft): draft is Raw => isPart(draft) && 'raw' in draft;
export const itemsOf = (draft: Draft) => (isPart(draft) && 'items' in draft ? draft.items : []);
export const entriesOf = (draft: Draft) => (isPart(draft) && 'entries' in draft ? draft.entries : []);
export const membersOf = (draft: Draft): Members =>
  isPart(draft) && 'members' in draft ? draft : { members: {} };
export const chosenOf = (draft: Draft): Chosen =>
  isPart(draft) && 'choice' in draft ? draft : { choice: 0, draft: undefined };

const own = (record: { [name: string]: Exact }, name: string): Exact | undefined =>
  Object.hasOwn(record, name) ? record[name] : undefined;

/** The draft with which a field begins that has to be given. */
export function begun(field: Field): Draft {
  if (field.fallback !== undefined && field.fallback !== null) return draftOf(field, field.fallback);
  switch (field.kind) {
    case 'object':
      return {
        members: Object.fromEntries(
          field.members
            .filter(({ required, field: below }) => required && !below.nullable)
            .map(({ name, field: below }) => [name, begun(below)]),
        ),
      };
    case 'list':
      return { items: [] };
    case 'map':
      return { entries: [] };
    case 'union':
      return { choice: 0, draft: field.choices[0] && begun(field.choices[0].field) };
    case 'choice':
      return field.options.length === 1 ? write(field.options[0]?.value ?? null, 0) : undefined;
    default:
      return undefined;
  }
}

/** The draft that shows a value, whatever it is. A field whose secret was taken out is empty, to be typed anew. */
export function draftOf(field: Field, value: Exact | undefined): Draft {
  if (value === undefined || (value === REDACTED && field.kind !== 'json')) return undefined;
  if (value === null && field.kind !== 'json') return null;
  if (!fits(field, value)) return { raw: write(value) };
  switch (field.kind) {
    case 'text':
      return value instanceof LosslessNumber ? value.value : String(value);
    case 'number':
      return value instanceof LosslessNumber ? value.value : String(value);
    case 'boolean':
      return String(value);
    case 'choice':
      return write(value, 0);
    case 'list':
      return {
        items: (value as Exact[]).map((item) => ({ id: newId(), draft: draftOf(field.items, item) })),
      };
    case 'map':
      return {
        entries: Object.entries(value as Record<string, Exact>).map(([key, item]) => ({
          id: newId(),
          key,
          draft: draftOf(field.values, item),
        })),
      };
    case 'object': {
      const given = value as { [name: string]: Exact };
      const known = new Set(field.members.map(({ name }) => name));
      const others = Object.entries(given).filter(([name]) => !known.has(name));
      const members = Object.fromEntries(
        field.members.map(({ name, field: below }) => [name, draftOf(below, own(given, name))]),
      );
      return others.length > 0 ? { members, others: write(Object.fromEntries(others)) } : { members };
    }
    case 'union': {
      const choice = choiceFor(field.choices, value);
      const below = field.choices[choice];
      return below ? { choice, draft: draftOf(below.field, value) } : { raw: write(value) };
    }
    case 'json':
      return write(value);
  }
}

function choiceFor(choices: { field: Field }[], value: Exact): number {
  const exact = choices.findIndex(({ field }) => fits(field, value, true));
  if (exact >= 0) return exact;
  const told = choices.findIndex(({ field }) => saysSo(field, value));
  return told >= 0 ? told : choices.findIndex(({ field }) => fits(field, value));
}

/** Whether a value says by members that have few values that it is of this choice, whatever else it has. */
function saysSo(field: Field, value: Exact): boolean {
  if (field.kind !== 'object' || !isRecord(value)) return false;
  const said = field.members.filter(
    (member) => member.field.kind === 'choice' && Object.hasOwn(value, member.name),
  );
  return said.length > 0 && said.every((member) => fits(member.field, own(value, member.name) ?? null));
}

/** Whether a field can show a value; `deep`: and all of its parts can, with nothing beyond the schema. */
function fits(field: Field, value: Exact, deep = false): boolean {
  switch (field.kind) {
    case 'text':
      return typeof value === 'string' || (field.format === 'decimal' && value instanceof LosslessNumber);
    case 'number':
      return value instanceof LosslessNumber && (!deep || !field.integer || /^-?\d+$/.test(value.value));
    case 'boolean':
      return typeof value === 'boolean';
    case 'choice':
      return field.options.some((option) => write(option.value, 0) === write(value, 0));
    case 'list':
      return (
        Array.isArray(value) &&
        (!deep ||
          value.every((item) => (item === null ? field.items.nullable : fits(field.items, item, true))))
      );
    case 'map':
      return isRecord(value);
    case 'object': {
      if (!isRecord(value)) return false;
      const known = new Map(field.members.map((member) => [member.name, member]));
      if (!deep) return true;
      return (
        field.members.every(({ name, required }) => !required || Object.hasOwn(value, name)) &&
        Object.entries(value).every(([name, item]) => memberFits(known.get(name), item))
      );
    }
    case 'union':
      return choiceFor(field.choices, value) >= 0;
    case 'json':
      return true;
  }
}

const memberFits = (member: Member | undefined, value: Exact): boolean =>
  member !== undefined && (value === null ? member.field.nullable : fits(member.field, value, true));

/** What is wrong with a draft or a payload, by the path of the field: its names and numbers with dots between. */
export type Problems = Record<string, string>;

/** The value that a draft makes; undefined where it is left out. What cannot be read is noted among the problems. */
export function entered(field: Field, draft: Draft, path: string, problems: Problems): Exact | undefined {
  if (draft === undefined || draft === null) return draft;
  if (isRaw(draft)) return jsonOf(draft.raw, path, problems);
  switch (field.kind) {
    case 'text':
      return textOf(draft);
    case 'number': {
      const text = textOf(draft).trim();
      if (!/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text)) {
        problems[path] = field.integer
          ? 'Write a whole number, in digits.'
          : 'Write a number, in digits and with a dot.';
        return null;
      }
      return new LosslessNumber(text);
    }
    case 'boolean':
      return draft === 'true';
    case 'choice':
    case 'json':
      return jsonOf(textOf(draft), path, problems);
    case 'list':
      return itemsOf(draft).map(
        ({ draft: item }, place) => required(field.items, item, below(path, place), problems) ?? null,
      );
    case 'map': {
      const entries: [string, Exact][] = [];
      for (const { key, draft: item } of entriesOf(draft)) {
        const at = below(path, key);
        if (entries.some(([known]) => known === key)) problems[at] = 'This name is there twice.';
        entries.push([key, required(field.values, item, at, problems) ?? null]);
      }
      return Object.fromEntries(entries);
    }
    case 'object': {
      const { members, others } = membersOf(draft);
      const entries: [string, Exact][] = [];
      for (const { name, required: must, field: inner } of field.members) {
        const at = below(path, name);
        const value = (must ? required : entered)(inner, members[name], at, problems);
        if (value !== undefined) entries.push([name, value]);
      }
      if (others !== undefined) {
        const more = jsonOf(others, below(path, OTHERS), problems);
        if (isRecord(more)) entries.push(...Object.entries(more));
        else problems[below(path, OTHERS)] ??= 'Write a JSON object.';
      }
      return Object.fromEntries(entries);
    }
    case 'union': {
      const { choice, draft: inner } = chosenOf(draft);
      const chosen = field.choices[choice];
      return chosen && required(chosen.field, inner, path, problems);
    }
  }
}

/** The last part of the path of what a payload has beyond its schema. */
export const OTHERS = '(others)';

/** The path of a part of the field at this path. */
export const below = (path: string, part: string | number): string =>
  path === '' ? `${part}` : `${path}.${part}`;

const textOf = (draft: Draft): string => (typeof draft === 'string' ? draft : '');

function required(field: Field, draft: Draft, path: string, problems: Problems): Exact | undefined {
  if (draft !== undefined) return entered(field, draft, path, problems);
  if (field.nullable) return null;
  if (field.kind === 'boolean') problems[path] = 'Choose yes or no.';
  else if (field.kind === 'choice' || field.kind === 'union') problems[path] = 'Choose one.';
  else problems[path] = 'This is needed.';
  return undefined;
}

function jsonOf(text: string, path: string, problems: Problems): Exact {
  try {
    return read(text);
  } catch (error) {
    problems[path] = `This is no JSON: ${(error as Error).message}.`;
    return null;
  }
}

/** A payload under the names that the API takes: its input types name members and enum values in their own way. */
export function asInput(field: Field, value: Exact): Exact {
  if (value === null) return value;
  switch (field.kind) {
    case 'choice':
      return field.options.find((option) => write(option.value, 0) === write(value, 0))?.input ?? value;
    case 'list':
      return Array.isArray(value) ? value.map((item) => asInput(field.items, item)) : value;
    case 'object': {
      if (!isRecord(value)) return value;
      const known = new Map(field.members.map((member) => [member.name, member]));
      return Object.fromEntries(
        Object.entries(value).map(([name, item]): [string, Exact] => {
          const member = known.get(name);
          return member ? [member.inputName, asInput(member.field, item)] : [name, item];
        }),
      );
    }
    case 'union': {
      const choice = field.choices[choiceFor(field.choices, value)];
      if (!choice) return value;
      const input = asInput(choice.field, value);
      return choice.member === null ? input : { [choice.member]: input };
    }
    default:
      return value;
  }
}

/** The path of a field that the API names, in the form: as far down as the form has fields; the rest is returned too. */
export function placeOf(field: Field, parts: readonly string[]): { path: string; rest: string[] } {
  let path = '';
  let at: Field | undefined = field;
  const rest = [...parts];
  while (rest.length > 0 && at) {
    const part = rest[0] as string;
    let next: Field | undefined;
    let name = part;
    if (at.kind === 'object') {
      const member: Member | undefined =
        at.members.find(({ inputName }) => inputName === part) ?? at.members.find((one) => one.name === part);
      next = member?.field;
      name = member?.name ?? part;
    } else if (at.kind === 'list' && /^\d+$/.test(part)) next = at.items;
    else if (at.kind === 'map') next = at.values;
    else if (at.kind === 'union') {
      const chosen: Field | undefined = at.choices.find(({ member }) => member === part)?.field;
      if (chosen) {
        at = chosen;
        rest.shift();
        continue;
      }
      // Where the API takes a choice as it is, it names what is below it.
      const inner: Field | undefined = at.choices.find(
        (choice) => choice.field.kind === 'object' && choice.field.members.some((one) => one.name === part),
      )?.field;
      if (inner) {
        at = inner;
        continue;
      }
    }
    if (!next) break;
    path = below(path, name);
    at = next;
    rest.shift();
  }
  return { path, rest };
}

/** The paths at which a value has a secret that was taken out. */
export function redactedIn(value: Exact, path = ''): string[] {
  if (value === REDACTED) return [path];
  if (Array.isArray(value)) return value.flatMap((item, place) => redactedIn(item, below(path, place)));
  if (isRecord(value))
    return Object.entries(value).flatMap(([name, item]) => redactedIn(item, below(path, name)));
  return [];
}
