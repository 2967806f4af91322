import type { CodegenConfig } from '@graphql-codegen/cli';

const scalar = (name: string) => ({ input: `../scalars#${name}`, output: `../scalars#${name}` });

const config: CodegenConfig = {
  schema: '../../schema.graphql',
  documents: 'watch.ts',
  generates: {
    'generated/': {
      preset: 'client',
      presetConfig: { fragmentMasking: false },
      config: {
        strictScalars: true, // a scalar that is not listed here is an error, not `any`
        useTypeImports: true,
        enumsAsTypes: true,
        scalars: {
          ID: scalar('Id'),
          DateTime: scalar('DateTime'),
          Date: scalar('CalendarDate'),
          JSON: scalar('Json'),
          // Of types of one's own.
          BigInt: scalar('BigIntText'),
          Duration: scalar('Duration'),
        },
      },
    },
  },
};

export default config;
