import { expect, test } from 'vitest';
import { type Happened, noted, type Retried, tally } from './retried';

type Facts = Partial<Happened['job']> & { actor?: string | null };
const event = (kind: string, id: string, { actor = null, ...facts }: Facts = {}) =>
  ({
    __typename: kind,
    cursor: '1',
    actor,
    job: { id, status: 'QUEUED', attempt: 0, runAt: null, ...facts },
  }) as Happened;
const after = (events: Happened[], actor: string | null = null) =>
  events.reduce((known: Retried, one) => noted(known, one, actor), new Map());

test('those that are retried are under way until they pass, or come back', () => {
  const queued = ['a', 'b', 'c', 'd'].map((id) => event('JobQueued', id));
  expect(tally(after(queued))).toMatchObject({ retried: 4, underWay: 4 });
  const ends = [
    event('JobCompleted', 'a', { status: 'COMPLETED', attempt: 1 }),
    event('JobDeadLetter', 'b', { status: 'DEAD_LETTER', attempt: 1 }),
    event('JobCancelled', 'c', { status: 'CANCELLED' }),
    event('JobCompleted', 'other', { status: 'COMPLETED', attempt: 1 }),
  ];
  expect(tally(after([...queued, ...ends]))).toEqual({
    retried: 4,
    passed: 1,
    cameBack: 1,
    cancelled: 1,
    underWay: 1,
  });
  expect(tally(after([...queued, ...ends, event('JobQueued', 'b')]))).toMatchObject({
    cameBack: 0,
    underWay: 2,
  });
});

test('jobs that wait for another reason are none of them', () => {
  const others = [
    event('JobQueued', 'handed back', { attempt: 1 }),
    event('JobQueued', 'due', { runAt: '2026-01-01T00:00:00Z' }),
    event('JobQueued', 'of somebody else', { actor: 'key:b' }),
  ];
  expect(after(others).size).toBe(0);
  expect(after([event('JobQueued', 'own', { actor: 'key:a' })], 'key:a').size).toBe(1);
});
