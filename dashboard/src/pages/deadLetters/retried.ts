// What becomes of dead letters that run again: which have passed, and which have come back.

import type { WhatBecomesOfRetriedSubscription } from '../../api/generated';

export type Happened = WhatBecomesOfRetriedSubscription['jobEvents'];

/** By the ids of jobs that were retried, in that order: how each has ended, or null while it has not. */
export type Retried = ReadonlyMap<string, 'COMPLETED' | 'DEAD_LETTER' | 'CANCELLED' | null>;

/**
 * What is known after an event, of jobs that are older than the watch itself. Those are noted that `actor` has retried.
 *
 * An old job that waits for its first attempt was retried by hand, unless it was held back until now.
 */
export function noted(retried: Retried, event: Happened, actor: string | null): Retried {
  const { id, status, attempt, runAt } = event.job;
  if (event.__typename === 'JobQueued') {
    if (attempt !== 0 || runAt !== null || event.actor !== actor) return retried;
    return new Map(retried).set(id, null);
  }
  if (!retried.has(id)) return retried;
  if (status !== 'COMPLETED' && status !== 'DEAD_LETTER' && status !== 'CANCELLED') return retried;
  return new Map(retried).set(id, status);
}

export interface Tally {
  retried: number;
  passed: number;
  cameBack: number;
  cancelled: number;
  underWay: number;
}

export function tally(retried: Retried): Tally {
  const ends = [...retried.values()];
  const of = (end: string | null) => ends.filter((one) => one === end).length;
  return {
    retried: retried.size,
    passed: of('COMPLETED'),
    cameBack: of('DEAD_LETTER'),
    cancelled: of('CANCELLED'),
    underWay: of(null),
  };
}
