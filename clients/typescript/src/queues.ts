// What is done with a queue while it is used. It needs the scope OPERATE, and neither a tenant nor limits.

import type {
  PauseQueueMutation,
  QueueLimitsInput,
  ResumeQueueMutation,
  SetQueueLimitsMutation,
} from './generated/operations.js';
import type { Abortable, Ask } from './http.js';
import { PAUSE_QUEUE, RESUME_QUEUE, SET_QUEUE_LIMITS } from './operations.js';

export interface PauseOptions extends Abortable {
  /** Why, for all who wonder why their jobs wait: 1 to 500 printable characters. */
  reason?: string;
  /** When the queue goes on by itself; without it, not before it is resumed. */
  until?: Date | string;
}

/** Since when a queue is paused, by whom, why, and until when. */
export type QueuePause = NonNullable<PauseQueueMutation['pauseQueue']['queue']['paused']>;

type SetLimits = SetQueueLimitsMutation['setQueueLimits'];
export type QueueLimits = SetLimits['queue']['limits'] & Pick<SetLimits, 'ungated'>;

export interface QueueCalls {
  /**
   * Have nothing of a queue start, on any worker, until it is resumed. What runs may finish, and jobs can be created as ever.
   * Gives the pause; null if it has ended already.
   */
  pauseQueue(name: string, options?: PauseOptions): Promise<QueuePause | null>;
  /** Have what waits in a paused queue start again. */
  resumeQueue(name: string, options?: Abortable): Promise<void>;
  /**
   * Limit how many jobs of a queue run at a time, how many of those with one key do, and how many start in a second. A limit
   * that is not given is none: these take the place of those that the queue had.
   *
   * Gives the limits, and `ungated`: how many of its jobs were created before it had any, and start whatever these say.
   */
  setQueueLimits(name: string, limits: QueueLimitsInput, options?: Abortable): Promise<QueueLimits>;
}

export const queueCalls = (ask: Ask): QueueCalls => ({
  async pauseQueue(name, { signal, ...rest } = {}) {
    const { pauseQueue } = await ask<PauseQueueMutation>(PAUSE_QUEUE, { name, ...rest }, { signal });
    return pauseQueue.queue.paused;
  },
  async resumeQueue(name, how) {
    await ask<ResumeQueueMutation>(RESUME_QUEUE, { name }, { signal: how?.signal });
  },
  async setQueueLimits(name, limits, how) {
    const given = { name, limits };
    const { setQueueLimits } = await ask<SetQueueLimitsMutation>(SET_QUEUE_LIMITS, given, {
      signal: how?.signal,
    });
    return { ...setQueueLimits.queue.limits, ungated: setQueueLimits.ungated };
  },
});
