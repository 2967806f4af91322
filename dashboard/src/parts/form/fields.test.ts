import { describe, expect, test } from 'vitest';
import { type Exact, read, write } from '../../api/exact';
import type { InputTypesQuery } from '../../api/generated';
import { asInput, begun, draftOf, entered, placeOf, type Problems, redactedIn } from './drafts';
import { type Field, fieldsOf, InputTypes, payloadMember } from './fields';

const none = new InputTypes(null);
const exact = (value: unknown): Exact => read(JSON.stringify(value));
const fieldOf = (schema: unknown): Field => fieldsOf('t', exact(schema), none);
const memberOf = (schema: unknown): Field => {
  const field = fieldOf({ type: 'object', properties: { m: schema } });
  if (field.kind !== 'object' || !field.members[0]) throw new Error('no object');
  return field.members[0].field;
};

/** What comes of JSON that is shown as fields and sent again without a change. */
function through(schema: unknown, json: string): { json: string; problems: Problems } {
  const field = fieldOf(schema);
  const problems: Problems = {};
  const value = entered(field, draftOf(field, read(json)), '', problems);
  return { json: write(value ?? null, 0), problems };
}

test.each([
  ['email', 'email'],
  ['image_processing', 'imageProcessing'],
  ['a__b', 'a__B'],
  ['s3_upload', 's3Upload'],
  ['s3upload', 's3Upload'],
  ['trailing_', 'trailing_'],
  ['a_1_b', 'a1B'],
])('the type %s is the member %s, as pydantic spells it', (type, member) => {
  expect(payloadMember(type)).toBe(member);
});

describe('a schema becomes fields', () => {
  test.each([
    [
      { type: 'string', format: 'email', maxLength: 320 },
      { kind: 'text', format: 'email', long: false },
    ],
    [{ type: 'string' }, { kind: 'text', long: true, secret: false }],
    [
      { type: 'string', format: 'password', writeOnly: true },
      { kind: 'text', secret: true, long: false },
    ],
    [
      { type: 'integer', minimum: 1, maximum: 9 },
      { kind: 'number', integer: true, hint: '1 to 9.' },
    ],
    [
      { anyOf: [{ type: 'number' }, { type: 'null' }], default: null },
      { kind: 'number', nullable: true },
    ],
    [{ type: ['string', 'null'] }, { kind: 'text', nullable: true }],
    [{ enum: ['a', null] }, { kind: 'choice', nullable: true, fixed: false }],
    [{ const: 1 }, { kind: 'choice', fixed: true }],
    [
      { type: 'array', items: { type: 'string' }, minItems: 2 },
      { kind: 'list', hint: 'At least 2 items.' },
    ],
    [{ type: 'object', additionalProperties: { type: 'integer' } }, { kind: 'map' }],
    [{ oneOf: [{ type: 'integer' }, { type: 'string' }] }, { kind: 'union' }],
    [{}, { kind: 'json', nullable: true }],
    [true, { kind: 'json' }],
    [{ type: 'object', additionalProperties: true }, { kind: 'json' }],
    [{ type: 'array', prefixItems: [{ type: 'string' }] }, { kind: 'json' }],
    [{ $ref: '#/$defs/Gone' }, { kind: 'json' }],
    [
      { allOf: [{ type: 'string' }], description: 'Said here.' },
      { kind: 'text', hint: 'Said here.' },
    ],
    [{ not: {} }, { kind: 'json' }],
  ])('%j', (schema, expected) => {
    expect(memberOf(schema)).toMatchObject(expected);
  });

  test('a definition that holds itself is asked for as JSON where it comes again', () => {
    const field = fieldOf({
      $ref: '#/$defs/Leaf',
      $defs: { Leaf: { type: 'object', properties: { below: { $ref: '#/$defs/Leaf' } } } },
    });
    expect(field).toMatchObject({ kind: 'object', members: [{ name: 'below', field: { kind: 'json' } }] });
    const loop = { $defs: { A: { $ref: '#/$defs/B' }, B: { $ref: '#/$defs/A' } }, $ref: '#/$defs/A' };
    expect(fieldOf(loop).kind).toBe('json');
  });

  test('a title stands beside the name if somebody has chosen it', () => {
    expect(memberOf({ title: 'M', type: 'string' }).title).toBe('');
    expect(memberOf({ title: 'How many', type: 'string' }).title).toBe('How many');
  });
});

