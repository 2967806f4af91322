// How much the client adds to a page.

import { gzipSync } from 'node:zlib';
import { build, type Rollup } from 'vite';
import { expect, test } from 'vitest';

const BUDGET = 10_000;

test('a page that uses all of the client grows by 10 kB at most, without React and graphql-ws', async () => {
  const made = (await build({
    configFile: false,
    logLevel: 'silent',
    build: {
      write: false,
      target: 'es2022',
      lib: { entry: 'test/everything.ts', formats: ['es'] },
      rollupOptions: { external: ['react', 'graphql-ws'], output: { minify: true } },
    },
  })) as Rollup.RollupOutput[];
  const code = made[0]?.output.map((part) => ('code' in part ? part.code : '')).join('') ?? '';
  expect(code).toContain('createJobsClient');
  expect(code).toContain('useJobs');
  const { length } = gzipSync(code, { level: 9 });
  console.log(`${length} bytes`);
  expect(length).toBeLessThanOrEqual(BUDGET);
});
