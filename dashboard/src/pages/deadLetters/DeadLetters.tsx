// Dead letters in groups of those that failed alike. A group is repaired here: look at one, edit a copy of it or mend its
// cause, try one, then the rest.

import type { Client, CombinedError } from '@urql/core';
import { useEffect, useRef, useState } from 'react';
import { useClient } from 'urql';
import { subscribe } from 'wonka';
import { serverNow } from '../../api/clock';
import { sentence } from '../../api/connection';
import {
  DeadLetterGroupsDocument,
  type DeadLetterGroupsQuery,
  DeadLetterInFullDocument,
  type DeadLetterInFullQuery,
  type JobFilter,
  WhatBecomesOfRetriedDocument,
  type WhatBecomesOfRetriedSubscription,
} from '../../api/generated';
import { useJobList } from '../../api/jobList';
import { can, session } from '../../api/session';
import { count, many, short } from '../../format';
import { BulkRun } from '../../parts/BulkRun';
import { FollowedJob } from '../../parts/FollowedJob';
import { JobLink } from '../../parts/job';
import { Problem } from '../../parts/Problem';
import { Age, Moment } from '../../parts/time';
import { href } from '../../route';
import { noted, type Retried, tally } from './retried';
import './deadLetters.css';

type Group = DeadLetterGroupsQuery['deadLetterGroups'][number];

const MOST_GROUPS = 100;
const ASK_AGAIN_AFTER = 2000;
const DEAD: JobFilter = { status: ['DEAD_LETTER'] };
const LATEST = { field: 'FINISHED_AT', direction: 'DESC' } as const;

export default function DeadLetters({ parameters }: { parameters: URLSearchParams }) {
  const key = parameters.get('group');
  const { groups, total, problem } = useGroups();
  const heading = useRef<HTMLHeadingElement>(null);
  const before = useRef(key);
  useEffect(() => {
    if (before.current !== key) heading.current?.focus();
    before.current = key;
  }, [key]);
  return (
    <>
      <h1 ref={heading} tabIndex={-1}>
        Dead letters
      </h1>
      {problem && <Problem>{problem}</Problem>}
      {!groups && !problem && <p role="status">Looking for dead letters…</p>}
      {key !== null && groups && (
        <OneGroup key={key} groupKey={key} group={groups.find((one) => one.key === key)} />
      )}
      {key === null && groups?.length === 0 && (
        <section className="panel nothing-dead">
          <h2>Nothing is dead</h2>
          <p>
            No job has failed for good. Those that fail are tried again by themselves; what cannot be helped
            that way is shown here when it happens.
          </p>
        </section>
      )}
      {key === null && groups && groups.length > 0 && <Groups groups={groups} total={total} />}
    </>
  );
}

/** The groups, asked for again when dead letters come or go, at most every two seconds. */
function useGroups(): { groups: readonly Group[] | null; total: number; problem: string | null } {
  const client = useClient();
  const { list, problem: unwatched } = useJobList('Dead letters', DEAD, LATEST, 1, 0.5);
  const [groups, setGroups] = useState<readonly Group[] | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    if (!list) return;
    let over = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    async function ask(): Promise<void> {
      const { data, error } = await client.query(DeadLetterGroupsDocument, {}).toPromise();
      if (over) return;
      setProblem(error ? sentence(error) : null);
      if (data) setGroups(data.deadLetterGroups);
      else timer = setTimeout(ask, ASK_AGAIN_AFTER);
    }
    void ask();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [client, list]);
  return { groups, total: list?.totalCount ?? 0, problem: problem ?? unwatched };
}

function Groups({ groups, total }: { groups: readonly Group[]; total: number }) {
  return (
    <>
      <p>
        {many(total, 'job')} failed for good, grouped by how they failed
        {groups.length === MOST_GROUPS && `: the ${MOST_GROUPS} largest groups`}.
      </p>
      <ul className="dead-groups">
        {groups.map((group) => (
          <li key={group.key} className="panel">
            <strong className="dead-count">
              {count(group.count)}
              <span className="visually-hidden"> {group.count === 1 ? 'job' : 'jobs'} of type</span>
            </strong>
            <div>
              <a href={href('dead-letters', { group: group.key })}>
                <bdi>{group.type}</bdi>: <bdi className="error-type">{group.errorType}</bdi>
              </a>
              <p className="dead-message">
                <bdi>{group.message}</bdi>
              </p>
              <p className="hint">
                first <Age from={group.firstAt} suffix=" ago" />, last{' '}
                <Age from={group.lastAt} suffix=" ago" />
              </p>
            </div>
          </li>
        ))}
      </ul>
    </>
  );
}

