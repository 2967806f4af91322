// The first page: what needs a person, how the queues stand, and what the workers do.

import { memo, Suspense, useEffect, useMemo, useRef, useState } from 'react';
import { useClient, useSubscription } from 'urql';
import { catchUpWithStore, connections, sayCaughtUp, sentence } from '../../api/connection';
import {
  LargestDeadLetterGroupsDocument,
  QueueFiguresDocument,
  type QueueFiguresSubscription,
  QueueHistoriesDocument,
  WorkersDocument,
} from '../../api/generated';
import { type ListedJob, useJobList } from '../../api/jobList';
import { can, canSteerQueues, seesAll } from '../../api/session';
import { count, many, span } from '../../format';
import { lazily } from '../../parts/lazily';
import { Bar, JobLink } from '../../parts/job';
import { Problem } from '../../parts/Problem';
import { Age, useEachSecond } from '../../parts/time';
import { href } from '../../route';
import {
  attentionOf,
  countOf,
  differenceOfQueues,
  type Group,
  hourOf,
  limitsSaid,
  type Minute,
  type Queue,
  type Worker,
} from './figures';
import { QueueLimits } from './QueueLimits';
import { QueuePause } from './QueuePause';
import './now.css';

const Sparkline = lazily(() => import('../../parts/Sparkline'));

export function Now() {
  const [{ data: figures, error: figuresError }] = useQueues();
  const [{ data: histories, error: historiesError }] = useSubscription({ query: QueueHistoriesDocument });
  const [{ data: heard, error: workersError }] = useSubscription({ query: WorkersDocument });
  const { list: running, problem } = useJobList('Running jobs', { status: ['PROCESSING'] }, null, 100, 4);
  const refused = figuresError ?? historiesError ?? workersError;
  const live = useMemo(() => new Map(running?.jobs.map((job) => [job.id, job])), [running]);
  const queues = figures?.queuesChanged;
  const groups = useDeadLetterGroups(queues);
  const minutes = useMemo(
    () => new Map(histories?.queuesChanged.map(({ name, history }) => [name, history])),
    [histories],
  );
  const workers = heard?.workersChanged;
  return (
    <>
      <h1>Now</h1>
      {(refused || problem) && <Problem>{refused ? sentence(refused) : problem}</Problem>}
      {queues ? (
        <Attention queues={queues} workers={workers ?? []} groups={groups} />
      ) : (
        <p role="status">Asking for the queues…</p>
      )}
      {queues && <Queues queues={queues} minutes={minutes} />}
      {groups.length > 0 && <DeadLetterGroups groups={groups} />}
      {!isNarrow() && workers && (
        <Workers workers={workers} live={live} all={(running?.totalCount ?? 101) <= 100} />
      )}
    </>
  );
}

/** Whether the viewer sees some jobs only, by a tenant, limits or scopes, and is shown no workers for that reason. */
const isNarrow = (): boolean => !can('READ') || !seesAll();

function useQueues() {
  const before = useRef<{ queues: readonly Queue[]; connection: number } | null>(null);
  useEffect(
    () =>
      catchUpWithStore(
        () => before.current?.queues ?? null,
        (then) => differenceOfQueues(then, before.current?.queues ?? then),
      ),
    [],
  );
  return useSubscription<QueueFiguresSubscription, QueueFiguresSubscription>(
    { query: QueueFiguresDocument },
    (_, data) => {
      const queues = data.queuesChanged;
      const known = before.current;
      if (known && known.connection !== connections.value)
        sayCaughtUp(differenceOfQueues(known.queues, queues));
      before.current = { queues, connection: connections.value };
      return data;
    },
  );
}

const ASK_AGAIN_AFTER = 3000;

