'use client';

// Jobs in React: what is watched is there for as long as a component shows it, once for all that show it.

import {
  createContext,
  createElement,
  type ReactNode,
  useCallback,
  useContext,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from 'react';
import type { CreateOptions, JobsClient, WatchListOptions } from './client.js';
import { asJobsError, type JobsError } from './errors.js';
import type { JobFilter, JobStatus } from './generated/operations.js';
import type { JobChanges, JobHandle, WatchOptions } from './jobHandle.js';
import type { ListedJob } from './jobList.js';
import {
  type JobState,
  type NameOf,
  nameOf,
  type PayloadOf,
  type RegisteredJobs,
  type ResultOf,
} from './jobTypes.js';
import { canonical } from './json.js';
import { type Liveness, type Shown, WatchedThings } from './watched.js';

export type { Liveness };

const Context = createContext<JobsClient | null>(null);
const things = new WeakMap<JobsClient, WatchedThings>();

/** Gives the client to all hooks below it. Make the client once, outside of components. */
export function JobsProvider({ client, children }: { client: JobsClient; children?: ReactNode }): ReactNode {
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the nearest JobsProvider. */
export function useJobsClient(): JobsClient {
  const client = useContext(Context);
  if (!client) throw new Error('There is no JobsProvider above this component.');
  return client;
}

function useWatchedThings(): WatchedThings {
  const client = useJobsClient();
  const known = things.get(client) ?? new WatchedThings(client);
  things.set(client, known);
  return known;
}

export interface WatchedJob<State, Result, Payload = never> {
  /** The job as it stands; undefined until that is known. */
  readonly job: State | undefined;
  readonly status: JobStatus | undefined;
  /** In percent: 0 to 100. */
  readonly progress: number;
  /** What came of it; null until it has completed. */
  readonly result: Result | null;
  /** Its latest failure; null once it has completed. */
  readonly error: ListedJob['error'];
  /** `live` while it is up to date, `reconnecting` while it may not be; `ended` when nothing more comes. */
  readonly connection: Liveness;
  /** Why it cannot be watched (any more). */
  readonly problem: JobsError | null;
  /** Run it again after it has failed for good or was cancelled, and go on watching. */
  readonly retry: () => Promise<void>;
  /** As `retry`, to do this in the place of what was asked for. */
  readonly retryWith: (payload: Payload) => Promise<void>;
  readonly cancel: () => Promise<void>;
  /** Change it, which has not started yet. Rejects with `INVALID_STATE` once it has. */
  readonly update: (changes: JobChanges<Payload>) => Promise<void>;
  /** Delete it for good, with all that was stored of it. Rejects with `INVALID_STATE` while it runs. */
  readonly delete: () => Promise<void>;
}

const UNKNOWN: Shown<never> = { value: null, connection: 'connecting', problem: null };
/** What a page shows that is rendered on a server, and what it begins with in the browser. */
const unknown = () => UNKNOWN;
const NOTHING = { subscribe: () => () => {}, get: unknown };

/**
 * Watch a job to its end. Of the handle that `create` has given the type of the result is known, of an id it is that of any;
 * of null or undefined nothing is watched.
 */
export function useJob<Name extends NameOf<RegisteredJobs> = NameOf<RegisteredJobs>>(
  target: string | JobHandle<RegisteredJobs, Name> | null | undefined,
  { maxPerSecond, appearsWithin }: Pick<WatchOptions, 'maxPerSecond' | 'appearsWithin'> = {},
): WatchedJob<
  JobState<RegisteredJobs, Name>,
  ResultOf<RegisteredJobs, Name>,
  PayloadOf<RegisteredJobs, Name>
> {
  type Payload = PayloadOf<RegisteredJobs, Name>;
  const client = useJobsClient();
  const all = useWatchedThings();
  const { id, name } = typeof target === 'object' && target ? target : { id: target, name: undefined };
  const watched = useMemo(
    () => (id ? all.job(id, { name: name as never, maxPerSecond, appearsWithin }) : NOTHING),
    [all, id, name, maxPerSecond, appearsWithin],
  );
  const { value: job, connection, problem } = useSyncExternalStore(watched.subscribe, watched.get, unknown);
  const cancel = useCallback(async () => {
    if (id) await client.cancel(id);
  }, [client, id]);
  const remove = useCallback(async () => {
    if (id) await client.delete(id);
  }, [client, id]);
  /** With the type of the job, without which a payload says too little; of an id it is what is shown, or is asked for. */
  const typed = useCallback(
    async <Options extends { payload?: Payload }>(id: string, options: Options) => {
      if (options.payload === undefined || name) return { ...options, name: name as Name };
      const shown = watched.get().value ?? (await client.job(id));
      return { ...options, name: nameOf(shown?.__typename ?? '') as Name };
    },
    [client, watched, name],
  );
  const update = useCallback(
    async (changes: JobChanges<Payload>) => {
      if (id) await client.update<Name>(id, await typed(id, changes));
    },
    [client, typed, id],
  );
  const retryWith = useCallback(
    async (payload?: Payload) => {
      if (!id) return;
      await client.retry<Name>(id, await typed(id, { payload }));
      all.restart(id);
    },
    [client, all, typed, id],
  );
  // Given to a button as it is, it would be called with the event.
  const retry = useCallback(() => retryWith(), [retryWith]);
  return {
    job: (job ?? undefined) as JobState<RegisteredJobs, Name> | undefined,
    status: job?.status,
    progress: job?.progress ?? 0,
    result: (job?.result ?? null) as ResultOf<RegisteredJobs, Name> | null,
    error: job?.error ?? null,
    connection,
    problem,
    retry,
    retryWith,
    cancel,
    update,
    delete: remove,
  };
}

export interface WatchedJobs {
  readonly jobs: readonly ListedJob[];
  /** How many jobs match, those that are not listed included; undefined until that is known. */
  readonly totalCount: number | undefined;
  readonly connection: Liveness;
  readonly problem: JobsError | null;
}

const NO_JOBS: readonly ListedJob[] = [];

/** The first jobs that match, kept up to date. Filter and options may be new objects at each rendering. */
export function useJobs(filter: JobFilter = {}, options: Omit<WatchListOptions, 'signal'> = {}): WatchedJobs {
  const all = useWatchedThings();
  const key = JSON.stringify([filter, options]);
  const watched = useMemo(() => all.list(filter, options), [all, key]);
  const { value, connection, problem } = useSyncExternalStore(watched.subscribe, watched.get, unknown);
  return { jobs: value?.jobs ?? NO_JOBS, totalCount: value?.totalCount, connection, problem };
}

export interface Creation<Name extends NameOf<RegisteredJobs>> {
  /**
   * Create a job. Called again with the same content while that is under way, or within a second, as by a double click or by
   * an effect in StrictMode, it gives the same job. Rejects with JobsError, which is `error` too.
   */
  readonly create: (
    payload: PayloadOf<RegisteredJobs, Name>,
    options?: CreateOptions,
  ) => Promise<JobHandle<RegisteredJobs, Name>>;
  /** The job that was created last; give it to `useJob`. */
  readonly job: JobHandle<RegisteredJobs, Name> | null;
  readonly pending: boolean;
  readonly error: JobsError | null;
  /** Forget the job and the error. */
  readonly reset: () => void;
}

/** Milliseconds in which a call with the same content is taken for the same. */
const SAME_WITHIN = 1000;

/** Create jobs of one type. */
export function useCreateJob<Name extends NameOf<RegisteredJobs>>(name: Name): Creation<Name> {
  type Handle = JobHandle<RegisteredJobs, Name>;
  const client = useJobsClient();
  const [state, setState] = useState<{ job: Handle | null; pending: boolean; error: JobsError | null }>(
    FORGOTTEN,
  );
  const latest = useRef<{ key: string; at: number; made: Promise<Handle> } | null>(null);
  const create = useCallback<Creation<Name>['create']>(
    (payload, options = {}) => {
      const { signal: _, ...content } = options;
      const key = canonical([name, payload, content]);
      const before = latest.current;
      if (before?.key === key && Date.now() - before.at < SAME_WITHIN) return before.made;
      const call = { key, at: Number.POSITIVE_INFINITY, made: client.create(name, payload, options) };
      latest.current = call;
      setState((shown) => ({ ...shown, pending: true, error: null }));
      const isLatest = () => latest.current === call;
      call.made.then(
        (job) => {
          call.at = Date.now();
          if (isLatest()) setState({ job, pending: false, error: null });
        },
        (reason) => {
          if (!isLatest()) return;
          latest.current = null;
          setState((shown) => ({ ...shown, pending: false, error: asJobsError(reason) }));
        },
      );
      return call.made;
    },
    [client, name],
  );
  const reset = useCallback(() => {
    latest.current = null;
    setState(FORGOTTEN);
  }, []);
  return { ...state, create, reset };
}

const FORGOTTEN = { job: null, pending: false, error: null };
