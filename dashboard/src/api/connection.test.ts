import { expect, test } from 'vitest';
import { caughtUp, sayStoreIsBack } from './connection';

test('a server that begins without NATS for a moment ends one loss, and what was said of that stays', () => {
  caughtUp.set({ awayMilliseconds: 2000, at: 10_000, sentences: ['Jobs: 1 new; 1 job in all.'] });
  sayStoreIsBack(10_050, 10_165);
  expect(caughtUp.value).toEqual({
    awayMilliseconds: 2165,
    at: 10_165,
    sentences: ['The server reaches NATS again.', 'Jobs: 1 new; 1 job in all.'],
  });
});

test('a later loss of NATS is another one', () => {
  caughtUp.set({ awayMilliseconds: 2000, at: 10_000, sentences: ['Jobs: 1 new; 1 job in all.'] });
  sayStoreIsBack(60_000, 70_000);
  expect(caughtUp.value).toEqual({
    awayMilliseconds: 10_000,
    at: 70_000,
    sentences: ['The server reaches NATS again.'],
  });
});
