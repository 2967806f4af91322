// A bulk action from its plan to its end: how many jobs it is about, a trial with one of them, how far it is, and a way
// to stop it. The server does the work; this asks for it and watches.

import type { Client, CombinedError } from '@urql/core';
import { type FormEvent, type ReactNode, useEffect, useId, useRef, useState } from 'react';
import { useClient } from 'urql';
import { subscribe } from 'wonka';
import { sentence } from '../api/connection';
import {
  type BulkAction,
  BulkProgressDocument,
  type BulkProgressSubscription,
  type BulkRunStateFragment,
  type JobFilter,
  PlanBulkDocument,
  type PlanBulkMutation,
  RunBulkDocument,
  StopBulkDocument,
} from '../api/generated';
import { can } from '../api/session';
import { count, many } from '../format';
import { Dialog } from './Dialog';
import { JobLink, StatusBadge } from './job';
import { Problem } from './Problem';
import { Age } from './time';
import './BulkRun.css';

type Plan = PlanBulkMutation['planBulk'];
type Run = BulkRunStateFragment;

const WORDS: Record<BulkAction, { verb: string; going: string; past: string; fits: string }> = {
  RETRY: {
    verb: 'Retry',
    going: 'Retrying',
    past: 'retried',
    fits: 'a dead letter or cancelled',
  },
  CANCEL: { verb: 'Cancel', going: 'Cancelling', past: 'cancelled', fits: 'waiting or running' },
  DELETE: { verb: 'Delete', going: 'Deleting', past: 'deleted', fits: 'a job that does not run' },
};

/** Whether whoever looks may do that to the jobs that they see. */
export const mayAct = (action: BulkAction): boolean => can(action === 'DELETE' ? 'OPERATE' : 'CONTROL');

/** How many of a plan's jobs are left after its runs: what was done and what had moved is not come to again. */
export const leftOf = (planned: number, runs: readonly Pick<Run, 'done' | 'skipped'>[]): number =>
  Math.max(0, planned - runs.reduce((sum, { done, skipped }) => sum + done + skipped, 0));

/** What has become of a run's jobs so far: `3 cancelled, 1 skipped`. */
export function outcome(
  action: BulkAction,
  { done, skipped, failed }: Omit<Run, 'id' | 'state' | 'planned'>,
) {
  const parts = [`${count(done)} ${WORDS[action].past}`];
  if (skipped) parts.push(`${count(skipped)} skipped, which had moved meanwhile`);
  if (failed) parts.push(`${count(failed)} failed and left as they were`);
  return parts.join(', ');
}

interface Target {
  action: BulkAction;
  /** Which jobs: as of the moment the button is pressed. */
  filter?: JobFilter;
  /** Dead letters of the group with this key alone. */
  deadLetterGroup?: string;
}

interface Going {
  plan: Plan;
  runs: readonly Run[];
}
/** What goes on while its button is not on the page, by what is acted on: who comes back finds it, and can stop it. */
const goingOn = new WeakMap<Client, Map<string, Going>>();

function goingOnFor(client: Client): Map<string, Going> {
  const known = goingOn.get(client) ?? new Map<string, Going>();
  goingOn.set(client, known);
  return known;
}

/** A plan and its runs, which are followed until they end, whether or not they are shown. */
function useBulk({ action, filter, deadLetterGroup }: Target) {
  const client = useClient();
  const key = JSON.stringify([action, filter, deadLetterGroup]);
  const left = goingOnFor(client).get(key);
  const plannedFor = useRef(key);
  const [plan, setPlan] = useState<Plan | null>(left?.plan ?? null);
  const [runs, setRuns] = useState<readonly Run[]>(left?.runs ?? []);
  const [problem, setProblem] = useState('');
  const [busy, setBusy] = useState(false);
  const run = runs.at(-1);
  const running = run?.state === 'RUNNING' ? run.id : null;

  const note = (state: Run) =>
    setRuns((known) =>
      known.some(({ id }) => id === state.id)
        ? known.map((one) => (one.id === state.id ? state : one))
        : [...known, state],
    );

  useEffect(() => {
    if (running !== null && plan) goingOnFor(client).set(plannedFor.current, { plan, runs });
    else goingOnFor(client).delete(plannedFor.current);
  }, [client, running, plan, runs]);

  useEffect(() => {
    if (running === null) return;
    return subscribe<{ data?: BulkProgressSubscription; error?: CombinedError }>(({ data, error }) => {
      if (error) setProblem(sentence(error));
      if (data) note(data.bulkProgress);
    })(client.subscription(BulkProgressDocument, { id: running })).unsubscribe;
  }, [client, running]);

  async function ask<T>(
    answer: Promise<{ data?: T; error?: CombinedError }>,
    isChange = true,
  ): Promise<T | undefined> {
    setProblem('');
    setBusy(true);
    const { data, error } = await answer;
    setBusy(false);
    if (error) setProblem(sentence(error, isChange));
    return data;
  }

  return {
    plan,
    runs,
    run,
    problem,
    busy,
    running: running !== null,
    async begin() {
      plannedFor.current = key;
      setPlan(null);
      setRuns([]);
      const variables = { action, filter: filter ?? null, deadLetterGroup: deadLetterGroup ?? null };
      const data = await ask(client.mutation(PlanBulkDocument, variables).toPromise(), false);
      if (data) setPlan(data.planBulk);
    },
    async start(token: string, maxPerSecond: number | null, first: number | null) {
      const data = await ask(client.mutation(RunBulkDocument, { token, maxPerSecond, first }).toPromise());
      if (data) note(data.runBulk);
    },
    async stop(id: string) {
      const data = await ask(client.mutation(StopBulkDocument, { id }).toPromise());
      if (data) note(data.stopBulk);
    },
  };
}

