// One job as it is and as it goes on: its facts, its history page by page, and then each event as it comes.
//
// Nothing is asked for twice: the history is read from its beginning, the events are those behind its last cursor, and
// after a loss those behind the last one that came. The events of a job end with it, so from then on it is watched
// whether it is retried, or expires; a tab that nobody sees watches neither.

import { type Client, type CombinedError, type OperationResult, stringifyDocument } from '@urql/core';
import { onEnd, pipe, type Source, subscribe } from 'wonka';
import { catchUpWithStore, connections, sayCaughtUp, sentence } from '../../api/connection';
import { type Exact, exactly } from '../../api/exact';
import {
  FollowJobDocument,
  type FollowJobSubscription,
  JobFactsDocument,
  type JobFactsQuery,
  JobHistoryDocument,
  JobValuesDocument,
  type StandingFragment,
  UsualRunDocument,
  WatchEndedJobDocument,
  type WatchEndedJobSubscription,
} from '../../api/generated';
import { Observable } from '../../api/observable';
import { ENDED, many, STATUS, short } from '../../format';
import { type Happened, isEnd, type Usual, usualOf } from './history';

export type Facts = NonNullable<JobFactsQuery['job']>;

export interface Watched {
  /** Null until they are there, and of an unknown id. */
  facts: Facts | null;
  events: readonly Happened[];
  /** Whether all of the history is there. */
  complete: boolean;
  /** Undefined until it is there. */
  payload: Exact | undefined;
  /** The ids of the jobs that it runs after. */
  after: readonly string[];
  /** Undefined before the job has completed. */
  result: Exact | undefined;
  usual: Usual | null;
  /** Whether there is no such job, or no longer: of one that had ended nobody says whether it was deleted. */
  gone: 'unknown' | 'expired' | 'deleted' | 'deleted here' | null;
  /** Why it is not shown as it is. */
  problem: string | null;
}

const PAGE = 500;
/** Facts that no event tells of, such as how many jobs are before this one, are asked for again, in milliseconds. */
const ASK_WHILE_WAITING = 3000;
/** A handler may save files while it runs, and create jobs, which go on when it has ended. */
const ASK_WHILE_RUNNING = 5000;
const ASK_FOR_RECEIPTS = 700;
/** A handler is given up seconds after it was told; later there is nothing to wait for. */
const LAST_RECEIPT = 15_000;
const AGAIN = 2000;

const isMissing = (error: CombinedError | null): boolean =>
  Boolean(error?.graphQLErrors.some(({ extensions }) => extensions?.code === 'NOT_FOUND'));

/** Reports of progress that are kept; of those of a job that runs for days, the oldest go. */
const MOST_REPORTS = 10_000;

/** The events without the oldest reports of progress beyond what is kept, dropped a thousand at a time. */
export function bounded(events: Happened[]): Happened[] {
  if (events.length <= MOST_REPORTS) return events;
  const reports = events.reduce((sum, { __typename }) => sum + (__typename === 'JobProgress' ? 1 : 0), 0);
  if (reports < MOST_REPORTS + 1000) return events;
  let dropped = 0;
  return events.filter(
    ({ __typename }) => __typename !== 'JobProgress' || ++dropped > reports - MOST_REPORTS,
  );
}

/** Watches a job until it is closed. */
export class JobWatch {
  readonly watched = new Observable<Watched>({
    facts: null,
    events: [],
    complete: false,
    payload: undefined,
    after: [],
    result: undefined,
    usual: null,
    gone: null,
    problem: null,
  });
  private readonly ending = new AbortController();
  private pending: Happened[] = [];
  private standing: StandingFragment | null = null;
  private frame = 0;
  private asking: Promise<void> | null = null;
  private isStale = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private seen = connections.value;
  /** The last change of the job up to which its events are known, and whether it had ended with that. */
  private followedTo: string | null = null;
  private isFollowed = true;
  private stop = () => {};

