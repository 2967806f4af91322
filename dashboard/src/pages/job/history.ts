// A job's history as the lines of its timeline: what happened, when, and for how long nothing did.

import type { CancellationOutcome, FailureFragment, HappenedFragment, WaitReason } from '../../api/generated';

export type Happened = HappenedFragment;
export type Failure = FailureFragment;
type Report = Extract<Happened, { __typename: 'JobProgress' }>;

/** What became of a cancellation, as the API says it. */
export interface Receipts {
  deliveredAt: string | null;
  endedAt: string | null;
  outcome: CancellationOutcome | null;
  workerId: string | null;
}

/** How a line looks; its words say the same. */
export type Tone = 'idle' | 'busy' | 'good' | 'warn' | 'bad';

/** One line of a timeline. The titles are this page's own words; all else may be anybody's. */
export type Row =
  | {
      kind: 'happened';
      key: string;
      at: string;
      tone: Tone;
      title: string;
      /** How long the attempt had run that ended with it, in milliseconds. */
      ran: number | null;
      actor: string | null;
      worker: string | null;
      failure: Failure | null;
      /** When something follows by itself. */
      next: string | null;
      /** Why the system has done it, in its own words. */
      why: string | null;
    }
  | {
      /** Reports of progress between two other events, in one line; with `open` each has its own behind it. */
      kind: 'progress';
      key: string;
      at: string;
      reports: number;
      last: Report;
      open: boolean;
    }
  | { kind: 'report'; key: string; at: string; report: Report }
  /** Time in which nothing happened. */
  | { kind: 'idle'; key: string; title: string; milliseconds: number };

/** Waits that are shorter are not worth a line, in milliseconds. */
const SHORTEST_WAIT = 1000;
/** Runs say nothing for a while, most of them. */
const SHORTEST_SILENCE = 60_000;

const between = (from: string, to: string): number => Math.max(0, Date.parse(to) - Date.parse(from));

/** What goes on after an event, until the next one. */
type Phase = 'held back' | 'queued' | 'running' | 'backing off' | 'ended';

const PHASE: Record<Happened['__typename'], Phase> = {
  JobScheduled: 'held back',
  JobWaiting: 'held back',
  JobEdited: 'held back',
  JobQueued: 'queued',
  JobStarted: 'running',
  JobProgress: 'running',
  JobFailed: 'backing off',
  JobCompleted: 'ended',
  JobDeadLetter: 'ended',
  JobCancelled: 'ended',
};

/** Whether the job has ended with an event. */
export const isEnd = (event: Happened | undefined): boolean =>
  event !== undefined && PHASE[event.__typename] === 'ended';

const IDLE: Record<Phase, (span: string) => string> = {
  'held back': (span) => `held back for ${span}`,
  queued: (span) => `waited ${span} for a worker`,
  running: (span) => `ran ${span} without a report`,
  'backing off': (span) => `waited ${span} for the next attempt`,
  ended: (span) => `lay for ${span}`,
};

/**
 * The lines of a history, oldest first.
 *
 * `open` has the keys of those lines of progress that are unfolded, `span` says a time in words.
 */
export function rowsOf(
  events: readonly Happened[],
  receipts: Receipts | null,
  open: ReadonlySet<string>,
  span: (milliseconds: number) => string,
): Row[] {
  const rows: Row[] = [];
  let before: Happened | null = null;
  let started: string | null = null;
  for (let index = 0; index < events.length; index++) {
    const event = events[index] as Happened;
    if (before) {
      const phase = PHASE[before.__typename];
      const milliseconds = between(before.at, event.at);
      if (milliseconds >= (phase === 'running' ? SHORTEST_SILENCE : SHORTEST_WAIT))
        rows.push({
          kind: 'idle',
          key: `before ${event.cursor}`,
          title: IDLE[phase](span(milliseconds)),
          milliseconds,
        });
    }
    if (event.__typename === 'JobProgress') {
      const first = index;
      while (events[index + 1]?.__typename === 'JobProgress') index += 1;
      const reports = events.slice(first, index + 1) as Report[];
      const last = reports.at(-1) as Report;
      const key = `progress ${event.cursor}`;
      rows.push({ kind: 'progress', key, at: last.at, reports: reports.length, last, open: open.has(key) });
      if (open.has(key))
        for (const report of reports)
          rows.push({ kind: 'report', key: report.cursor, at: report.at, report });
      before = last;
      continue;
    }
    rows.push(happened(event, before, started));
    started = event.__typename === 'JobStarted' ? event.at : null;
    before = event;
  }
  if (before?.__typename === 'JobCancelled' && receipts) rows.push(...receiptsOf(receipts, before.at));
  return rows;
}