const SHAPES = {
  type: 'object',
  required: ['shape'],
  properties: {
    shape: {
      discriminator: { propertyName: 'kind' },
      oneOf: [
        {
          type: 'object',
          required: ['kind'],
          properties: { kind: { const: 'circle' }, r: { type: 'number' } },
        },
        {
          type: 'object',
          required: ['kind'],
          properties: { kind: { const: 'square' }, a: { type: 'integer' } },
        },
      ],
    },
  },
};

describe('what is shown as fields and not changed is sent as it was', () => {
  const loose = {
    type: 'object',
    properties: {
      text: { anyOf: [{ type: 'string' }, { type: 'null' }] },
      n: { type: 'integer' },
      list: { type: 'array', items: { anyOf: [{ type: 'integer' }, { type: 'null' }] } },
      map: { type: 'object', additionalProperties: { type: 'string' } },
      any: {},
      yes: { type: 'boolean' },
    },
  };
  test.each([
    '{}',
    '{"text":"","n":9223372036854775807}',
    '{"text":null,"any":null}',
    '{"text":"a\\r\\nb\\u0000","n":-0,"any":{"x":[1.10,1e400]}}',
    '{"list":[1,null,9007199254740993],"map":{"":"a","__proto__":"b","a.b":"c"}}',
    '{"n":"no number","list":{"no":"list"},"yes":"perhaps"}',
    '{"yes":false,"more":{"than":"the schema"},"toString":1}',
    '"no object at all"',
    '[1]',
  ])('%s', (json) => {
    expect(through(loose, json)).toEqual({ json, problems: {} });
  });

  test.each(['{"shape":{"kind":"square","a":3}}', '{"shape":{"kind":"circle","r":1.0}}', '{"shape":7}'])(
    '%s',
    (json) => {
      expect(through(SHAPES, json)).toEqual({ json, problems: {} });
    },
  );
});

test('the choice of a union that fits a value is shown, and what has one value only is filled in', () => {
  const field = fieldOf(SHAPES);
  expect(draftOf(field, exact({ shape: { kind: 'square', a: 1 } }))).toMatchObject({
    members: { shape: { choice: 1 } },
  });
  expect(entered(field, begun(field), '', {})).toEqual(exact({ shape: { kind: 'circle' } }));
});

test('what is needed and not there is said at its path, and the rest is left out', () => {
  const field = fieldOf({
    type: 'object',
    required: ['a', 'b', 'c'],
    properties: {
      a: { type: 'string' },
      b: { type: 'object', required: ['d'], properties: { d: { type: 'boolean' }, e: { type: 'integer' } } },
      c: { anyOf: [{ type: 'string' }, { type: 'null' }] },
      f: { type: 'string', default: 'x' },
    },
  });
  const problems: Problems = {};
  expect(entered(field, begun(field), '', problems)).toEqual(exact({ b: {}, c: null }));
  expect(problems).toEqual({ a: 'This is needed.', 'b.d': 'Choose yes or no.' });
});

test.each(['1e', '0x10', '01', '１', '1_000', 'NaN', '1,5', '--1'])('%s is no number', (text) => {
  const problems: Problems = {};
  entered(memberOf({ type: 'number' }), text, 'n', problems);
  expect(Object.keys(problems)).toEqual(['n']);
});

test('names that come twice in a table are said', () => {
  const problems: Problems = {};
  const field = memberOf({ type: 'object', additionalProperties: { type: 'string' } });
  const entry = (id: number) => ({ id, key: 'a', draft: 'x' });
  entered(field, { entries: [entry(1), entry(2)] }, 'map', problems);
  expect(problems).toEqual({ 'map.a': 'This name is there twice.' });
});

const named = (name: string) => ({ kind: 'NON_NULL', name: null, ofType: { kind: 'ENUM', name } });
const input = (name: string, type: object) => ({ name, description: null, type });
const INTROSPECTED = {
  __schema: {
    types: [
      {
        kind: 'INPUT_OBJECT',
        name: 'JobPayloadInput',
        inputFields: [input('myType', { kind: 'INPUT_OBJECT', name: 'MyTypeInput' })],
        enumValues: null,
      },
      {
        kind: 'INPUT_OBJECT',
        name: 'MyTypeInput',
        inputFields: [
          input('aColour', named('Colour')),
          input('colours', { kind: 'LIST', name: null, ofType: named('Colour') }),
          input('anything', { kind: 'SCALAR', name: 'JSON' }),
        ],
        enumValues: null,
      },
      { kind: 'ENUM', name: 'Colour', inputFields: null, enumValues: [{ name: 'RED' }, { name: 'BLUE' }] },
    ],
  },
} as unknown as InputTypesQuery;

