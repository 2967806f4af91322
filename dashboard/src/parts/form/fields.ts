// What a form asks for: the fields of a payload, made of its JSON Schema. The schema names members and values as they are
// stored; the API takes them under the names of its input types, which are read beside it, so that both are known of
// each field.

import { LosslessNumber } from 'lossless-json';
import { type Exact, write } from '../../api/exact';
import type { InputTypesQuery } from '../../api/generated';

interface Common {
  /** What the schema says of it. */
  hint: string;
  /** A name that somebody has given it on purpose; empty where its own name is all there is. */
  title: string;
  nullable: boolean;
  /** What applies where it is left out; undefined if the schema names nothing. */
  fallback: Exact | undefined;
}

export interface Member {
  /** Its name in the schema, and in a stored payload. */
  name: string;
  /** Its name in the API's input type. */
  inputName: string;
  required: boolean;
  field: Field;
}

export interface Option {
  value: Exact;
  /** What the API takes for it: an enum is named there. */
  input: Exact;
}

export type Field = Common &
  (
    | { kind: 'text'; format: string; secret: boolean; long: boolean }
    | { kind: 'number'; integer: boolean }
    | { kind: 'boolean' }
    /** `fixed`: the schema has one value only, so there is nothing to choose. */
    | { kind: 'choice'; options: Option[]; fixed: boolean }
    | { kind: 'list'; items: Field }
    | { kind: 'map'; values: Field }
    | { kind: 'object'; members: Member[] }
    | { kind: 'union'; choices: Choice[] }
    | { kind: 'json' }
  );

export interface Choice {
  label: string;
  field: Field;
  /** Its member of the API's @oneOf input; null where the API takes the choice as it is. */
  member: string | null;
}

type Schema = { [name: string]: Exact };
type TypeRef = { kind: string; name: string | null; ofType?: TypeRef | null };

/** The input types of the API, by name. */
export class InputTypes {
  private readonly types = new Map<string, InputTypesQuery['__schema']['types'][number]>();

  constructor(introspected: InputTypesQuery | null) {
    for (const type of introspected?.__schema.types ?? []) if (type.name) this.types.set(type.name, type);
  }

  /** What a member of an input type is; null where that is not known, or where anything goes. */
  member(type: TypeRef | null, name: string): TypeRef | null {
    return (
      (this.membersOf(type)?.find((member) => member.name === name)?.type as TypeRef | undefined) ?? null
    );
  }

  membersOf(type: TypeRef | null) {
    const named = bare(type);
    return named?.kind === 'INPUT_OBJECT' ? (this.types.get(named.name ?? '')?.inputFields ?? null) : null;
  }

  valuesOf(type: TypeRef | null): string[] | null {
    const named = bare(type);
    if (named?.kind !== 'ENUM') return null;
    return this.types.get(named.name ?? '')?.enumValues?.map(({ name }) => name) ?? null;
  }
}

const bare = (type: TypeRef | null): TypeRef | null =>
  type?.kind === 'NON_NULL' ? bare(type.ofType ?? null) : type;
const itemOf = (type: TypeRef | null): TypeRef | null => {
  const list = bare(type);
  return list?.kind === 'LIST' ? (list.ofType ?? null) : null;
};

/** The member of `JobPayloadInput` for a job type: its name in camelCase, as pydantic spells it. */
export function payloadMember(type: string): string {
  if (/^[a-z]+[A-Za-z0-9]*$/.test(type) && !/\d(?=[a-z])/.test(type)) return type;
  return inCamelCase(type);
}

const inCamelCase = (name: string): string =>
  name
    .toLowerCase()
    .replace(/[a-z]+/g, (word) => word.charAt(0).toUpperCase() + word.slice(1))
    .replace(/([0-9A-Za-z])_(?=[0-9A-Z])/g, '$1')
    .replace(/^_*[A-Z]/, (first) => first.toLowerCase());

/** The fields of a job type's payload. `schema` is its JSON Schema, read with exact numbers. */
export function fieldsOf(type: string, schema: Exact, types: InputTypes): Field {
  const root = isRecord(schema) ? schema : {};
  const input = types.member({ kind: 'INPUT_OBJECT', name: 'JobPayloadInput' }, payloadMember(type));
  return new Maker(root, types).field(root, input, []);
}

class Maker {
  constructor(
    private readonly root: Schema,
    private readonly types: InputTypes,
  ) {}

