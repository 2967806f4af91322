import react from '@vitejs/plugin-react';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';
import { compress, licences } from '../frontend/built_files.mjs';

const builtFiles: Plugin = {
  name: 'built-files',
  async generateBundle() {
    const source = await licences('dashboard', [...this.getModuleIds()]);
    this.emitFile({ type: 'asset', fileName: 'licenses.txt', source });
  },
  writeBundle: ({ dir = '.' }) => compress(dir),
};

export default defineConfig({
  base: './',
  plugins: [react(), builtFiles],
  build: {
    outDir: '../gql_jobs/web/static/dashboard',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  experimental: {
    // The page is at `/` and its files are below `/dashboard/`. No address begins with a slash: a proxy may serve all of
    // it below a path of its own.
    renderBuiltUrl: (file, { hostType }) => (hostType === 'html' ? `dashboard/${file}` : { relative: true }),
  },
  test: { environment: 'happy-dom', include: ['src/**/*.test.{ts,tsx}'] },
});
