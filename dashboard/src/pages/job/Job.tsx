// One job: how it stands, what has happened to it, what it was asked for and what came of it.

import { type ReactNode, useEffect, useId, useRef, useState } from 'react';
import { useClient } from 'urql';
import type { Exact } from '../../api/exact';
import { useObservable } from '../../api/observable';
import { count, short } from '../../format';
import { Copy } from '../../parts/Copy';
import { JsonView } from '../../parts/JsonView';
import { JobLink, StatusBadge } from '../../parts/job';
import { Problem } from '../../parts/Problem';
import { Said } from '../../parts/Said';
import { Moment } from '../../parts/time';
import { href } from '../../route';
import { Artifacts } from './Artifacts';
import { attemptsOf, Standing } from './Standing';
import { Timeline } from './Timeline';
import { type Facts, JobWatch } from './watch';
import './job.css';

export default function Job({ id }: { id: string }) {
  const client = useClient();
  const [watch, setWatch] = useState<JobWatch | null>(null);
  useEffect(() => {
    const opened = new JobWatch(client, id);
    setWatch(opened);
    return () => opened.close();
  }, [client, id]);
  return watch ? <Shown id={id} watch={watch} /> : <h1>Job</h1>;
}

function Shown({ id, watch }: { id: string; watch: JobWatch }) {
  const { facts, events, complete, payload, after, result, usual, gone, problem } = useObservable(
    watch.watched,
  );
  if (facts === null)
    return (
      <>
        <h1>Job</h1>
        {gone === 'deleted here' ? (
          <Deleted id={id} />
        ) : gone ? (
          <p role="alert">
            There is no job <Said className="id">{id}</Said> that you may see. It may have expired, or the id
            may be wrong. <a href={href('jobs')}>Look at the jobs that there are</a>.
          </p>
        ) : (
          <p role="status">{problem ?? 'Loading…'}</p>
        )}
      </>
    );
  return (
    <>
      <header className="job-head">
        <h1>
          <Said>{facts.type}</Said> <span className="job-short">{short(facts.id)}</span>
        </h1>
        <span className="row job-id">
          <code>{facts.id}</code>
          <Copy text={facts.id} label="Copy id" />
        </span>
      </header>
      {gone && (
        <Problem>
          This job {gone === 'deleted' ? 'was deleted' : 'has expired or was deleted'}: the server does not
          have it any more. What was known of it is shown until you leave this page.
        </Problem>
      )}
      {problem && <Problem>{problem}</Problem>}
      <div data-gone={gone ?? undefined}>
        <Standing
          facts={facts}
          usual={usual}
          onMove={() => void watch.refresh()}
          onDelete={() => watch.forget()}
          gone={gone !== null}
        />
        <div className="job-columns">
          <div>
            <Timeline events={events} receipts={facts.cancellation} complete={complete} />
            <Artifacts id={id} files={facts.artifacts} />
            {facts.children.length > 0 && <Children parent={id} first={facts.children} />}
          </div>
          <div>
            <FactsPanel facts={facts} after={after} />
            <Value title="Payload" value={payload} />
            {facts.status === 'COMPLETED' && <Value title="Result" value={result} />}
          </div>
        </div>
      </div>
    </>
  );
}

/** In place of a job that was deleted from this page. */
function Deleted({ id }: { id: string }) {
  const said = useRef<HTMLParagraphElement>(null);
  useEffect(() => said.current?.focus(), []);
  return (
    <p ref={said} tabIndex={-1}>
      Job <code>{id}</code> is deleted: nothing of it is there any more.{' '}
      <a href={href('jobs')}>Look at the jobs that there are</a>.
    </p>
  );
}

function Value({ title, value }: { title: string; value: Exact | undefined }) {
  const heading = useId();
  return (
    <section className="panel" aria-labelledby={heading}>
      <h2 id={heading}>{title}</h2>
      {value === undefined ? <p role="status">Loading…</p> : <JsonView value={value} label={title} />}
    </section>
  );
}

const MOST_CHILDREN = 50;