/** The largest groups of dead letters, asked for again when their number changes, at most every few seconds. */
function useDeadLetterGroups(queues: readonly Queue[] | undefined): readonly Group[] {
  const client = useClient();
  const [groups, setGroups] = useState<readonly Group[]>([]);
  const dead = queues?.reduce((sum, queue) => sum + countOf(queue, 'DEAD_LETTER'), 0);
  const asked = useRef(0);
  useEffect(() => {
    if (dead === undefined) return;
    if (dead === 0) return setGroups([]);
    let over = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    async function ask(): Promise<void> {
      asked.current = performance.now();
      const { data } = await client.query(LargestDeadLetterGroupsDocument, {}).toPromise();
      if (over) return;
      if (data) setGroups(data.deadLetterGroups);
      else timer = setTimeout(ask, ASK_AGAIN_AFTER);
    }
    timer = setTimeout(
      ask,
      asked.current && Math.max(0, asked.current + ASK_AGAIN_AFTER - performance.now()),
    );
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [client, dead]);
  return groups;
}

function Attention(known: {
  queues: readonly Queue[];
  workers: readonly Worker[];
  groups: readonly Group[];
}) {
  useEachSecond();
  const found = attentionOf(known.queues, known.workers, known.groups);
  return (
    <section className="panel attention" aria-labelledby="attention" data-calm={!found.length || undefined}>
      <h2 id="attention">{found.length ? 'Needs attention' : 'Nothing needs attention'}</h2>
      {found.length > 0 && (
        <ul>
          {found.map(({ key, text, address }) => (
            <li key={key}>
              {text} {address && <a href={address}>Show them</a>}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

const COLUMNS = [
  ['WAITING', 'Held back'],
  ['QUEUED', 'Queued'],
  ['PROCESSING', 'Running'],
  ['RETRYING', 'Retrying'],
  ['SCHEDULED', 'Scheduled'],
  ['DEAD_LETTER', 'Dead'],
  ['COMPLETED', 'Completed'],
] as const;

function Queues({ queues, minutes }: { queues: readonly Queue[]; minutes: Map<string, readonly Minute[]> }) {
  const isSteered =
    canSteerQueues() || queues.some(({ paused, limits }) => paused || limitsSaid(limits).length > 0);
  return (
    <section className="panel" aria-labelledby="queues">
      <h2 id="queues">Queues</h2>
      <div className="scrolls">
        <table>
          <thead>
            <tr>
              <th scope="col">Queue</th>
              {COLUMNS.map(([status, name]) => (
                <th key={status} scope="col" className="number">
                  {name}
                </th>
              ))}
              <th scope="col">Oldest waits</th>
              <th scope="col" className="number">
                Workers
              </th>
              <th scope="col" className="wraps">
                In and out, last hour
              </th>
              <th scope="col">Start delay</th>
              {isSteered && <th scope="col">Pause, limits</th>}
            </tr>
          </thead>
          <tbody>
            {queues.map((queue) => (
              <QueueRow
                key={queue.name}
                queue={queue}
                minutes={minutes.get(queue.name)}
                isSteered={isSteered}
              />
            ))}
          </tbody>
        </table>
      </div>
      {queues.length === 0 && <p>There are no queues yet.</p>}
    </section>
  );
}

function QueueRow(shown: { queue: Queue; minutes: readonly Minute[] | undefined; isSteered: boolean }) {
  const { queue, minutes, isSteered } = shown;
  const { name, oldestQueuedAt } = queue;
  return (
    <tr>
      <th scope="row">
        <a href={href('jobs', { queue: name })}>{name}</a>
      </th>
      {COLUMNS.map(([status]) => {
        const number = countOf(queue, status);
        return (
          <td
            key={status}
            className="number"
            data-alarming={(status === 'DEAD_LETTER' && number > 0) || undefined}
          >
            {number ? <a href={href('jobs', { queue: name, status })}>{count(number)}</a> : '0'}
          </td>
        );
      })}
      <td>{oldestQueuedAt ? <Age from={oldestQueuedAt} /> : '–'}</td>
      <td className="number" data-alarming={(!queue.workers && countOf(queue, 'QUEUED') > 0) || undefined}>
        {queue.workers}
      </td>
      <td>
        <Flow minutes={minutes} />
      </td>
      <td>
        <Delay minutes={minutes} />
      </td>
      {isSteered && (
        <td>
          <div className="steering">
            <QueuePause queue={queue} />
            <QueueLimits queue={queue} />
          </div>
        </td>
      )}
    </tr>
  );
}

/** The values, or none where all are zero: a line along the bottom would hide the others. */
const somewhere = (values: (number | null)[]) =>
  values.some((value) => value) ? values : values.map(() => null);

const Flow = memo(function Flow({ minutes }: { minutes: readonly Minute[] | undefined }) {
  const series = useMemo(
    () => [
      { colour: '--busy', values: hourOf(minutes ?? [], ({ created }) => created), bars: true },
      {
        colour: '--bad',
        values: somewhere(hourOf(minutes ?? [], ({ deadLettered, failed }) => deadLettered + failed)),
      },
      { colour: '--good', values: hourOf(minutes ?? [], ({ completed }) => completed) },
    ],
    [minutes],
  );
  if (!minutes?.length) return '–';
  const sum = (value: (minute: Minute) => number) =>
    minutes.reduce((total, minute) => total + value(minute), 0);
  const said = `${count(sum(({ created }) => created))} in, ${count(sum(({ completed }) => completed))} out`;
  const failures = sum(({ deadLettered, failed }) => deadLettered + failed);
  return (
    <div className="flow">
      <Suspense fallback={<div className="sparkline" />}>
        <Sparkline
          series={series}
          label="Jobs created, completed and failed in each minute of the last hour"
        />
      </Suspense>
      <span>
        {said}
        {failures > 0 && `, ${many(failures, 'failure')}`}
      </span>
    </div>
  );
});

const Delay = memo(function Delay({ minutes }: { minutes: readonly Minute[] | undefined }) {
  const series = useMemo(
    () => [
      {
        colour: '--warn',
        values: hourOf(minutes ?? [], ({ startDelayP95Ms }) => startDelayP95Ms),
        bars: true,
      },
      { colour: '--idle', values: hourOf(minutes ?? [], ({ startDelayP50Ms }) => startDelayP50Ms) },
    ],
    [minutes],
  );
  const last = minutes?.findLast(({ startDelayP95Ms }) => startDelayP95Ms !== null);
  if (!last) return '–';
  return (
    <div className="flow">
      <Suspense fallback={<div className="sparkline" />}>
        <Sparkline
          series={series}
          label="How long jobs waited for a worker in each minute of the last hour"
        />
      </Suspense>
      <span title="Of the last minute in which jobs started">
        half {span(last.startDelayP50Ms ?? 0)}, 95 % {span(last.startDelayP95Ms ?? 0)}
      </span>
    </div>
  );
});

function DeadLetterGroups({ groups }: { groups: readonly Group[] }) {
  return (
    <section className="panel" aria-labelledby="groups">
      <h2 id="groups">Dead letters that failed alike</h2>
      <ul className="groups">
        {groups.map(({ key, type, errorType, message, count: jobs, lastAt }) => (
          <li key={key}>
            <a href={href('dead-letters', { group: key })}>{many(jobs, 'job')}</a> of <bdi>{type}</bdi>:{' '}
            <bdi className="error-type">{errorType}</bdi> <bdi>{message}</bdi>{' '}
            <span className="hint">
              last <Age from={lastAt} suffix=" ago" />
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Workers(shown: { workers: readonly Worker[]; live: Map<string, ListedJob>; all: boolean }) {
  const { workers, live, all } = shown;
  return (
    <section aria-labelledby="workers">
      <h2 id="workers">Workers</h2>
      {workers.length === 0 && <p className="panel">No worker runs. Start one with: gql-jobs worker</p>}
      <div className="workers">
        {workers.map((worker) => (
          <WorkerPanel key={worker.id} worker={worker} live={live} all={all} />
        ))}
      </div>
    </section>
  );
}

function WorkerPanel({ worker, live, all }: { worker: Worker; live: Map<string, ListedJob>; all: boolean }) {
  const { id, hostname, queues, concurrency, startedAt, stale, lastSeenAt } = worker;
  // The list of running jobs is pushed more often than workers speak of themselves: it knows which have ended since, and
  // which are new.
  const said = worker.jobs.filter((job) => !all || live.has(job.id));
  const own = [...live.values()].filter(
    (job) => job.workerId === id && !said.some((other) => other.id === job.id),
  );
  const jobs = [...said.map((job) => live.get(job.id) ?? job), ...own];
  return (
    <article className="panel worker" aria-label={`Worker ${id}`} data-lost={stale || undefined}>
      <h3>
        <bdi>{id}</bdi>
      </h3>
      <p className="hint">
        on <bdi>{hostname}</bdi>, serves <bdi>{queues.join(', ')}</bdi>, up for <Age from={startedAt} />
      </p>
      {stale ? (
        <p className="silent">
          Silent for <Age from={lastSeenAt} />
        </p>
      ) : (
        <p>
          {jobs.length} of {concurrency} slots busy
        </p>
      )}
      <ul>
        {jobs.map((job) => (
          <li key={job.id}>
            <JobLink id={job.id} /> <bdi>{job.type}</bdi>
            {job.startedAt && (
              <span className="hint">
                {' '}
                <Age from={job.startedAt} />
              </span>
            )}
            <Bar progress={job.progress} label={`Progress of job ${job.id}`} />
          </li>
        ))}
      </ul>
    </article>
  );
}