test('members and enums are sent under the names of the input types, but for what is JSON there', () => {
  const colour = { enum: ['#f00', '#00f'] };
  const schema = {
    type: 'object',
    properties: {
      a_colour: colour,
      colours: { type: 'array', items: colour },
      anything: { type: 'object', additionalProperties: colour },
    },
  };
  const field = fieldsOf('my_type', exact(schema), new InputTypes(INTROSPECTED));
  const stored = { a_colour: '#00f', colours: ['#f00', '#00f'], anything: { x: '#f00' } };
  expect(asInput(field, exact(stored))).toEqual(
    exact({ aColour: 'BLUE', colours: ['RED', 'BLUE'], anything: { x: '#f00' } }),
  );
  expect(placeOf(field, ['aColour'])).toEqual({ path: 'a_colour', rest: [] });
  expect(placeOf(field, ['colours', '1', 'x'])).toEqual({ path: 'colours.1', rest: ['x'] });
  expect(placeOf(field, ['gone', 'x'])).toEqual({ path: '', rest: ['gone', 'x'] });
});

test('a choice is sent under the member of the API for it, also from a union within a union', () => {
  const choice = (kind: string) => ({
    type: 'object',
    required: ['kind'],
    properties: { kind: { const: kind }, colour: { enum: ['#f00', '#00f'] } },
  });
  const toldApart = (...oneOf: object[]) => ({ discriminator: { propertyName: 'kind' }, oneOf });
  const schema = {
    type: 'object',
    properties: { shape: toldApart(toldApart(choice('one'), choice('two')), choice('three')) },
  };
  const choices = ['one', 'two', 'three'];
  const inputs = {
    ShapesInput: [input('shape', { kind: 'INPUT_OBJECT', name: 'ShapeInput' })],
    ShapeInput: choices.map((name) => input(`${name}Of`, { kind: 'INPUT_OBJECT', name: 'ChoiceInput' })),
    ChoiceInput: [input('kind', { kind: 'SCALAR', name: 'String' }), input('colour', named('Colour'))],
    JobPayloadInput: [input('shapes', { kind: 'INPUT_OBJECT', name: 'ShapesInput' })],
  };
  const types = Object.entries(inputs).map(([name, inputFields]) => ({
    kind: 'INPUT_OBJECT',
    name,
    inputFields,
    enumValues: null,
  }));
  const colours = INTROSPECTED.__schema.types.filter(({ name }) => name === 'Colour');
  const introspected = { __schema: { types: [...types, ...colours] } } as unknown as InputTypesQuery;
  const field = fieldsOf('shapes', exact(schema), new InputTypes(introspected));
  for (const kind of choices) {
    const stored = exact({ shape: { kind, colour: '#00f' } });
    expect(asInput(field, stored)).toEqual(exact({ shape: { [`${kind}Of`]: { kind, colour: 'BLUE' } } }));
    expect(asInput(field, exact({ shape: { kind, more: 1 } }))).toEqual(
      exact({ shape: { [`${kind}Of`]: { kind, more: 1 } } }),
    );
  }
  expect(placeOf(field, ['shape', 'twoOf', 'colour'])).toEqual({ path: 'shape.colour', rest: [] });
});

test('secrets that were taken out are found, and their fields are empty', () => {
  const schema = {
    type: 'object',
    required: ['key', 'keys'],
    properties: {
      key: { type: 'string', format: 'password' },
      keys: { type: 'array', items: { type: 'string', format: 'password' } },
    },
  };
  const payload = exact({ key: '[redacted]', keys: ['[redacted]', 'x'] });
  expect(redactedIn(payload)).toEqual(['key', 'keys.0']);
  const problems: Problems = {};
  entered(fieldOf(schema), draftOf(fieldOf(schema), payload), '', problems);
  expect(Object.keys(problems)).toEqual(['key', 'keys.0']);
});
