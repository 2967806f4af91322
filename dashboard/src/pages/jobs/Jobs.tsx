// All jobs: filtered by the address, pushed while they are looked at, and acted on many at a time.

import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import type { JobFilter, JobStatus } from '../../api/generated';
import { can } from '../../api/session';
import { count, many } from '../../format';
import { asked, canInclude, conditions, inWords, parametersOf } from './filter';
import { Filters } from './Filters';
import { type Attention, Table, TOP } from './Table';
import { type Place, useReading } from './useReading';
import { BulkRun, mayAct } from '../../parts/BulkRun';
import { Problem } from '../../parts/Problem';
import { href } from '../../route';
import { useShortcuts } from '../../shortcuts';
import './jobs.css';

/** What the API takes of ids in one filter. */
const MOST_IDS = 500;
const CAN_RETRY: JobStatus[] = ['DEAD_LETTER', 'CANCELLED'];
const CAN_CANCEL: JobStatus[] = ['SCHEDULED', 'WAITING', 'QUEUED', 'PROCESSING', 'RETRYING'];
const CAN_DELETE: JobStatus[] = [
  'SCHEDULED',
  'WAITING',
  'QUEUED',
  'RETRYING',
  'COMPLETED',
  'DEAD_LETTER',
  'CANCELLED',
];
/** Milliseconds between two announcements of how many new jobs wait. */
const SAYS_EVERY = 10_000;

const NO_ATTENTION: Attention = { scrolled: false, hovered: false, focused: false };
const attentionAt = ({ top }: Place): Attention =>
  top > TOP ? { ...NO_ATTENTION, scrolled: true } : NO_ATTENTION;

export default function Jobs({ parameters }: { parameters: URLSearchParams }) {
  const question = useMemo(() => asked(parameters), [parameters]);
  const { filter, orderBy } = question;
  const list = useReading(question);
  const { reading, place, ready, problem } = list;
  const [selected, setSelected] = useState(place.selected);
  const [attention, setAttention] = useState(() => attentionAt(place));
  const [known, setKnown] = useState(place);
  const page = useRef<HTMLDivElement>(null);
  const isEmpty = reading.ids.length === 0;
  if (known !== place) {
    // Another list. What is selected is acted on, so it has to be of the list that is looked at.
    setKnown(place);
    setSelected(place.selected);
    setAttention(attentionAt(place));
  } else if (isEmpty && attention !== NO_ATTENTION) setAttention(NO_ATTENTION);

  const held = selected.size > 0 || attention.scrolled || attention.hovered || attention.focused;
  useEffect(() => reading.hold(held), [reading, held]);

  const onAttention = useCallback(
    (change: Partial<Attention>) =>
      setAttention((before) => {
        const after = { ...before, ...change };
        const isSame = (Object.keys(change) as (keyof Attention)[]).every(
          (name) => before[name] === after[name],
        );
        return isSame ? before : after;
      }),
    [],
  );
  const onSelect = useCallback(
    (ids: readonly string[], on: boolean) => {
      const after = new Set(place.selected);
      for (const id of ids) on ? after.add(id) : after.delete(id);
      place.selected = after;
      setSelected(after);
    },
    [place],
  );

  const { waiting } = reading;
  const waitingSaid = `${reading.waitsBeyond ? 'more than ' : ''}${count(waiting)} new ${waiting === 1 ? 'job' : 'jobs'}`;
  function show(): void {
    reading.renew();
    page.current?.querySelector('.job-rows')?.scrollTo(0, 0);
  }
  useShortcuts({ n: () => reading.waiting > 0 && show() });

  return (
    <div className="jobs-page" ref={page}>
      <div className="row jobs-heading">
        <h1>Jobs</h1>
        {reading.total !== null && (
          <span className="hint">
            {conditions(filter)
              ? `${many(reading.total, 'job matches', 'jobs match')}`
              : many(reading.total, 'job')}
            {reading.ids.length < reading.total && `, ${count(reading.ids.length)} shown`}
          </span>
        )}
      </div>
      <Filters filter={filter} orderBy={orderBy} />
      <div className="row jobs-tools">
        <div className="row" hidden={selected.size > 0}>
          <AllActions filter={filter} />
        </div>
        <div className="row" hidden={selected.size === 0}>
          <strong role="status">{selected.size > 0 && `${count(selected.size)} selected`}</strong>
          <SelectionActions selected={selected} />
          <button type="button" className="quiet" onClick={() => onSelect([...selected], false)}>
            Clear selection
          </button>
        </div>
        {waiting > 0 && (
          <button type="button" className="primary jobs-waiting" onClick={show}>
            {waitingSaid} – show <kbd>n</kbd>
          </button>
        )}
        <Announced text={waiting > 0 ? `${waitingSaid} can be shown with the key n.` : ''} />
      </div>
      {problem && <Problem>{problem}</Problem>}
      {!isEmpty ? (
        <Table
          key={place.name}
          list={list}
          selected={selected}
          onSelect={onSelect}
          onAttention={onAttention}
        />
      ) : (
        !problem && (
          <Empty ready={ready} filter={filter} clear={href('jobs', parametersOf({ filter: {}, orderBy }))} />
        )
      )}
    </div>
  );
}

