import { expect, test } from 'vitest';
import { leftOf, outcome } from './BulkRun';

const run = (done: number, skipped: number, failed = 0) => ({ done, skipped, failed });

test('what was done or had moved is not left for a later run, what failed is', () => {
  expect(leftOf(10, [])).toBe(10);
  expect(leftOf(10, [run(1, 0), run(3, 2, 4)])).toBe(4);
  expect(leftOf(1, [run(1, 1)])).toBe(0);
});

test('the outcome names what was skipped and what failed only where something was', () => {
  expect(outcome('CANCEL', run(3, 0))).toBe('3 cancelled');
  expect(outcome('RETRY', run(0, 2, 1))).toBe(
    '0 retried, 2 skipped, which had moved meanwhile, 1 failed and left as they were',
  );
});
