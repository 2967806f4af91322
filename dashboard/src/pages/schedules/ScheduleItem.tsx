// One schedule: what it does and when, what is next, what was last, and what somebody who may do so does with it.

import type { CombinedError } from '@urql/core';
import { useState } from 'react';
import { useClient } from 'urql';
import { sentence } from '../../api/connection';
import { DeleteScheduleDocument, PauseScheduleDocument, RunScheduleDocument } from '../../api/generated';
import type { ListedJob } from '../../api/jobList';
import { canSteerSchedules } from '../../api/session';
import { count, many, span } from '../../format';
import { Dialog } from '../../parts/Dialog';
import { FollowedJob } from '../../parts/FollowedJob';
import { JobLink, StatusBadge } from '../../parts/job';
import { Problem } from '../../parts/Problem';
import { Said } from '../../parts/Said';
import { Age, Until } from '../../parts/time';
import { href } from '../../route';
import { momentIn, OVERLAP, type Schedule, SKIP_REASON, whenInWords } from './when';

/** A schedule of the list. `live` is how its last job is now, where that is known; `onChange` is called after a change. */
export function ScheduleItem({
  schedule,
  live,
  onChange,
}: {
  schedule: Schedule;
  live: ListedJob | undefined;
  onChange: () => void;
}) {
  const { name, cron, everySeconds, timeZone, type, paused } = schedule;
  const words = whenInWords(schedule);
  return (
    <li className="panel schedule" data-paused={paused || undefined}>
      <div>
        <h2>
          <Said>{name}</Said> {paused && <span className="badge schedule-paused">Paused</span>}
        </h2>
        {words !== null && <p className="schedule-when">{words}</p>}
        <p>
          {cron !== null ? (
            <>
              <code>{cron}</code> in <Said>{timeZone}</Said>
            </>
          ) : (
            `${count(everySeconds ?? 0)} s, counted from 1970 in UTC`
          )}
        </p>
        <p className="hint">
          <Said>{type}</Said>. {OVERLAP[schedule.overlap]}.{Settings(schedule)}
        </p>
      </div>
      <NextRuns schedule={schedule} />
      <LastRun schedule={schedule} live={live} />
      <div className="schedule-actions">
        <div className="row">
          <a className="button" href={href('jobs', { schedule: name })}>
            All runs<span className="visually-hidden"> of {name}</span>
          </a>
          {canSteerSchedules() && <Actions schedule={schedule} onChange={onChange} />}
        </div>
      </div>
    </li>
  );
}

/** What else it was defined with, as sentences with a space before each. */
function Settings({ catchUpSeconds, spreadSeconds, definedBy }: Schedule): string {
  const said = [
    catchUpSeconds > 0
      ? `After an outage, ticks up to ${span(catchUpSeconds * 1000)} late are made up for.`
      : 'No tick is made up for after an outage.',
    spreadSeconds > 0 && `Spread over ${span(spreadSeconds * 1000)}.`,
    definedBy !== null && `Defined by the code of ${definedBy}.`,
  ];
  return said
    .filter(Boolean)
    .map((sentence) => ` ${sentence}`)
    .join('');
}

function NextRuns({ schedule: { nextRuns, paused, timeZone, everySeconds } }: { schedule: Schedule }) {
  const zone = everySeconds === null ? timeZone : 'UTC';
  return (
    <div>
      <h3>Next runs</h3>
      {nextRuns.length > 0 ? (
        <ol className="schedule-runs">
          {nextRuns.map((at) => (
            <li key={at}>
              {momentIn(zone, at)}{' '}
              <span className="hint">
                <Until at={at} />
              </span>
            </li>
          ))}
        </ol>
      ) : (
        <p>{paused ? 'None while it is paused' : 'It is never due again'}</p>
      )}
    </div>
  );
}

function LastRun({ schedule, live }: { schedule: Schedule; live: ListedJob | undefined }) {
  const { lastJob } = schedule;
  const job = live ?? lastJob;
  return (
    <div>
      <h3>Last run</h3>
      {job === null ? (
        <p>None yet, or it has expired</p>
      ) : (
        <>
          <p className="row">
            <StatusBadge status={job.status} /> <JobLink id={job.id} />{' '}
            <span className="hint">
              due <Age from={job.runAt ?? job.createdAt} suffix=" ago" />
            </span>
          </p>
          {job.error && (
            <p className="field-problem">
              <Said>{`${job.error.type}: ${job.error.summary}`}</Said>
            </p>
          )}
        </>
      )}
      {schedule.skips.length > 0 && (
        <ul className="schedule-skips">
          {schedule.skips.map(({ reason, count: number, lastAt }) => (
            <li key={reason}>
              {many(number, 'tick')} had no run because {SKIP_REASON[reason]},{' '}
              <span className="hint">
                last <Age from={lastAt} suffix=" ago" />
              </span>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function Actions({
  schedule: { name, paused, definedBy },
  onChange,
}: {
  schedule: Schedule;
  onChange: () => void;
}) {
  const client = useClient();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState('');
  const [made, setMade] = useState<string | null>(null);
  const [deletes, setDeletes] = useState(false);
  const ofIt = <span className="visually-hidden"> {name}</span>;

  /** What the server answers to a change; undefined where that is refused, or not known. */
  async function change<T>(asked: Promise<{ data?: T; error?: CombinedError }>): Promise<T | undefined> {
    if (busy) return undefined;
    setBusy(true);
    setProblem('');
    const { data, error } = await asked;
    setBusy(false);
    if (error) setProblem(sentence(error, true));
    // Even where it was refused: what is shown may be why.
    onChange();
    return error ? undefined : data;
  }

  async function run(): Promise<void> {
    setMade(null);
    const data = await change(client.mutation(RunScheduleDocument, { name }).toPromise());
    if (data) setMade(data.runSchedule.job.id);
  }

  async function remove(): Promise<void> {
    const data = await change(client.mutation(DeleteScheduleDocument, { name }).toPromise());
    if (data) setDeletes(false);
  }

  return (
    <>
      <button type="button" aria-disabled={busy} onClick={() => void run()}>
        Run now{ofIt}
      </button>
      <button
        type="button"
        aria-disabled={busy}
        onClick={() =>
          void change(client.mutation(PauseScheduleDocument, { name, paused: !paused }).toPromise())
        }
      >
        {paused ? 'Resume' : 'Pause'}
        {ofIt}
      </button>
      <a className="button" href={href('schedules/define', { name })}>
        Change{ofIt}
      </a>
      <button type="button" className="quiet danger" aria-disabled={busy} onClick={() => setDeletes(true)}>
        Delete…{ofIt}
      </button>
      {problem && !deletes && <Problem>{problem}</Problem>}
      {made !== null && (
        <div className="schedule-made">
          <p>It was run outside of its ticks:</p>
          <FollowedJob key={made} id={made} />
        </div>
      )}
      {deletes && (
        <Dialog title={`Delete the schedule “${name}”?`} onClose={() => setDeletes(false)}>
          <p>
            It has no ticks any more, and its jobs that have not been queued yet are cancelled. Those that
            were run stay until they expire.
          </p>
          {definedBy !== null && (
            <p>
              The code of <Said>{definedBy}</Said> defines it: as long as it does, the next API process that
              starts with it defines the schedule anew. To have it rest, pause it.
            </p>
          )}
          {problem && <Problem>{problem}</Problem>}
          <div className="row">
            <button type="button" className="danger" aria-disabled={busy} onClick={() => void remove()}>
              Delete the schedule
            </button>
            <button type="button" onClick={() => setDeletes(false)}>
              Keep it
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}
