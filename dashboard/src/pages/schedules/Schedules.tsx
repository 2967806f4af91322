// All schedules: what is done again and again, when it is next, and what became of it last.

import { useEffect, useMemo, useRef, useState } from 'react';
import { type JobList, type ListedJob, useJobList } from '../../api/jobList';
import { canSteerSchedules } from '../../api/session';
import { many } from '../../format';
import { Problem } from '../../parts/Problem';
import { Age } from '../../parts/time';
import { href } from '../../route';
import { ScheduleItem } from './ScheduleItem';
import { type Known, useSchedules } from './useSchedules';
import { goneFrom } from './when';
import './schedules.css';

/** Jobs that one list may be watched of. */
const MOST_WATCHED = 100;

export default function Schedules() {
  const { known, problem, ask, showMore } = useSchedules();
  const [last, setLast] = useState<JobList | null>(null);
  const [gone, setGone] = useState<readonly string[]>([]);
  const heading = useRef<HTMLHeadingElement>(null);
  const ids = known?.schedules.flatMap(({ lastJob }) => (lastJob ? [lastJob.id] : [])).slice(0, MOST_WATCHED);
  const live = useMemo(() => new Map<string, ListedJob>(last?.jobs.map((job) => [job.id, job])), [last]);

  const before = useRef<Known | null>(null);
  useEffect(() => {
    if (!known) return;
    const lost = before.current ? goneFrom(before.current, known) : [];
    before.current = known;
    if (lost.length === 0) return;
    setGone(lost);
    // The button that had the focus may have gone with it.
    if (document.activeElement === document.body) heading.current?.focus({ preventScroll: true });
  }, [known]);

  return (
    <>
      <div className="row schedules-heading">
        <h1 ref={heading} tabIndex={-1}>
          Schedules
        </h1>
        {known && (
          <span className="hint">
            {known.more ? `the first ${known.schedules.length}` : many(known.schedules.length, 'schedule')},
            as of <Age from={known.at} suffix=" ago" />
          </span>
        )}
        {known && (
          <button type="button" className="quiet" onClick={() => void ask()}>
            Ask again
          </button>
        )}
        {canSteerSchedules() && (
          <a className="button primary schedules-new" href={href('schedules/define')}>
            New schedule
          </a>
        )}
        <span role="status">{gone.length > 0 && `Deleted: ${gone.join(', ')}`}</span>
      </div>
      {problem && <Problem>{problem}</Problem>}
      {!known && !problem && <p role="status">Loading…</p>}
      {ids && ids.length > 0 && <Watched ids={ids} onJobs={setLast} />}
      {known?.schedules.length === 0 && (
        <section className="panel">
          <h2>There are no schedules yet</h2>
          <p>
            What is to be done again and again is defined in code, beside its job type, or by a client of the
            API.
          </p>
        </section>
      )}
      <ul className="schedules">
        {known?.schedules.map((schedule) => (
          <ScheduleItem
            key={schedule.name}
            schedule={schedule}
            live={schedule.lastJob ? live.get(schedule.lastJob.id) : undefined}
            onChange={() => void ask()}
          />
        ))}
      </ul>
      {known?.more && (
        <button type="button" onClick={() => void showMore()}>
          Show more
        </button>
      )}
    </>
  );
}

/** Watches jobs, and shows nothing. */
function Watched({ ids, onJobs }: { ids: string[]; onJobs: (jobs: JobList | null) => void }) {
  const { list } = useJobList('Last runs of schedules', { ids }, null, MOST_WATCHED, 2);
  useEffect(() => onJobs(list), [list, onJobs]);
  return null;
}
