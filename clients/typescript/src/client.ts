// The client: jobs are created, looked up, watched, cancelled and run again.

import { Access, type GetToken } from './access.js';
import { asJobsError, isPassing, JobsError } from './errors.js';
import type {
  CancelJobMutation,
  CreateJobInput,
  CreateJobMutation,
  CreateJobWithTokenMutation,
  DeleteJobMutation,
  FindJobQuery,
  JobFilter,
  JobKeyInput,
  JobOrder,
  ListJobsQuery,
  RetryJobMutation,
  Scope,
  UpdateJobMutation,
  WatchJobSubscription,
  WatchJobsSubscription,
} from './generated/operations.js';
import { type Abortable, type Ask, type Asking, Http, type Named, wasThere } from './http.js';
import type {
  JobChanges,
  JobEvent,
  JobHandle,
  OfType,
  RetryOptions,
  Stream,
  WatchOptions,
} from './jobHandle.js';
import { type JobList, listsOf } from './jobList.js';
import {
  type Job,
  type JobState,
  type JobTypeTable,
  jobOf,
  type NameOf,
  type PayloadOf,
  type RegisteredJobs,
  type ResultOf,
  resultSelection,
} from './jobTypes.js';
import type { Observable } from './observable.js';
import {
  CANCEL,
  CREATE,
  CREATE_WITH_TOKEN,
  DELETE,
  JOB,
  JOB_FIELDS,
  JOBS,
  JOBS_CHANGED,
  RETRY,
  RETRY_WITH,
  UPDATE,
  WATCH,
} from './operations.js';
import { backOff, linked, wait } from './pause.js';
import { type QueueCalls, queueCalls } from './queues.js';
import { type ScheduleCalls, scheduleCalls } from './schedules.js';
import { type Connection, Socket } from './socket.js';

export interface JobsClientOptions<Types extends object> {
  /** Where the API is, with its path; `/graphql` where there is none. May be relative in a page. */
  url: string;
  /** An API key or a token that lasts for as long as the client does. */
  token?: string | null;
  /**
   * Asked for a token when there is none, and again before it ends; null says that nobody is signed in, and what is under
   * way ends with `UNAUTHENTICATED`. What else it fails with is taken for passing, and it is asked again.
   */
  getToken?: GetToken;
  /** The table that `gql-jobs-codegen` has made. */
  types?: JobTypeTable<Types>;
  /** Milliseconds for which queries and mutations are tried again where that is safe; 30 seconds by default. */
  patience?: number;
  /** In the place of the global ones. Node.js before 22 has no WebSocket: give it that of `ws`. */
  fetch?: typeof globalThis.fetch;
  webSocket?: unknown;
}

export interface CreateOptions extends Omit<CreateJobInput, 'payload' | 'key' | 'after'> {
  /**
   * A text is an idempotency key: the same one and the same payload make the same job, for as long as that is kept. Without
   * one the client makes its own for each call, so that a creation whose answer is lost is asked for again and makes no
   * second job. An object says what becomes of the creation while another job that has not ended has the key.
   */
  key?: string | JobKeyInput;
  /** The former beside the latter. */
  idempotencyKey?: string;
  /** The jobs that have to complete first: handles, jobs or ids. */
  after?: readonly (string | { readonly id: string })[];
  /** Have a token made with which a browser, say, may watch just this job: for how many seconds, and for what. */
  viewToken?: { ttlSeconds: number; scopes?: readonly Scope[] };
  signal?: AbortSignal;
}

export interface ListOptions {
  /** Newest first where left out. */
  orderBy?: JobOrder;
  /** How many jobs, 1 to 100; 50 by default. */
  first?: number;
  signal?: AbortSignal;
}

export interface PageOptions extends ListOptions {
  /** The end of the page before. */
  after?: string | null;
}

export interface WatchListOptions extends ListOptions {
  /** Changes of the list in a second at most: 0.1 to 10; 4 by default. */
  maxPerSecond?: number;
  /** Milliseconds between two looks at a server that does not tell changes of lists; 5000 by default. */
  pollEvery?: number;
}

export interface JobPage extends JobList {
  /** The end of this page; null if it is the last one. */
  readonly next: string | null;
}

export interface Refusable {
  /** Called when the server refuses for now what is watched, as without NATS, and when it is asked again. */
  onRefusal?: (isRefused: boolean) => void;
}