  constructor(
    private readonly client: Client,
    private readonly id: string,
  ) {
    const back = connections.subscribe(() => void this.catchUp());
    const returned = catchUpWithStore(
      () => (this.watched.value.complete ? this.watched.value.events.length : null),
      (then) => this.missedSaid(this.watched.value.events.length - then),
    );
    const shown = () => this.onVisibility();
    document.addEventListener('visibilitychange', shown);
    this.ending.signal.addEventListener('abort', () => {
      back();
      returned();
      document.removeEventListener('visibilitychange', shown);
    });
    void this.begin();
  }

  /** End it; nothing is told any more. */
  close(): void {
    this.ending.abort();
    this.stop();
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
  }

  /** Keep nothing of the job, which was deleted from this page. */
  forget(): void {
    this.stop();
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.pending = [];
    this.set({
      facts: null,
      events: [],
      payload: undefined,
      after: [],
      result: undefined,
      gone: 'deleted here',
      problem: null,
    });
  }

  /** Ask for all that no event tells of. */
  refresh(): Promise<void> {
    if (this.asking) {
      this.isStale = true;
      return this.asking;
    }
    this.asking = this.ask().finally(() => {
      this.asking = null;
      if (!this.isStale || this.isOver) return;
      this.isStale = false;
      void this.refresh();
    });
    return this.asking;
  }

  /** Say what was refused. That the connection is lost is said elsewhere, and what is shown stays as it is. */
  private say(error: CombinedError | undefined): void {
    if (!error?.networkError) this.set({ problem: error ? sentence(error) : null });
    else if (this.watched.value.facts === null)
      this.set({ problem: 'The server cannot be reached. Trying again…' });
  }

  private get isOver(): boolean {
    return this.ending.signal.aborted || this.watched.value.gone !== null;
  }

  private get lastEvent(): Happened | undefined {
    return this.pending.at(-1) ?? this.watched.value.events.at(-1);
  }

  private get last(): string | null {
    return this.lastEvent?.cursor ?? null;
  }

  private set(change: Partial<Watched>): void {
    if (!this.ending.signal.aborted) this.watched.set({ ...this.watched.value, ...change });
  }

  private async begin(): Promise<void> {
    await this.refresh();
    if (this.isOver) return;
    const { facts } = this.watched.value;
    if (facts === null) {
      this.timer = setTimeout(() => void this.begin(), AGAIN);
      return;
    }
    void this.askForValues();
    void this.askForUsual(facts.type);
    this.followedTo = facts.updatedAt;
    await this.readHistory();
    if (this.isOver) return;
    this.set({ complete: true });
    // The history may know more than the facts, which were read before it.
    const last = this.watched.value.events.at(-1);
    if (last && Date.parse(last.at) > Date.parse(facts.updatedAt)) {
      void this.refresh();
      void this.askForValues(true);
    }
    this.seen = connections.value;
    this.follow();
  }

  private async ask(): Promise<void> {
    const { data, error } = await this.client.query(JobFactsDocument, { id: this.id }).toPromise();
    if (this.isOver) return;
    if (error || !data) {
      this.say(error);
      clearTimeout(this.timer);
      if (this.watched.value.facts) this.timer = setTimeout(() => void this.refresh(), AGAIN);
      return;
    }
    const { facts: before, result } = this.watched.value;
    const { job } = data;
    if (job === null) return this.leave();
    // An event that came meanwhile may know more than an answer that was under way.
    const known = before && Date.parse(before.updatedAt) > Date.parse(job.updatedAt) ? before : job;
    this.set({ facts: { ...job, ...standingOf(known) }, problem: null });
    if (job.status === 'COMPLETED' && result === undefined && before !== null) void this.askForValues();
    this.askLater(job);
  }

