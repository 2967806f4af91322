import { defineConfig } from 'vitest/config';

// Some tests start a program, which takes its time where the machine is busy.
export default defineConfig({ test: { include: ['test/**/*.test.ts'], testTimeout: 60_000 } });
