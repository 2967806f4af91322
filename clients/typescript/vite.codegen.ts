import type { Plugin } from 'vite';
import { defineConfig } from 'vite';
import { licences } from '../../frontend/built_files.mjs';

// The command is one file with GraphQL Code Generator in it, so that whoever installs the client installs none of that.
const withLicences: Plugin = {
  name: 'licences',
  async generateBundle() {
    const source = await licences('command gql-jobs-codegen', [...this.getModuleIds()]);
    this.emitFile({ type: 'asset', fileName: 'licenses.txt', source });
  },
};

export default defineConfig({
  plugins: [withLicences],
  ssr: { noExternal: true, external: ['graphql'] },
  build: {
    ssr: 'src/codegen/main.ts',
    outDir: 'dist/codegen',
    target: 'node20',
    rollupOptions: { output: { entryFileNames: 'main.mjs' } },
  },
});