  /** `above`: the definitions that this one is a part of; one that holds itself is asked for as JSON. */
  field(given: Exact | undefined, type: TypeRef | null, above: readonly string[]): Field {
    const seen = [...above];
    const schema = this.resolved(given, seen);
    const common: Common = {
      hint: withLimits(schema),
      title: '',
      nullable: false,
      fallback: schema.default,
    };
    const json: Field = { ...common, kind: 'json' };
    if (new Set(seen).size < seen.length) return { ...json, nullable: true };
    const several = listOf(schema.anyOf ?? schema.oneOf);
    if (several) return this.oneOf(several, schema, common, type, seen);
    const options = schema.const !== undefined ? [schema.const] : listOf(schema.enum);
    if (options) return this.choice(options, common, type, schema.const !== undefined);
    const kinds = listOf(schema.type);
    if (kinds) {
      const present = kinds.filter((kind) => kind !== 'null');
      const [only] = present;
      if (present.length !== 1 || only === undefined) return { ...json, nullable: kinds.includes('null') };
      return { ...this.field({ ...schema, type: only }, type, above), nullable: true };
    }
    switch (schema.type) {
      case 'string': {
        const format = typeof schema.format === 'string' ? schema.format : '';
        const limit = schema.maxLength instanceof LosslessNumber ? Number(schema.maxLength.value) : null;
        const long = format === '' && (limit === null || limit > 1000);
        return { ...common, kind: 'text', format, secret: format === 'password', long };
      }
      case 'integer':
      case 'number':
        return { ...common, kind: 'number', integer: schema.type === 'integer' };
      case 'boolean':
        return { ...common, kind: 'boolean' };
      case 'array':
        if (!isRecord(schema.items) || schema.prefixItems !== undefined) return json;
        return { ...common, kind: 'list', items: this.field(schema.items, itemOf(type), seen) };
      case 'object':
        if (isRecord(schema.properties)) return this.object(schema.properties, schema, common, type, seen);
        if (isRecord(schema.additionalProperties))
          return { ...common, kind: 'map', values: this.field(schema.additionalProperties, null, seen) };
        return json;
      case 'null':
        return { ...json, nullable: true };
      default:
        return { ...json, nullable: schema.type === undefined };
    }
  }

  private object(
    properties: Schema,
    schema: Schema,
    common: Common,
    type: TypeRef | null,
    seen: readonly string[],
  ): Field {
    const required = listOf(schema.required) ?? [];
    const inputs = this.types.membersOf(type);
    const names = Object.keys(properties);
    const members = names.map((name, place): Member => {
      const input =
        inputs?.find((one) => one.name === name) ??
        inputs?.find((one) => one.name === inCamelCase(name)) ??
        (inputs?.length === names.length ? inputs[place] : undefined);
      const field = this.field(properties[name], (input?.type as TypeRef | undefined) ?? null, seen);
      return {
        name,
        inputName: input?.name ?? name,
        required: required.includes(name),
        field: { ...field, title: ownTitle(properties[name], name) },
      };
    });
    return { ...common, kind: 'object', members };
  }

  private oneOf(
    several: Exact[],
    schema: Schema,
    common: Common,
    type: TypeRef | null,
    seen: readonly string[],
  ): Field {
    const present = several.filter((one) => !(isRecord(one) && one.type === 'null'));
    const nullable = present.length < several.length;
    const [only] = present;
    if (present.length === 1) {
      const field = this.field(only, type, seen);
      return { ...field, hint: common.hint || field.hint, fallback: common.fallback, nullable };
    }
    // A Decimal is described as a number or a text. It is given as text, so that no digit is lost.
    if (bare(type)?.name === 'Decimal')
      return { ...common, nullable, kind: 'text', format: 'decimal', secret: false, long: false };
    const parts = toldApartBy(schema) === '' ? present.map((one) => ({ one, told: '' })) : this.parts(schema);
    const members = this.types.membersOf(type);
    const choices = parts.map(({ one, told }, place): Choice => {
      // The schema and the API have the choices in one order.
      const member = members?.length === parts.length ? members[place] : undefined;
      const field = this.field(one, (member?.type as TypeRef | undefined) ?? null, seen);
      return { label: this.label(one, field, told, place), field, member: member?.name ?? null };
    });
    return { ...common, nullable, kind: 'union', choices };
  }

  /** The choices of a union that is told apart by values, those of unions in it among them. */
  private parts(schema: Schema): { one: Exact; told: string }[] {
    return (listOf(schema.oneOf) ?? []).flatMap((one) => {
      const inner = this.resolved(one, []);
      return toldApartBy(inner) === '' ? [{ one, told: toldApartBy(schema) }] : this.parts(inner);
    });
  }