export interface JobsClient<Types extends object = RegisteredJobs> extends QueueCalls, ScheduleCalls<Types> {
  /** Whether what is watched is up to date. */
  readonly connection: Observable<Connection>;
  /** Create a job. It is durable once this resolves. */
  create<Name extends NameOf<Types>>(
    name: Name,
    payload: PayloadOf<Types, Name>,
    options?: CreateOptions,
  ): Promise<JobHandle<Types, Name>>;
  /** The job as it stands; null if there is none. */
  job<Name extends NameOf<Types> = NameOf<Types>>(
    id: string,
    options?: { name?: Name } & Abortable,
  ): Promise<JobState<Types, Name> | null>;
  /** A page of jobs. */
  jobs(filter?: JobFilter, options?: PageOptions): Promise<JobPage>;
  /**
   * The events of a job: its latest, then every later one, to its end. Goes on behind the last event over lost connections
   * and restarts of the server. Throws JobsError where that is of no use.
   */
  watch<Name extends NameOf<Types> = NameOf<Types>>(
    id: string,
    options?: WatchOptions<Name> & Refusable,
  ): Stream<JobEvent<JobState<Types, Name>>>;
  /** The first jobs that match, and again whenever they change. Never ends by itself. */
  watchJobs(filter?: JobFilter, options?: WatchListOptions & Refusable): Stream<JobList>;
  /** Cancel a job that has not ended yet; one that is cancelled already stays so. */
  cancel(id: string, options?: Abortable): Promise<void>;
  /** Run a job again that has failed for good or was cancelled, with another payload if one is given. */
  retry<Name extends NameOf<Types> = NameOf<Types>>(
    id: string,
    options?: OfType<RetryOptions<PayloadOf<Types, Name>>, Name>,
  ): Promise<void>;
  /** Change a job that has not started, and give it as it is then. Rejects with `INVALID_STATE` once it has. */
  update<Name extends NameOf<Types> = NameOf<Types>>(
    id: string,
    changes: OfType<JobChanges<PayloadOf<Types, Name>>, Name>,
  ): Promise<JobState<Types, Name>>;
  /**
   * Delete a job for good, with all that was stored of it; whether it was there. One that runs is refused with
   * `INVALID_STATE`: cancel it first.
   */
  delete(id: string, options?: Abortable): Promise<boolean>;
  /** End whatever is under way, with `CLOSED`, and the connection. */
  close(): void;
}