  /** Some facts change without an event: they are asked for while they may. */
  private askLater({ status, cancellation, startedAt, children }: Facts): void {
    clearTimeout(this.timer);
    const isHidden = document.visibilityState === 'hidden';
    const awaitsReceipt =
      cancellation !== null &&
      startedAt !== null &&
      cancellation.outcome === null &&
      Date.now() - this.cancelledSince(cancellation.requestedAt) < LAST_RECEIPT;
    if (awaitsReceipt) this.timer = setTimeout(() => void this.refresh(), ASK_FOR_RECEIPTS);
    else if (!ENDED.has(status) && !isHidden)
      this.timer = setTimeout(
        () => void this.refresh(),
        status === 'PROCESSING' ? ASK_WHILE_RUNNING : ASK_WHILE_WAITING,
      );
    else if (!isHidden && children.some((child) => !ENDED.has(child.status)))
      this.timer = setTimeout(() => void this.refresh(), ASK_WHILE_RUNNING);
  }

  private cancelled = { at: '', since: 0 };

  /** By this browser's clock, since when the cancellation is known. */
  private cancelledSince(requestedAt: string): number {
    if (this.cancelled.at !== requestedAt) this.cancelled = { at: requestedAt, since: Date.now() };
    return this.cancelled.since;
  }

  /** Ask for the payload, which stays as it is but for edits and retries (`anew`), and for the result once there is one. */
  private async askForValues(anew = false): Promise<void> {
    if (this.isOver) return;
    try {
      const query = stringifyDocument(JobValuesDocument);
      const hasPayload = this.watched.value.payload !== undefined;
      const variables = { id: this.id, payload: anew || !hasPayload };
      const { job } = (await exactly(query, variables, this.ending.signal)) as {
        job: { status: string; after?: string[]; rawPayload?: Exact; rawResult: Exact } | null;
      };
      if (job === null) return;
      this.set({
        ...(job.rawPayload !== undefined && { payload: job.rawPayload }),
        ...(job.after !== undefined && { after: job.after }),
        ...(job.status === 'COMPLETED' && { result: job.rawResult }),
      });
    } catch (error) {
      if (this.isOver) return;
      this.say(error as CombinedError);
      if ((error as CombinedError).networkError) setTimeout(() => void this.askForValues(anew), AGAIN);
    }
  }

  private async askForUsual(type: string): Promise<void> {
    const filter = { type: [type], status: ['COMPLETED' as const] };
    const { data } = await this.client.query(UsualRunDocument, { filter }).toPromise();
    if (!data) return;
    const others = data.jobs.nodes.filter(({ id }) => id !== this.id);
    this.set({ usual: usualOf(others.map(({ durationMs }) => durationMs)) });
  }

  private async readHistory(): Promise<void> {
    for (;;) {
      const { data, error } = await this.client
        .query(JobHistoryDocument, { id: this.id, first: PAGE, after: this.last })
        .toPromise();
      if (this.isOver) return;
      if (error || !data) {
        this.say(error);
        await new Promise((resolve) => setTimeout(resolve, AGAIN));
        if (this.isOver) return;
        continue;
      }
      if (data.job === null) return this.leave();
      const { events } = data.job;
      if (events.length) this.set({ events: [...this.watched.value.events, ...events] });
      if (events.length < PAGE) return;
    }
  }

  /** Be told what comes until it ends by itself; whatever was told before ends with that. */
  private tell<T>(
    source: Source<OperationResult<T>>,
    told: (data: T) => void,
    ended: (error: CombinedError | null) => void,
  ): void {
    this.stop();
    let isOpen = true;
    let problem: CombinedError | null = null;
    const { unsubscribe } = pipe(
      source,
      // Also when it is unsubscribed from.
      onEnd(() => {
        if (isOpen) ended(problem);
        isOpen = false;
      }),
      subscribe(({ data, error }) => {
        if (!isOpen) return;
        if (error) problem = error;
        else if (data) told(data);
      }),
    );
    this.stop = () => {
      isOpen = false;
      unsubscribe();
    };
  }

  private follow(): void {
    this.isFollowed = true;
    this.tell(
      this.client.subscription(FollowJobDocument, { id: this.id, after: this.last }),
      ({ jobProgress }) => this.take(jobProgress),
      (error) => {
        if (isMissing(error)) this.leave();
        else if (error) this.set({ problem: sentence(error) });
        else this.onEnd();
      },
    );
  }