/**
 * A button that plans a bulk action and opens a dialog, in which it is run, watched and stopped.
 *
 * It is absent without the scope CONTROL. While a run goes on, the button says how far it is and opens the dialog again.
 */
export function BulkRun({
  title,
  children,
  className,
  disabled,
  onPlan,
  outcome,
  ...target
}: Target & {
  /** What is acted on, as the heading of the dialog: “Cancel all jobs that match”. */
  title: string;
  /** What stands on the button; the title where it is left out. */
  children?: ReactNode;
  className?: string;
  disabled?: boolean;
  /** Called before the jobs are counted. */
  onPlan?: () => void;
  /** What is known of the jobs that the action was done to, shown below the progress of a run. */
  outcome?: ReactNode;
}) {
  const [open, setOpen] = useState(false);
  /** The run whose end was shown. */
  const [seen, setSeen] = useState('');
  const bulk = useBulk(target);
  if (!mayAct(target.action)) return null;
  const { going } = WORDS[target.action];

  function show(): void {
    setOpen(true);
    if (bulk.running) return;
    onPlan?.();
    void bulk.begin();
  }
  function hide(): void {
    setOpen(false);
    if (!bulk.running) setSeen(bulk.run?.id ?? '');
  }

  const run = bulk.running && bulk.run;
  return (
    <>
      <button
        type="button"
        className={className ?? (target.action === 'RETRY' ? undefined : 'danger')}
        disabled={disabled && !run}
        onClick={show}
      >
        {run
          ? `${going}… ${count(run.done + run.skipped + run.failed)} of ${count(run.planned)}`
          : (children ?? title)}
      </button>
      <span className="hint" role="status">
        {!open && bulk.run && !bulk.running && bulk.run.id !== seen && ended(target.action, bulk.run)}
      </span>
      {open && (
        <Dialog title={title} onClose={hide}>
          {bulk.problem && <Problem>{bulk.problem}</Problem>}
          {bulk.plan ? (
            <Planned action={target.action} plan={bulk.plan} bulk={bulk} outcome={outcome} onClose={hide} />
          ) : bulk.problem ? (
            <div className="row">
              <button type="button" disabled={bulk.busy} onClick={() => void bulk.begin()}>
                Try again
              </button>
            </div>
          ) : (
            <p role="status">{`Counting the jobs that can be ${WORDS[target.action].past}…`}</p>
          )}
        </Dialog>
      )}
    </>
  );
}