/** Make a client. Nothing is connected before it is used, so one may be made while a page is rendered on a server. */
export function createJobsClient<Types extends object = RegisteredJobs>(
  options: JobsClientOptions<Types>,
): JobsClient<Types> {
  const { types, patience = 30_000 } = options;
  const url = addressOf(options.url);
  const access = new Access(options.token, options.getToken);
  const http = new Http(url, access, patience, options.fetch);
  const socket = new Socket(url.replace(/^http/, 'ws'), access, options.webSocket);
  const closed = new AbortController();
  const endNoticing = noticeNetwork(socket);

  const ask: Ask = async <Data>(
    query: string,
    variables: object,
    { name, key, signal: given, ...how }: Asking & Named = {},
  ) => {
    const { signal, release } = linked(closed.signal, given);
    try {
      return await http.ask<Data>(query, variables, { ...how, signal });
    } catch (problem) {
      throw problem instanceof JobsError ? problem.within(name, key) : problem;
    } finally {
      release();
    }
  };

  async function create<Name extends NameOf<Types>>(
    name: Name,
    payload: PayloadOf<Types, Name>,
    { key, idempotencyKey, after, viewToken, signal, ...rest }: CreateOptions = {},
  ): Promise<JobHandle<Types, Name>> {
    const given = typeof key === 'string' ? key : idempotencyKey;
    const input = {
      ...rest,
      payload: { [name]: payload },
      idempotencyKey: given ?? newKey(),
      ...(typeof key === 'object' && { key }),
      ...(after && { after: after.map((job) => (typeof job === 'string' ? job : job.id)) }),
    };
    const { createJob } = await ask<CreatedJob>(
      viewToken ? CREATE_WITH_TOKEN : CREATE,
      { input, ...(viewToken && { scopes: ['READ'], ...viewToken }) },
      { signal, name, ...(typeof key === 'string' && { key: 'key' }) },
    );
    const isDeduplicated = (key ?? idempotencyKey) !== undefined && createJob.deduplicated;
    return handleOf(createJob.job.id, name, isDeduplicated, createJob.viewToken);
  }

  const handleOf = <Name extends NameOf<Types>>(
    id: string,
    name: Name,
    deduplicated = false,
    viewToken: JobHandle['viewToken'] = null,
  ): JobHandle<Types, Name> => ({
    id,
    name,
    deduplicated,
    viewToken,
    watch: (how) => watch<Name>(id, { ...how, name }),
    result: async (how) => {
      const { status, ...end } = await endOf(id, name, how?.signal);
      if (status === 'COMPLETED') return end.result as ResultOf<Types, Name>;
      const job = { status, ...end };
      const why = end.cancelReason ? `: ${end.cancelReason}` : '.';
      throw status === 'CANCELLED'
        ? new JobsError('JOB_CANCELLED', `Job ${id} was cancelled${why}`, { job })
        : new JobsError('JOB_FAILED', end.error?.message ?? `Job ${id} has failed.`, { job });
    },
    state: (how) => find<Name>(id, { ...how, name }),
    cancel: (how) => cancel(id, how),
    retry: (how) => retry<Name>(id, { ...how, name }),
    update: (changes) => update<Name>(id, { ...changes, name }),
    delete: (how) => remove(id, how),
  });

  const selection = (query: string, name?: string) =>
    `${query.replace('...JobFields', `...JobFields ${resultSelection(types, name)}`)}${JOB_FIELDS}`;

  function watch<Name extends NameOf<Types>>(
    id: string,
    { name, after, maxPerSecond, appearsWithin = 0, signal, onRefusal }: WatchOptions<Name> & Refusable = {},
  ): Stream<JobEvent<JobState<Types, Name>>> {
    // Older servers do not know the argument.
    const most = maxPerSecond === undefined ? '' : `, maxPerSecond: ${Number(maxPerSecond)}`;
    const query = selection(WATCH, name).replace('after: $after', `after: $after${most}`);
    return stream([closed.signal, signal], async function* (ended) {
      const watching = { resume: resumeBehind, ...(onRefusal && { onRefusal }) };
      const request = { query, variables: { id, after } };
      const begun = Date.now();
      let isThere = false;
      for (;;) {
        try {
          for await (const { jobProgress } of socket.subscribe<WatchJobSubscription>(
            request,
            ended,
            watching,
          )) {
            isThere = true;
            yield { ...jobProgress, job: jobOf<JobState<Types, Name>>(jobProgress.job) };
          }
          return;
        } catch (problem) {
          const mayCome = !isThere && problem instanceof JobsError && problem.code === 'NOT_FOUND';
          if (!mayCome || Date.now() - begun >= appearsWithin) throw problem;
          await wait(Math.min(backOff(0), appearsWithin), ended);
        }
      }
    });
  }

  async function endOf(id: string, name: NameOf<Types>, signal: AbortSignal | undefined): Promise<Job> {
    let last: Job | undefined;
    for await (const { job } of watch(id, { name, ...(signal && { signal }) })) last = job as unknown as Job;
    if (!last?.finishedAt) throw new JobsError('NOT_FOUND', `There is no job '${id}' any more.`);
    return last;
  }

  async function find<Name extends NameOf<Types>>(
    id: string,
    { name, signal }: { name?: Name } & Abortable = {},
  ): Promise<JobState<Types, Name> | null> {
    const { job } = await ask<FindJobQuery>(selection(JOB, name), { id }, { signal });
    return job && jobOf<JobState<Types, Name>>(job);
  }

  async function jobs(
    filter: JobFilter = {},
    { first = 50, orderBy, after, signal }: PageOptions = {},
  ): Promise<JobPage> {
    const asked = { filter, first, orderBy, after };
    const { jobs: page } = await ask<ListJobsQuery>(JOBS + JOB_FIELDS, asked, { signal });
    const { nodes, totalCount, pageInfo } = page;
    return { jobs: nodes, totalCount, next: pageInfo.hasNextPage ? (pageInfo.endCursor ?? null) : null };
  }

  function watchJobs(
    filter: JobFilter = {},
    {
      first = 50,
      orderBy,
      maxPerSecond = 4,
      pollEvery = 5000,
      signal,
      onRefusal,
    }: WatchListOptions & Refusable = {},
  ): Stream<JobList> {
    const request = { query: JOBS_CHANGED + JOB_FIELDS, variables: { filter, first, orderBy, maxPerSecond } };
    return stream([closed.signal, signal], async function* (ended) {
      try {
        yield* listsOf(socket.subscribe<WatchJobsSubscription>(request, ended, onRefusal && { onRefusal }));
      } catch (problem) {
        // An older server does not know the field.
        if (!(problem instanceof JobsError && problem.code === 'GRAPHQL_VALIDATION_FAILED')) throw problem;
        for (;;) {
          try {
            yield await jobs(filter, { first, signal: ended, ...(orderBy && { orderBy }) });
          } catch (failure) {
            if (!isPassing(asJobsError(failure))) throw failure;
            onRefusal?.(true);
          }
          await wait(pollEvery, ended);
        }
      }
    });
  }

  async function cancel(id: string, how?: Abortable): Promise<void> {
    try {
      await ask<CancelJobMutation>(CANCEL, { id }, { signal: how?.signal });
    } catch (problem) {
      // So it is where an answer was lost, too.
      const isCancelled = problem instanceof JobsError && problem.extensions.status === 'CANCELLED';
      if (!isCancelled) throw problem;
    }
  }

  async function retry<Name extends NameOf<Types>>(
    id: string,
    { name, payload, signal }: { name?: Name } & RetryOptions<PayloadOf<Types, Name>> = {},
  ): Promise<void> {
    const how = { signal, name, repeatable: false };
    if (payload === undefined) await ask<RetryJobMutation>(RETRY, { id }, how);
    else await ask<RetryJobMutation>(RETRY_WITH, { id, payload: { [String(name)]: payload } }, how);
  }

  async function update<Name extends NameOf<Types>>(
    id: string,
    { name, payload, signal, ...rest }: { name?: Name } & JobChanges<PayloadOf<Types, Name>>,
  ): Promise<JobState<Types, Name>> {
    const input = { ...rest, ...(payload !== undefined && { payload: { [String(name)]: payload } }) };
    const asked = UPDATE + JOB_FIELDS;
    const { updateJob } = await ask<UpdateJobMutation>(asked, { id, input }, { signal, name });
    return jobOf<JobState<Types, Name>>(updateJob.job);
  }

  const remove = (id: string, how?: Abortable) => wasThere<DeleteJobMutation>(ask, DELETE, { id }, how);

  return {
    connection: socket.connection,
    create,
    job: find,
    jobs,
    watch,
    watchJobs,
    cancel,
    retry,
    update,
    delete: remove,
    ...queueCalls(ask),
    ...scheduleCalls<Types>(ask, handleOf),
    close() {
      endNoticing();
      closed.abort(new JobsError('CLOSED', 'The client was closed.'));
      socket.close();
    },
  };
}

