// The pause of a queue: that it is paused and why, and how somebody who may do so pauses and resumes it.

import { useId, useState } from 'react';
import { useClient } from 'urql';
import { serverNow } from '../../api/clock';
import { sentence } from '../../api/connection';
import { PauseQueueDocument, ResumeQueueDocument } from '../../api/generated';
import { canSteerQueues } from '../../api/session';
import { Dialog } from '../../parts/Dialog';
import { Problem } from '../../parts/Problem';
import { Said } from '../../parts/Said';
import { Age, Moment } from '../../parts/time';
import type { Queue } from './figures';

const LONGEST_REASON = 500;
const MINUTE = 60_000;

/** How long a pause may be from here, by the names of the choices; null is until somebody ends it. */
const LENGTHS = {
  'Until somebody resumes it': null,
  'For 30 minutes': 30 * MINUTE,
  'For 2 hours': 120 * MINUTE,
  'For a day': 1440 * MINUTE,
} as const;
type Length = keyof typeof LENGTHS;

/** What there is to say of a queue that is paused, and the button that changes whether it is. */
export function QueuePause({ queue: { name, paused } }: { queue: Queue }) {
  const client = useClient();
  const [asks, setAsks] = useState(false);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState('');

  async function ask(asked: Promise<{ error?: Parameters<typeof sentence>[0] }>): Promise<void> {
    setBusy(true);
    setProblem('');
    const { error } = await asked;
    setBusy(false);
    if (error) setProblem(sentence(error, true));
    else setAsks(false);
  }

  return (
    <>
      {paused && (
        <p className="paused">
          <strong>Paused</strong> <Age from={paused.at} suffix=" ago" />
          {paused.by !== null && (
            <>
              {' '}
              by <Said>{paused.by}</Said>
            </>
          )}
          {paused.until !== null && (
            <>
              , until <Moment at={paused.until} />
            </>
          )}
          {paused.reason !== null && (
            <>
              : <Said>{paused.reason}</Said>
            </>
          )}
        </p>
      )}
      {canSteerQueues() &&
        (paused ? (
          <button
            type="button"
            disabled={busy}
            aria-label={`Resume ${name}`}
            onClick={() => void ask(client.mutation(ResumeQueueDocument, { name }).toPromise())}
          >
            Resume
          </button>
        ) : (
          <button type="button" className="quiet" aria-label={`Pause ${name}…`} onClick={() => setAsks(true)}>
            Pause…
          </button>
        ))}
      {problem && !asks && <Problem>{problem}</Problem>}
      {asks && (
        <Dialog title={`Pause the queue “${name}”?`} onClose={() => setAsks(false)}>
          <Asked
            busy={busy}
            problem={problem}
            onPause={(reason, until) =>
              void ask(client.mutation(PauseQueueDocument, { name, reason, until }).toPromise())
            }
            onClose={() => setAsks(false)}
          />
        </Dialog>
      )}
    </>
  );
}

function Asked({
  busy,
  problem,
  onPause,
  onClose,
}: {
  busy: boolean;
  problem: string;
  onPause: (reason: string | null, until: string | null) => void;
  onClose: () => void;
}) {
  const [reason, setReason] = useState('');
  const [length, setLength] = useState<Length>('Until somebody resumes it');
  const id = useId();

  function pause(): void {
    const left = LENGTHS[length];
    const until = left === null ? null : new Date(serverNow() + left).toISOString();
    onPause(reason.trim() || null, until);
  }

  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        pause();
      }}
    >
      <p>None of its jobs starts any more. Those that run may finish, and jobs can be created as ever.</p>
      <p>
        <label htmlFor={`${id}-reason`}>Why, for all who wonder</label>{' '}
        <input
          id={`${id}-reason`}
          value={reason}
          maxLength={LONGEST_REASON}
          onChange={(event) => setReason(event.target.value)}
        />
      </p>
      <p>
        <label htmlFor={`${id}-length`}>How long</label>{' '}
        <select
          id={`${id}-length`}
          value={length}
          onChange={(event) => setLength(event.target.value as Length)}
        >
          {Object.keys(LENGTHS).map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </p>
      {problem && <Problem>{problem}</Problem>}
      <div className="row">
        <button type="submit" className="primary" disabled={busy}>
          Pause the queue
        </button>
        <button type="button" onClick={onClose}>
          Let it go on
        </button>
      </div>
    </form>
  );
}