function OneGroup({ groupKey, group: present }: { groupKey: string; group: Group | undefined }) {
  // A group is gone when all of its jobs were retried; what has become of them is still looked at.
  const known = useRef(present);
  if (present) known.current = present;
  const group = known.current;
  // Others come while this one is read.
  const sample = useRef(present?.sample.id);
  sample.current ??= present?.sample.id;
  const back = (
    <p>
      <a href={href('dead-letters')}>All groups</a>
    </p>
  );
  if (!group)
    return (
      <>
        {back}
        <Problem>There is no such group (any more): its jobs were retried, or have expired.</Problem>
      </>
    );
  return (
    <>
      {back}
      <section className="panel" aria-labelledby="dead-group">
        <h2 id="dead-group">
          <bdi>{group.type}</bdi>: <bdi className="error-type">{group.errorType}</bdi>
        </h2>
        <p className="dead-message">
          <bdi>{group.message}</bdi>
        </p>
        <dl className="facts">
          <div>
            <dt>Dead letters now</dt>
            <dd>{count(present?.count ?? 0)}</dd>
          </div>
          <div>
            <dt>First</dt>
            <dd>
              <Age from={group.firstAt} suffix=" ago" />
            </dd>
          </div>
          <div>
            <dt>Last</dt>
            <dd>
              <Age from={group.lastAt} suffix=" ago" />
            </dd>
          </div>
        </dl>
      </section>
      <div className="dead-group" data-repair={can('CONTROL') || undefined}>
        {sample.current && <InFull id={sample.current} />}
        {can('CONTROL') && <Repair groupKey={groupKey} group={group} left={present?.count ?? 0} />}
        <Others group={group} />
      </div>
    </>
  );
}