function AllActions({ filter }: { filter: JobFilter }) {
  const words = inWords(filter);
  const which = words ? `all jobs that match: ${words}` : 'all jobs';
  return (
    <>
      {canInclude(filter, CAN_RETRY) && (
        <BulkRun action="RETRY" filter={filter} title={`Retry ${which}`} className="quiet">
          Retry all…
        </BulkRun>
      )}
      {canInclude(filter, CAN_CANCEL) && (
        <BulkRun action="CANCEL" filter={filter} title={`Cancel ${which}`} className="quiet danger">
          Cancel all…
        </BulkRun>
      )}
      {canInclude(filter, CAN_DELETE) && (
        <BulkRun action="DELETE" filter={filter} title={`Delete ${which} for good`} className="quiet danger">
          Delete all…
        </BulkRun>
      )}
    </>
  );
}

function SelectionActions({ selected }: { selected: ReadonlySet<string> }) {
  const filter = { ids: [...selected] };
  const tooMany = selected.size > MOST_IDS;
  const which = many(selected.size, 'selected job');
  return (
    <>
      <BulkRun action="RETRY" filter={filter} title={`Retry ${which}`} disabled={tooMany}>
        Retry selected…
      </BulkRun>
      <BulkRun action="CANCEL" filter={filter} title={`Cancel ${which}`} disabled={tooMany}>
        Cancel selected…
      </BulkRun>
      <BulkRun action="DELETE" filter={filter} title={`Delete ${which} for good`} disabled={tooMany}>
        Delete selected…
      </BulkRun>
      {tooMany && (mayAct('CANCEL') || mayAct('DELETE')) && (
        <span className="hint">
          No more than {count(MOST_IDS)} can be selected for an action; a filter has no such limit.
        </span>
      )}
    </>
  );
}

function Empty({ ready, filter, clear }: { ready: boolean; filter: JobFilter; clear: string }) {
  if (!ready) return <p role="status">Loading…</p>;
  if (conditions(filter))
    return (
      <p role="status" className="jobs-empty">
        No job matches: {inWords(filter)}. Jobs that do will appear here by themselves.{' '}
        <a href={clear}>Show all jobs</a>
      </p>
    );
  return (
    <p role="status" className="jobs-empty">
      There are no jobs yet. They will appear here by themselves.{' '}
      {can('CREATE') && <a href={href('new')}>Create one</a>}
    </p>
  );
}

/** Read a text out that changes often, once in a while. */
function Announced({ text }: { text: string }) {
  const [said, setSaid] = useState('');
  const last = useRef(0);
  useEffect(() => {
    if (text === said) return;
    const timer = setTimeout(
      () => {
        last.current = Date.now();
        setSaid(text);
      },
      Math.max(0, last.current + SAYS_EVERY - Date.now()),
    );
    return () => clearTimeout(timer);
  }, [text, said]);
  return (
    <span className="visually-hidden" role="status">
      {said}
    </span>
  );
}