  private label(given: Exact, field: Field, told: string, place: number): string {
    if (field.kind === 'object') {
      const member = field.members.find(({ name }) => name === told)?.field;
      if (member?.kind === 'choice')
        return member.options
          .map(({ value }) => (typeof value === 'string' ? value : write(value)))
          .join(', ');
    }
    const schema = this.resolved(given, []);
    if (typeof schema.title === 'string') return schema.title;
    if (typeof schema.format === 'string') return schema.format;
    const names: Record<string, string> = { list: 'a list', map: 'a table', json: `choice ${place + 1}` };
    if (field.kind === 'number') return field.integer ? 'a whole number' : 'a number';
    if (field.kind === 'boolean') return 'yes or no';
    return names[field.kind] ?? (field.kind === 'text' ? 'a text' : `choice ${place + 1}`);
  }

  private choice(values: Exact[], common: Common, type: TypeRef | null, fixed: boolean): Field {
    const names = this.types.valuesOf(type);
    const present = values.filter((value) => value !== null);
    const named = names !== null && names.length === present.length;
    const options = present.map(
      (value, place): Option => ({
        value,
        input: named && !names.includes(String(value)) ? (names[place] ?? value) : value,
      }),
    );
    return { ...common, nullable: present.length < values.length, kind: 'choice', options, fixed };
  }

  /** The schema that a reference names, with what is said beside the reference. */
  private resolved(given: Exact | undefined, seen: string[]): Schema {
    let schema = isRecord(given) ? given : {};
    for (let steps = 0; steps < 32; steps += 1) {
      const { $ref, allOf, ...beside } = schema;
      const all = listOf(allOf);
      if (typeof $ref === 'string') {
        const found = this.named($ref);
        if (!found) return beside;
        seen.push($ref);
        schema = { ...found, ...beside };
      } else if (all?.length === 1 && isRecord(all[0])) schema = { ...all[0], ...beside };
      else return schema;
    }
    return {};
  }

  private named(reference: string): Schema | null {
    let found: Exact | undefined = this.root;
    for (const part of reference.replace(/^#\/?/, '').split('/')) {
      if (!isRecord(found)) return null;
      found = found[part.replaceAll('~1', '/').replaceAll('~0', '~')];
    }
    return isRecord(found) ? found : null;
  }
}

/** Whether a JSON value is an object. */
export const isRecord = (value: Exact | undefined): value is { [name: string]: Exact } =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof LosslessNumber);

const listOf = (value: Exact | undefined): Exact[] | null => (Array.isArray(value) ? value : null);

/** The member whose value tells the choices of a union apart; empty where none does. */
const toldApartBy = (schema: Schema): string =>
  isRecord(schema.discriminator) ? String(schema.discriminator.propertyName) : '';

const ONE_LINE = /\s+/g;

/** The description, and the limits that it does not name. */
function withLimits(schema: Schema): string {
  const said = typeof schema.description === 'string' ? schema.description.replace(ONE_LINE, ' ').trim() : '';
  const limits = [
    range(schema.minimum, schema.maximum, ''),
    schema.exclusiveMinimum !== undefined && `above ${write(schema.exclusiveMinimum)}`,
    schema.exclusiveMaximum !== undefined && `below ${write(schema.exclusiveMaximum)}`,
    range(schema.minLength, schema.maxLength, ' characters'),
    range(schema.minItems, schema.maxItems, ' items'),
    schema.uniqueItems === true && 'each once',
  ].filter(Boolean);
  if (limits.length === 0) return said;
  const sentence = limits.join(', ');
  return `${said}${said && ' '}${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`;
}

function range(least: Exact | undefined, most: Exact | undefined, unit: string): string {
  if (least === undefined && most === undefined) return '';
  if (least === undefined) return `at most ${write(most ?? null)}${unit}`;
  if (most === undefined) return `at least ${write(least)}${unit}`;
  return `${write(least)} to ${write(most)}${unit}`;
}

/** The title, unless pydantic has made it of the name. */
function ownTitle(schema: Exact | undefined, name: string): string {
  const title = isRecord(schema) ? schema.title : undefined;
  const letters = (text: string) => text.toLowerCase().replace(/[\s_]/g, '');
  return typeof title === 'string' && letters(title) !== letters(name) ? title : '';
}
