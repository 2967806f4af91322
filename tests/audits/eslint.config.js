// @graphql-eslint, strict: its recommendations and Relay's, and a description of everything.
import { createRequire } from 'node:module';

// An import would load a second copy of `graphql`, which the plug-in does not bear.
const plugin = createRequire(import.meta.url)('@graphql-eslint/eslint-plugin');
const preset = (name) => plugin.configs[`flat/${name}`].rules;
const rule = (name) => `@graphql-eslint/${name}`;

export default [
  {
    files: ['**/*.graphql'],
    languageOptions: {
      parser: plugin.parser,
      parserOptions: { graphQLConfig: { schema: process.env.SCHEMA } },
    },
    linterOptions: { reportUnusedDisableDirectives: 'off' },
    plugins: { '@graphql-eslint': { rules: plugin.rules } },
    rules: {
      ...preset('schema-recommended'),
      ...preset('schema-relay'),
      [rule('require-description')]: [
        'error',
        {
          types: true,
          rootField: true,
          FieldDefinition: true,
          InputValueDefinition: true,
          EnumValueDefinition: true,
          DirectiveDefinition: true,
        },
      ],
      [rule('strict-id-in-types')]: [
        'error',
        {
          acceptedIdNames: ['id'],
          acceptedIdTypes: ['ID'],
          exceptions: { suffixes: ['Payload', 'Error', 'Edge', 'Connection', 'Info', 'Result', 'Progress'] },
        },
      ],
      [rule('require-deprecation-reason')]: 'error',
      [rule('input-name')]: ['error', { caseSensitiveInputType: false, checkInputType: true }],
      [rule('no-scalar-result-type-on-mutation')]: 'error',
      [rule('require-nullable-fields-with-oneof')]: 'error',
      [rule('relay-edge-types')]: [
        'error',
        { withEdgeSuffix: true, shouldImplementNode: true, listTypeCanWrapOnlyEdgeType: false },
      ],
      // Lists of the root cannot be null: an empty one says that there is nothing.
      [rule('require-nullable-result-in-root')]: 'off',
      [rule('no-unreachable-types')]: 'error',
      [rule('no-hashtag-description')]: 'error',
    },
  },
];