/** The jobs that its handler has created, in the order of their creation. */
function Children({ parent, first }: { parent: string; first: Facts['children'] }) {
  const heading = useId();
  return (
    <section className="panel" aria-labelledby={heading}>
      <h2 id={heading}>Children</h2>
      <ul className="children">
        {first.slice(0, MOST_CHILDREN).map(({ id, type, status }) => (
          <li key={id}>
            <StatusBadge status={status} /> <JobLink id={id} /> <Said>{type}</Said>
          </li>
        ))}
      </ul>
      <p className="hint">
        {first.length > MOST_CHILDREN && `These are the first ${MOST_CHILDREN}. `}
        <a href={href('jobs', { parent })}>All of them as a list</a>
      </p>
    </section>
  );
}

function FactsPanel({ facts, after }: { facts: Facts; after: readonly string[] }) {
  const heading = useId();
  const { queue, priority, tags, tenant, createdBy, createdAt, updatedAt, runAt, workerId, origin, parent } =
    facts;
  const { key, concurrencyKey, startBefore, schedule } = facts;
  return (
    <section className="panel" aria-labelledby={heading}>
      <h2 id={heading}>Facts</h2>
      <dl className="facts">
        <Fact name="Queue">
          <a href={href('jobs', { queue })}>
            <Said>{queue}</Said>
          </a>
        </Fact>
        <Fact name="Priority">{priority.charAt(0) + priority.slice(1).toLowerCase()}</Fact>
        <Fact name="Attempt">{attemptsOf(facts)}</Fact>
        {workerId !== null && (
          <Fact name="Worker">
            <Said className="id">{workerId}</Said>
          </Fact>
        )}
        <Fact name="Created">
          <Moment at={createdAt} milliseconds />
        </Fact>
        <Fact name="Last change">
          <Moment at={updatedAt} milliseconds />
        </Fact>
        {runAt !== null && (
          <Fact name="To run at">
            <Moment at={runAt} milliseconds />
          </Fact>
        )}
        {startBefore !== null && (
          <Fact name="To start before">
            <Moment at={startBefore} milliseconds />
          </Fact>
        )}
        {schedule !== null && (
          <Fact name="Schedule">
            <a href={href('jobs', { schedule })}>
              <Said>{schedule}</Said>
            </a>
          </Fact>
        )}
        {key !== null && (
          <Fact name="Key">
            <a href={href('jobs', { key })}>
              <Said>{key}</Said>
            </a>
          </Fact>
        )}
        {concurrencyKey !== null && (
          <Fact name="Concurrency key">
            <a href={href('jobs', { concurrencyKey })}>
              <Said>{concurrencyKey}</Said>
            </a>
          </Fact>
        )}
        {createdBy !== null && (
          <Fact name="Created by">
            <Said>{createdBy}</Said>
          </Fact>
        )}
        {tenant !== null && (
          <Fact name="Tenant">
            <Said>{tenant}</Said>
          </Fact>
        )}
        {parent && (
          <Fact name="Created by job">
            <JobLink id={parent.id} />
          </Fact>
        )}
        {origin && (
          <Fact name="Made from job">
            <JobLink id={origin.id} />
          </Fact>
        )}
        {after.length > 0 && (
          <Fact name="Runs after" wide>
            <After ids={after} />
          </Fact>
        )}
        {tags.length > 0 && (
          <Fact name="Tags" wide>
            <ul className="fact-tags">
              {tags.map((tag) => (
                <li key={tag}>
                  <a className="fact-tag" href={href('jobs', { tags: tag })}>
                    <Said>{tag}</Said>
                  </a>
                </li>
              ))}
            </ul>
          </Fact>
        )}
      </dl>
    </section>
  );
}

/** As many as can be looked at; more are there on request. */
const MOST_BEFORE = 12;

/** The jobs that it runs after. */
function After({ ids }: { ids: readonly string[] }) {
  const [all, setAll] = useState(false);
  return (
    <>
      <ul className="fact-links">
        {(all ? ids : ids.slice(0, MOST_BEFORE)).map((id) => (
          <li key={id}>
            <JobLink id={id} />
          </li>
        ))}
      </ul>
      {ids.length > MOST_BEFORE && (
        <button type="button" className="quiet" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? 'Show fewer' : `Show all ${count(ids.length)}`}
        </button>
      )}
    </>
  );
}

function Fact({ name, wide = false, children }: { name: string; wide?: boolean; children: ReactNode }) {
  return (
    <div className={wide ? 'wide' : undefined}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
