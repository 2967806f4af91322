// What several components show of one thing: it is watched once, as long as one of them is there.

import type { JobsClient, WatchListOptions } from './client.js';
import { asJobsError, type JobsError } from './errors.js';
import type { JobFilter } from './generated/operations.js';
import type { JobEvent, WatchOptions } from './jobHandle.js';
import type { JobList } from './jobList.js';
import type { Job } from './jobTypes.js';
import { Variable } from './observable.js';

/** `ended`: nothing more comes, because the job has ended or by `problem`. */
export type Liveness = 'connecting' | 'live' | 'reconnecting' | 'ended';

export interface Shown<Value> {
  /** The latest that is known; null before the first. */
  readonly value: Value | null;
  readonly connection: Liveness;
  /** Why it cannot be watched (any more). */
  readonly problem: JobsError | null;
}

type Begin<Value> = (signal: AbortSignal, onRefusal: (isRefused: boolean) => void) => AsyncIterable<Value>;
/** Weakly held, because what was made for a rendering that came to nothing is never subscribed to, and never let go. */
type Kept<Value> = Map<string, WeakRef<Watched<Value>>>;

/** One watched thing, and how it stands. Begun for the first listener, ended soon after the last one has gone. */
export class Watched<Value> {
  private readonly shown = new Variable<Shown<Value>>({
    value: null,
    connection: 'connecting',
    problem: null,
  });
  private listeners = 0;
  private isRefused = false;
  private running: AbortController | undefined;

  /**
   * @param begin watches it, until the signal is aborted.
   */
  constructor(
    private readonly client: JobsClient,
    private readonly begin: Begin<Value>,
  ) {}

  readonly get = (): Shown<Value> => this.shown.value;

  readonly subscribe = (listener: () => void): (() => void) => {
    const end = this.shown.subscribe(listener);
    this.listeners += 1;
    if (!this.running) void this.run();
    return () => {
      end();
      this.listeners -= 1;
      // Not at once: in StrictMode, and where one page takes the place of another, the next listener is there directly.
      setTimeout(() => {
        if (this.listeners === 0) this.stop();
      });
    };
  };

  /** Watch it from the beginning again, if anybody does. */
  restart(): void {
    if (!this.running) return;
    this.running.abort();
    void this.run();
  }

  private stop(): void {
    this.running?.abort();
    this.running = undefined;
  }

  private async run(): Promise<void> {
    const running = new AbortController();
    this.running = running;
    this.isRefused = false;
    this.show({ connection: 'connecting', problem: null });
    const end = this.client.connection.subscribe(() => this.showConnection(running.signal));
    let problem: JobsError | null = null;
    try {
      const values = this.begin(running.signal, (isRefused) => {
        this.isRefused = isRefused;
        this.showConnection(running.signal);
      });
      for await (const value of values) {
        if (running.signal.aborted) return;
        this.show({ value, connection: 'live' });
      }
    } catch (reason) {
      problem = asJobsError(reason);
    } finally {
      end();
    }
    if (!running.signal.aborted) this.show({ connection: 'ended', problem });
  }

  private showConnection(signal: AbortSignal): void {
    const { value } = this.client.connection;
    if (signal.aborted || value === 'idle') return;
    if (value === 'live' && !this.isRefused) this.show({ connection: 'live' });
    else if (this.shown.value.connection !== 'connecting') this.show({ connection: 'reconnecting' });
  }

  private show(change: Partial<Shown<Value>>): void {
    const next = { ...this.shown.value, ...change };
    const { value, connection, problem } = this.shown.value;
    if (next.value !== value || next.connection !== connection || next.problem !== problem)
      this.shown.set(next);
  }
}

/** All that components watch by one client: each thing once. */
export class WatchedThings {
  private readonly jobs: Kept<Job> = new Map();
  private readonly lists: Kept<JobList> = new Map();

  constructor(private readonly client: JobsClient) {}

  /** Those who come later see it as the first one has asked for it. */
  job(id: string, options: Omit<WatchOptions<never>, 'signal' | 'after'>): Watched<Job> {
    return kept(this.jobs, id, () => {
      const begin: Begin<Job> = (signal, onRefusal) =>
        jobsOf(this.client.watch(id, { ...options, signal, onRefusal }));
      return new Watched(this.client, begin);
    });
  }

  list(filter: JobFilter, options: Omit<WatchListOptions, 'signal'>): Watched<JobList> {
    return kept(this.lists, JSON.stringify([filter, options]), () => {
      const begin: Begin<JobList> = (signal, onRefusal) =>
        this.client.watchJobs(filter, { ...options, signal, onRefusal });
      return new Watched(this.client, begin);
    });
  }

  /** Have those who watch this job see what becomes of it now. */
  restart(id: string): void {
    this.jobs.get(id)?.deref()?.restart();
  }
}

function kept<Value>(things: Kept<Value>, key: string, make: () => Watched<Value>): Watched<Value> {
  const known = things.get(key)?.deref();
  if (known) return known;
  for (const [other, watched] of things) if (!watched.deref()) things.delete(other);
  const made = make();
  things.set(key, new WeakRef(made));
  return made;
}

async function* jobsOf(events: AsyncIterable<JobEvent<unknown>>): AsyncGenerator<Job, void, undefined> {
  for await (const { job } of events) yield job as Job;
}