type CreatedJob = {
  createJob: CreateJobMutation['createJob'] & Partial<CreateJobWithTokenMutation['createJob']>;
};

const resumeBehind = ({ jobProgress: { cursor } }: WatchJobSubscription) => ({ after: cursor });

/** Where a relative address leads to while a page is rendered on a server, which asks for nothing. */
const NOWHERE = 'http://localhost';

function addressOf(url: string): string {
  const address = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href ?? NOWHERE);
  if (address.pathname === '/') address.pathname = '/graphql';
  return address.href;
}

/** A key that nobody else has. `crypto.randomUUID` is there in secure contexts alone. */
const newKey = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join(
    '',
  );

/** Have the socket given up when the network goes, and tried at once when network or user are back. */
function noticeNetwork(socket: Socket): () => void {
  if (!globalThis.document) return () => {};
  const listening = new AbortController();
  const how = { signal: listening.signal };
  const wake = () => document.visibilityState === 'visible' && socket.wake();
  addEventListener('online', wake, how);
  addEventListener('offline', () => socket.drop(), how);
  document.addEventListener('visibilitychange', wake, how);
  return () => listening.abort();
}

/** What `run` yields. Leaving it aborts the signal that `run` is given, so that nothing is awaited any more. */
function stream<Value>(
  signals: (AbortSignal | undefined)[],
  run: (ended: AbortSignal) => AsyncGenerator<Value, void, undefined>,
): Stream<Value> {
  const under = linked(...signals);
  const values = run(under.signal);
  const over: IteratorResult<Value, void> = { done: true, value: undefined };
  let isLeft = false;
  return {
    async next() {
      try {
        const next = await values.next();
        if (next.done) under.release();
        return next;
      } catch (problem) {
        under.release();
        if (isLeft) return over;
        throw problem;
      }
    },
    async return() {
      isLeft = true;
      under.abort();
      under.release();
      await values.return().catch(() => undefined);
      return over;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
