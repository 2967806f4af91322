import { expect, test } from 'vitest';
import { backOff, linked, orAborted, wait } from '../src/pause.js';

test('pauses grow with each failure up to a bound, and differ from client to client', () => {
  for (const [failures, longest] of [
    [0, 1000],
    [1, 2000],
    [3, 8000],
    [4, 15_000],
    [1000, 15_000],
  ] as const) {
    const pauses = Array.from({ length: 200 }, () => backOff(failures));
    expect(Math.max(...pauses)).toBeLessThanOrEqual(longest);
    expect(Math.min(...pauses)).toBeGreaterThanOrEqual(longest / 2);
    expect(new Set(pauses).size).toBeGreaterThan(100);
  }
});

test('whoever waits ends with the reason of a signal, one that was aborted before too', async () => {
  const reason = new Error('enough');
  await expect(wait(1e6, AbortSignal.abort(reason))).rejects.toBe(reason);
  const controller = new AbortController();
  const waiting = wait(1e6, controller.signal);
  controller.abort(reason);
  await expect(waiting).rejects.toBe(reason);
  await expect(orAborted(Promise.resolve(1), new AbortController().signal)).resolves.toBe(1);
});

test('what is linked to a signal that lasts leaves nothing on it', () => {
  const lasting = new AbortController();
  const { signal, release } = linked(lasting.signal, undefined);
  release();
  lasting.abort();
  expect(signal.aborted).toBe(false);
});
