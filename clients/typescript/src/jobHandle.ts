// A job and what can be done with it, as `create` gives it.

import type { JobPriority, UpdateJobInput, WatchJobSubscription } from './generated/operations.js';
import type { Abortable } from './http.js';
import type { Job, JobState, NameOf, PayloadOf, RegisteredJobs, ResultOf } from './jobTypes.js';

export interface WatchOptions<Name extends string = string> {
  /** Which type the job is of, where that is known: the result of that one alone is asked for. */
  name?: Name;
  /** The cursor of the last event seen: go on behind that. */
  after?: string;
  /** Reports of progress in a second at most: 0.1 to 10. All come without it. */
  maxPerSecond?: number;
  /**
   * Milliseconds in which the job may come to be, if it is not there: an outbox hands it on after its id is known. It is
   * `NOT_FOUND` at once without it.
   */
  appearsWithin?: number;
  signal?: AbortSignal;
}

/** What happens to a job. `JobCompleted`, `JobDeadLetter` and `JobCancelled` are its end. */
export interface JobEvent<State = Job> {
  readonly __typename: WatchJobSubscription['jobProgress']['__typename'];
  /** Its place in the history of all jobs. */
  readonly cursor: string;
  readonly at: string;
  /** The job as of this event. */
  readonly job: State;
}

/** An async iterator that can be left at any time, also while its next value is awaited. */
export type Stream<Value> = AsyncIterableIterator<Value, void, undefined>;

/** What is to be another about a job that has not started. What is left out stays as it is. */
export interface JobChanges<Payload> extends Abortable {
  /** Not before then, at most a year ahead; null or a moment that has passed is at once. */
  runAt?: UpdateJobInput['runAt'];
  priority?: JobPriority;
  /** What to do in the place of what was asked for. */
  payload?: Payload;
  /** All its tags from now on. */
  tags?: readonly string[];
}

export interface RetryOptions<Payload> extends Abortable {
  /** What to do in the place of what was asked for. */
  payload?: Payload;
}

/** `Options`, and of which type the job is, which has to be said where its payload is given. */
export type OfType<Options extends { payload?: unknown }, Name> =
  | (Options & { name: Name })
  | (Options & { name?: Name; payload?: undefined });

/** A job that was created here. */
export interface JobHandle<
  Types extends object = RegisteredJobs,
  Name extends NameOf<Types> = NameOf<Types>,
> {
  readonly id: string;
  readonly name: Name;
  /** Whether it is not new: a key that was given had made it before, or it is what has the key. */
  readonly deduplicated: boolean;
  /** What was asked for with `viewToken`. */
  readonly viewToken: { readonly token: string; readonly id: string; readonly expiresAt: string } | null;
  watch(options?: WatchOptions): Stream<JobEvent<JobState<Types, Name>>>;
  /** The job as it stands; null if it is not kept any more. */
  state(options?: Abortable): Promise<JobState<Types, Name> | null>;
  /** What comes of it, when it has. Rejects with `JOB_FAILED` or `JOB_CANCELLED`, whose `job` says more. */
  result(options?: Abortable): Promise<ResultOf<Types, Name>>;
  cancel(options?: Abortable): Promise<void>;
  /** Run it again after it has failed for good or was cancelled, with another payload if one is given. */
  retry(options?: RetryOptions<PayloadOf<Types, Name>>): Promise<void>;
  /** Change it, which has not started yet, and give it as it is then. Rejects with `INVALID_STATE` once it has. */
  update(changes: JobChanges<PayloadOf<Types, Name>>): Promise<JobState<Types, Name>>;
  /** Delete it for good, with all that was stored of it; whether it was there. `INVALID_STATE` while it runs. */
  delete(options?: Abortable): Promise<boolean>;
}
