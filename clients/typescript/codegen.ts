import type { CodegenConfig } from '@graphql-codegen/cli';
import { SCALARS } from './src/codegen/scalars.js';

// What the client itself asks of every server. Types of one's own jobs are made by `gql-jobs-codegen`.
const config: CodegenConfig = {
  schema: '../../schema.graphql',
  documents: 'src/operations.ts',
  generates: {
    'src/generated/operations.ts': {
      plugins: ['typescript-operations'],
      config: {
        strictScalars: true, // a scalar that is not listed here is an error, not `any`
        enumsAsTypes: true,
        immutableTypes: true,
        scalars: SCALARS,
      },
    },
    'src/generated/codes.ts': { plugins: ['typescript'], config: { onlyEnums: true, enumsAsTypes: true } },
  },
};

export default config;