function happened(event: Exclude<Happened, Report>, before: Happened | null, started: string | null): Row {
  const row = {
    kind: 'happened' as const,
    key: event.cursor,
    at: event.at,
    tone: 'idle' as Tone,
    ran: started === null ? null : between(started, event.at),
    actor: event.actor,
    worker: null as string | null,
    failure: null as Failure | null,
    next: null as string | null,
    why: null as string | null,
  };
  switch (event.__typename) {
    case 'JobScheduled':
      return { ...row, title: `${howSubmitted(before)}, to run later`, next: event.runAt };
    case 'JobWaiting':
      return {
        ...row,
        title: `${howSubmitted(before)}, and held back ${HELD_BY[event.reason] ?? ''}`.trim(),
      };
    case 'JobEdited':
      return { ...row, title: whatChanged(event.changed) };
    case 'JobQueued':
      return { ...row, title: whyQueued(before) };
    case 'JobStarted': {
      const { supersedes } = event;
      const error = supersedes === null ? null : event.job.error;
      return {
        ...row,
        tone: supersedes === null ? 'busy' : 'warn',
        title:
          supersedes === null
            ? `Attempt ${event.attempt} started`
            : `Attempt ${event.attempt} started in place of attempt ${supersedes}, whose worker was lost`,
        worker: event.workerId,
        failure: error?.attempt === supersedes ? error : null,
      };
    }
    case 'JobFailed':
      return {
        ...row,
        tone: 'warn',
        title: `Attempt ${event.error.attempt} failed`,
        failure: event.error,
        next: event.nextAttemptAt,
      };
    case 'JobDeadLetter':
      return {
        ...row,
        tone: 'bad',
        title: event.error.retryable
          ? `Attempt ${event.error.attempt} failed, and no other is left`
          : `Attempt ${event.error.attempt} failed for good`,
        failure: event.error,
      };
    case 'JobCompleted':
      return { ...row, tone: 'good', title: 'Completed', ran: Math.max(0, event.durationMs) };
    case 'JobCancelled':
      return { ...row, title: 'Cancelled', why: event.job.cancelReason };
  }
}

/** What a creation and a retry by hand have to wait for. */
const HELD_BY: Partial<Record<WaitReason, string>> = {
  LIMIT: 'by a limit',
  DEPENDENCY: 'until other jobs have ended',
  SCHEDULED: 'until its time comes',
};

function howSubmitted(before: Happened | null): string {
  if (before === null) return 'Created';
  return isEnd(before) ? 'Retried by hand' : 'Queued again';
}

const CHANGED: Record<string, string> = {
  runAt: 'when it runs',
  priority: 'its priority',
  payload: 'its payload',
  tags: 'its tags',
};

/** `Changed: its priority and its tags`. A change of nothing is one of the gate alone. */
function whatChanged(changed: readonly string[]): string {
  if (changed.length === 0) return 'Held back again';
  const names = changed.map((name) => CHANGED[name] ?? name);
  const last = names.pop();
  return `Changed: ${names.length > 0 ? `${names.join(', ')} and ` : ''}${last}`;
}

function whyQueued(before: Happened | null): string {
  if (before === null) return 'Created';
  if (before.__typename === 'JobWaiting') return 'Its turn came';
  if (before.__typename === 'JobEdited') return 'Queued again';
  const phase = PHASE[before.__typename];
  if (phase === 'held back') return 'Its time came';
  if (phase === 'running') return 'Handed back by its worker, which shut down; the attempt does not count';
  if (phase === 'ended') return 'Retried by hand';
  // Without a limit, the next attempt begins by itself.
  if (phase === 'backing off') return 'Its turn came';
  return 'Queued';
}

const OUTCOME: Record<CancellationOutcome, { title: string; tone: Tone }> = {
  STOPPED: { title: 'The handler stopped', tone: 'idle' },
  KILLED: { title: 'The process of the handler was killed', tone: 'idle' },
  IGNORED: {
    title: 'The handler did not stop and was given up; it may still be running',
    tone: 'bad',
  },
  FINISHED: {
    title: 'The handler had ended by itself; what it returned was discarded',
    tone: 'idle',
  },
};

/** What became of a cancellation. What has no time of its own is as late as the cancellation itself. */
function receiptsOf({ deliveredAt, endedAt, outcome, workerId }: Receipts, cancelledAt: string): Row[] {
  const row = {
    kind: 'happened' as const,
    actor: null,
    failure: null,
    next: null,
    ran: null,
    worker: workerId,
    why: null,
  };
  const rows: Row[] = [];
  if (deliveredAt)
    rows.push({
      ...row,
      key: 'delivered',
      at: deliveredAt,
      tone: 'idle',
      title: 'The handler was told to stop',
    });
  if (outcome)
    rows.push({ ...row, ...OUTCOME[outcome], key: 'outcome', at: endedAt ?? deliveredAt ?? cancelledAt });
  return rows;
}

/** How long jobs usually run: half of those given no longer than `half`, nearly all no longer than `most`. */
export interface Usual {
  half: number;
  most: number;
  /** How many runs that is said of. */
  runs: number;
}

/** Fewer runs than that say nothing. */
const FEWEST_RUNS = 3;

/** What is usual of these runs, in milliseconds; null if they are too few to say. */
export function usualOf(durations: readonly (number | null)[]): Usual | null {
  const sorted = durations.filter((one) => one !== null).sort((a, b) => a - b);
  if (sorted.length < FEWEST_RUNS) return null;
  const at = (part: number) => sorted[Math.ceil(part * sorted.length) - 1] as number;
  return { half: at(0.5), most: at(0.95), runs: sorted.length };
}