/** One of the group, with all that it says. */
function InFull({ id }: { id: string }) {
  const client = useClient();
  const [job, setJob] = useState<DeadLetterInFullQuery['job']>(null);
  const [problem, setProblem] = useState('');
  useEffect(() => {
    let over = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    async function ask(): Promise<void> {
      const { data, error } = await client.query(DeadLetterInFullDocument, { id }).toPromise();
      if (over) return;
      setProblem(error ? sentence(error) : '');
      if (data) setJob(data.job);
      else timer = setTimeout(ask, ASK_AGAIN_AFTER);
    }
    void ask();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [client, id]);
  return (
    <section className="panel dead-sample" aria-labelledby="dead-sample">
      <div className="row dead-head">
        <h2 id="dead-sample">
          One of them: <JobLink id={id} />
        </h2>
        {can('CREATE') && (
          <a className="button" href={href('new', { from: id })}>
            Edit a copy and run it<span className="visually-hidden"> of job {short(id)}</span>
          </a>
        )}
      </div>
      {problem && <Problem>{problem}</Problem>}
      {job && (
        <>
          <p className="hint">
            Created <Moment at={job.createdAt} />
            {job.finishedAt && (
              <>
                , dead since <Moment at={job.finishedAt} />
              </>
            )}
            , after {many(job.attempt, 'attempt')}
            {job.tags.length > 0 && (
              <>
                ; tags: <bdi>{job.tags.join(', ')}</bdi>
              </>
            )}
          </p>
          {job.error && (
            <>
              <h3>
                Error <bdi className="error-type">{job.error.type}</bdi>
              </h3>
              <Text name="Error" text={job.error.message} />
            </>
          )}
          <h3>Payload</h3>
          <Text name="Payload" text={job.payloadPreview} />
        </>
      )}
    </section>
  );
}

const Text = ({ name, text }: { name: string; text: string }) => (
  <section className="dead-text" aria-label={name}>
    <pre>{text}</pre>
  </section>
);

/** The newest dead letters of the type that ended with the same kind of error. */
function Others({ group }: { group: Group }) {
  const filter: JobFilter = { ...DEAD, type: [group.type] };
  const { list, problem } = useJobList('Dead letters of the type', filter, LATEST, 20, 2);
  const jobs = list?.jobs.filter(({ error }) => error?.type === group.errorType) ?? [];
  if (problem) return <Problem>{problem}</Problem>;
  if (jobs.length === 0) return null;
  return (
    <section className="panel dead-others" aria-labelledby="dead-others">
      <h2 id="dead-others">The newest with this kind of error</h2>
      <ul className="dead-jobs">
        {jobs.map(({ id, finishedAt, error }) => (
          <li key={id}>
            <JobLink id={id} />
            <bdi>{error?.summary}</bdi>
            <span className="hint">{finishedAt && <Age from={finishedAt} suffix=" ago" />}</span>
            {can('CREATE') && (
              <a href={href('new', { from: id })}>
                Edit a copy<span className="visually-hidden"> of job {short(id)}</span>
              </a>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** How events name the viewer; null for anybody where nobody has to say who asks. */
function actor(): string | null {
  const { value } = session;
  return value.state === 'signed in' && value.viewer.subject !== 'anonymous' ? value.viewer.subject : null;
}

interface Watched {
  /** When it was planned: the jobs are older. */
  since: string | null;
  cursor: string | null;
  retried: Retried;
}
/** What was watched of a type when its page was left: who comes back goes on behind it. */
const left = new WeakMap<Client, Map<string, Watched>>();

/** What becomes of the jobs of a type that the viewer has run again, from when that was first planned. */
function useRetried(type: string): { retried: Retried; problem: string; planned: () => void } {
  const client = useClient();
  const known = left.get(client) ?? new Map<string, Watched>();
  left.set(client, known);
  const [{ since, retried }, setWatched] = useState<Watched>(
    () => known.get(type) ?? { since: null, cursor: null, retried: new Map() },
  );
  const [problem, setProblem] = useState('');
  useEffect(() => {
    if (since === null) return;
    const filter: JobFilter = {
      type: [type],
      status: ['QUEUED', 'COMPLETED', 'DEAD_LETTER', 'CANCELLED'],
      // All that is planned is older: new jobs of the type need not be told of.
      createdBefore: since,
    };
    const after = known.get(type)?.cursor ?? null;
    return subscribe<{ data?: WhatBecomesOfRetriedSubscription; error?: CombinedError }>(
      ({ data, error }) => {
        if (error) setProblem(sentence(error));
        if (!data) return;
        const { cursor } = data.jobEvents;
        setWatched((before) => {
          const now = { since, cursor, retried: noted(before.retried, data.jobEvents, actor()) };
          known.set(type, now);
          return now;
        });
      },
    )(client.subscription(WhatBecomesOfRetriedDocument, { filter, after })).unsubscribe;
  }, [client, known, since, type]);
  return {
    retried,
    problem,
    planned: () => setWatched((before) => ({ ...before, since: new Date(serverNow()).toISOString() })),
  };
}

const FOLLOWED = 3;

function Repair({ groupKey, group, left }: { groupKey: string; group: Group; left: number }) {
  const { retried, problem, planned } = useRetried(group.type);
  const outcome = retried.size > 0 && <Outcome retried={retried} />;
  return (
    <section className="panel dead-repair" aria-labelledby="dead-repair">
      <h2 id="dead-repair">Run them again</h2>
      <p>
        Once the cause is mended: try one of them first, and when it has passed, the others, at a rate that
        your systems can bear.
        {can('CREATE') && ' If the payload is at fault, run an edited copy of it instead.'}
      </p>
      <p>
        <BulkRun
          action="RETRY"
          deadLetterGroup={groupKey}
          title="Run dead letters of this group again"
          className="primary"
          disabled={left === 0}
          onPlan={planned}
          outcome={outcome}
        >
          Try one, then the rest…
        </BulkRun>
      </p>
      {left === 0 && <p role="status">Nothing of this group is dead any more.</p>}
      {problem && <Problem>{problem}</Problem>}
      {outcome}
    </section>
  );
}

function Outcome({ retried }: { retried: Retried }) {
  const { passed, cameBack, cancelled, underWay } = tally(retried);
  const last = [...retried.keys()].slice(-FOLLOWED);
  const returned = [...retried].filter(([, end]) => end === 'DEAD_LETTER').map(([id]) => id);
  return (
    <section aria-label="What became of them">
      <h3>What became of them</h3>
      <dl className="facts dead-outcome">
        <Figure name="Run again" number={retried.size} />
        <Figure name="Passed" number={passed} />
        <Figure name="Came back as dead letters" number={cameBack} alarming />
        {cancelled > 0 && <Figure name="Cancelled" number={cancelled} />}
        <Figure name="Under way" number={underWay} />
      </dl>
      <p role="status" className="visually-hidden">
        {underWay === 0 && `${count(passed)} passed, ${count(cameBack)} came back as dead letters.`}
      </p>
      {retried.size <= FOLLOWED && last.map((id) => <FollowedJob key={id} id={id} />)}
      {retried.size > FOLLOWED && returned.length > 0 && (
        <p>
          Came back:{' '}
          {returned.slice(-5).map((id) => (
            <span key={id}>
              <JobLink id={id} />{' '}
            </span>
          ))}
        </p>
      )}
    </section>
  );
}

function Figure({ name, number, alarming = false }: { name: string; number: number; alarming?: boolean }) {
  return (
    <div data-alarming={(alarming && number > 0) || undefined}>
      <dt>{name}</dt>
      <dd>{count(number)}</dd>
    </div>
  );
}