  private take(event: FollowJobSubscription['jobProgress']): void {
    // The end of a subscription brings its last event once more.
    if (event.cursor === this.last) return;
    // A retry by hand may have brought another payload, of which its event says nothing.
    if (event.__typename === 'JobEdited' || isEnd(this.lastEvent)) void this.askForValues(true);
    this.pending.push(event);
    this.standing = event.job;
    this.followedTo = event.job.updatedAt;
    if (event.__typename !== 'JobProgress') void this.refresh();
    // Many come at once; they are shown together.
    if (document.visibilityState === 'hidden') this.show();
    else if (!this.frame) this.frame = requestAnimationFrame(() => this.show());
  }

  private show(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { events, facts } = this.watched.value;
    const { pending, standing } = this;
    this.pending = [];
    this.standing = null;
    this.set({
      events: pending.length ? bounded([...events, ...pending]) : events,
      facts: facts && standing ? { ...facts, ...standing } : facts,
    });
  }

  /** The events have ended: with the job, or because its end was known before. */
  private onEnd(): void {
    this.show();
    void this.refresh().then(() => {
      if (!this.isOver) this.watchEnded();
    });
  }

  private watchEnded(): void {
    this.stop();
    this.isFollowed = false;
    if (document.visibilityState === 'hidden') return;
    this.tell(
      this.client.subscription(WatchEndedJobDocument, { filter: { ids: [this.id] } }),
      ({ jobsChanged }) => {
        const changedAt = changeOf(jobsChanged);
        if (changedAt === null) return this.leave();
        if (changedAt === this.followedTo) return;
        // It has been retried, and may have ended again since. What is not told by an event is followed once.
        this.followedTo = changedAt;
        this.follow();
      },
      () => {},
    );
  }

  private onVisibility(): void {
    if (this.isOver || !this.watched.value.complete) return;
    if (document.visibilityState === 'hidden') {
      if (!this.isFollowed) this.stop();
    } else {
      this.show();
      void this.refresh();
      if (!this.isFollowed) this.watchEnded();
    }
  }

  /** Say what has happened while there was no connection. The events themselves come by the subscription. */
  private async catchUp(): Promise<void> {
    if (this.isOver || this.seen === connections.value || !this.watched.value.complete) return;
    this.seen = connections.value;
    const { data } = await this.client
      .query(JobHistoryDocument, { id: this.id, first: PAGE, after: this.last })
      .toPromise();
    if (!data || this.isOver) return;
    if (data.job === null) return this.leave();
    await this.refresh();
    sayCaughtUp(this.missedSaid(data.job.events.length));
  }

  private missedSaid(missed: number): string {
    const name = `Job ${short(this.id)}:`;
    if (!missed) return `${name} nothing has happened.`;
    const { facts } = this.watched.value;
    const standing = facts ? ` It is ${STATUS[facts.status].toLowerCase()}.` : '';
    return `${name} ${missed === PAGE ? `${PAGE} events or more` : many(missed, 'event')}.${standing}`;
  }

  private leave(): void {
    const { facts, gone: before } = this.watched.value;
    if (before !== null) return;
    // Only what has ended expires.
    const gone = facts === null ? 'unknown' : ENDED.has(facts.status) ? 'expired' : 'deleted';
    this.stop();
    clearTimeout(this.timer);
    this.set({ gone, problem: null });
  }
}

function standingOf(facts: StandingFragment): StandingFragment {
  const {
    status,
    progress,
    progressMessage,
    attempt,
    workerId,
    updatedAt,
    runAt,
    startedAt,
    finishedAt,
    nextAttemptAt,
    durationMs,
  } = facts;
  return {
    status,
    progress,
    progressMessage,
    attempt,
    workerId,
    updatedAt,
    runAt,
    startedAt,
    finishedAt,
    nextAttemptAt,
    durationMs,
  };
}

/** When the job has last changed; null if it is not there any more. */
function changeOf(change: WatchEndedJobSubscription['jobsChanged']): string | null {
  if (change.__typename === 'JobsSnapshot') return change.nodes[0]?.updatedAt ?? null;
  return change.__typename === 'JobLeft' ? null : change.job.updatedAt;
}