function Planned({
  action,
  plan,
  bulk,
  outcome: known,
  onClose,
}: {
  action: BulkAction;
  plan: Plan;
  bulk: ReturnType<typeof useBulk>;
  outcome: ReactNode;
  onClose: () => void;
}) {
  const { verb, past, fits } = WORDS[action];
  const { run, running, runs, busy } = bulk;
  const [rate, setRate] = useState('');
  const hint = useId();
  const left = leftOf(plan.count, run && running ? runs.slice(0, -1) : runs);
  const maxPerSecond = rate.trim() === '' ? null : Number(rate);
  const isRate = maxPerSecond === null || (maxPerSecond > 0 && maxPerSecond <= 1000);

  if (plan.count === 0)
    return (
      <>
        <p role="status">
          None of these jobs can be {past}: none is {fits}.
        </p>
        <div className="row">
          <button type="button" onClick={onClose}>
            Close
          </button>
        </div>
      </>
    );

  function start(event: FormEvent, first: number | null): void {
    event.preventDefault();
    if (isRate) void bulk.start(plan.token, maxPerSecond, first);
  }

  const over = left === 0 && !running;
  // What Enter does, and what stands out, is the careful one: retrying what still fails costs a system a lot.
  const trialFirst = action === 'RETRY' && !run && left > 1;
  return (
    <form onSubmit={(event) => start(event, trialFirst ? 1 : null)}>
      <p>
        {many(plan.count, 'job')} can be {past}
        {plan.count === 1 ? '' : ', the oldest first'}. Those that move before their turn are skipped, and no
        others come in.
      </p>
      {!run && <Sample plan={plan} />}
      {run && <Progress action={action} run={run} isTrial={run.planned < plan.count && run.planned === 1} />}
      {run && known}
      {run && !known && !running && run.planned === 1 && plan.count > 1 && plan.sample[0] && (
        <p>
          Look at the one that was tried: <JobLink id={plan.sample[0].id} />
        </p>
      )}
      {!running && !over && (
        <label className="field bulk-rate">
          Jobs per second at most
          <input
            inputMode="decimal"
            value={rate}
            placeholder="no limit"
            aria-invalid={!isRate}
            aria-describedby={hint}
            onChange={({ target }) => setRate(target.value)}
          />
          <span className={isRate ? 'hint' : 'field-problem'} id={hint}>
            {isRate ? 'Up to 1000; empty means as fast as it goes.' : 'A number above 0, up to 1000.'}
          </span>
        </label>
      )}
      <div className="row">
        {running && run ? (
          <>
            <button type="button" className="danger" disabled={busy} onClick={() => void bulk.stop(run.id)}>
              Stop
            </button>
            <button type="button" className="quiet" onClick={onClose}>
              Close, and let it go on
            </button>
          </>
        ) : over ? (
          <button type="button" className="primary" onClick={onClose}>
            Close
          </button>
        ) : (
          <>
            {trialFirst && (
              <button type="submit" className="primary" disabled={busy || !isRate}>
                Try with one first
              </button>
            )}
            <button
              type={trialFirst ? 'button' : 'submit'}
              className={trialFirst ? undefined : 'primary'}
              disabled={busy || !isRate}
              onClick={trialFirst ? (event) => start(event, null) : undefined}
            >
              {run ? `Go on: ${verb.toLowerCase()} the other ${count(left)}` : `${verb} ${many(left, 'job')}`}
            </button>
            {left > 1 && !trialFirst && (
              <button type="button" disabled={busy || !isRate} onClick={(event) => start(event, 1)}>
                {run ? 'Try another one' : 'Try with one first'}
              </button>
            )}
            <button type="button" className="quiet" onClick={onClose}>
              Close
            </button>
          </>
        )}
      </div>
    </form>
  );
}

function Sample({ plan: { sample, count: planned } }: { plan: Plan }) {
  return (
    <section className="bulk-sample">
      <h3>{planned > sample.length ? `The first ${sample.length}` : 'These'}</h3>
      <ul>
        {sample.map(({ id, type, status, createdAt, tags }) => (
          <li key={id}>
            <StatusBadge status={status} /> <JobLink id={id} /> <span>{type}</span>{' '}
            <span className="hint">
              <Age from={createdAt} suffix=" ago" />
              {tags.length > 0 && ` · ${tags.join(', ')}`}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

const ENDED: Record<Run['state'], string> = {
  RUNNING: '',
  DONE: 'Done',
  STOPPED: 'Stopped; the rest was left alone',
  INTERRUPTED: 'Interrupted: the server process that did it has ended. Go on to do the rest',
};

const ended = (action: BulkAction, run: Run): string => `${ENDED[run.state]}. ${outcome(action, run)}.`;

function Progress({ action, run, isTrial }: { action: BulkAction; run: Run; isTrial: boolean }) {
  const seen = run.done + run.skipped + run.failed;
  const share = run.planned ? seen / run.planned : 1;
  const { going } = WORDS[action];
  const said = outcome(action, run);
  return (
    <section className="bulk-progress" aria-label="Progress">
      <span
        className="bar"
        role="progressbar"
        aria-label={`${going} ${many(run.planned, 'job')}`}
        aria-valuenow={Math.floor(share * 100)}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuetext={`${seen} of ${run.planned}`}
      >
        <span style={{ transform: `scaleX(${share})` }} />
      </span>
      {run.state === 'RUNNING' ? (
        <p>
          {count(seen)} of {count(run.planned)}: {said}.
        </p>
      ) : null}
      {/* Said once, when it has ended: a count that is read out four times a second drowns everything else. */}
      <p role="status">{run.state !== 'RUNNING' && `${isTrial ? 'Trial: ' : ''}${ended(action, run)}`}</p>
    </section>
  );
}
