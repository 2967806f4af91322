// How a job stands: how far it is, for how long it has run and usually runs, why it waits, and what can be done about it.

import { useEffect, useId, useRef, useState } from 'react';
import { useClient } from 'urql';
import { elapsed, serverNow } from '../../api/clock';
import { sentence } from '../../api/connection';
import { CancelJobDocument, RetryJobDocument } from '../../api/generated';
import { can } from '../../api/session';
import { count, ENDED, isChangeable, isRetriable, many, span } from '../../format';
import { Dialog } from '../../parts/Dialog';
import { Bar, StatusBadge } from '../../parts/job';
import { Problem } from '../../parts/Problem';
import { Said } from '../../parts/Said';
import { Age, Moment, Until, useEachSecond } from '../../parts/time';
import { href } from '../../route';
import { DeleteDialog } from './DeleteDialog';
import type { Usual } from './history';
import { FailureSaid } from './Timeline';
import type { Facts } from './watch';

/** Later, whoever has left the buttons did so on purpose; in milliseconds. */
const TAKES_FOCUS_WITHIN = 5000;

/**
 * The panel at the top of a job. `onMove` is called when the job was cancelled or retried from here, `onDelete` when it
 * was deleted.
 */
export function Standing({
  facts,
  usual,
  gone,
  onMove,
  onDelete,
}: {
  facts: Facts;
  usual: Usual | null;
  gone: boolean;
  onMove: () => void;
  onDelete: () => void;
}) {
  const heading = useId();
  const panel = useRef<HTMLElement>(null);
  const movedAt = useRef(0);
  const { status, progress, progressMessage, error, cancelReason } = facts;

  // The button that was pressed goes with the state that it was for, before or after the answer to it.
  useEffect(() => {
    if (Date.now() - movedAt.current < TAKES_FOCUS_WITHIN && document.activeElement === document.body)
      panel.current?.focus({ preventScroll: true });
  });

  return (
    <section className="panel standing" aria-labelledby={heading} ref={panel} tabIndex={-1}>
      <h2 id={heading} className="visually-hidden">
        How it stands
      </h2>
      <div className="row standing-row">
        <span role="status">
          <StatusBadge status={status} />
        </span>
        <span>
          <HowLong facts={facts} usual={usual} />
        </span>
        <span className="standing-actions">
          {!gone && (
            <Actions
              facts={facts}
              onMove={() => {
                movedAt.current = Date.now();
                onMove();
              }}
              onDelete={onDelete}
            />
          )}
        </span>
      </div>
      {(status === 'PROCESSING' || (progress > 0 && !ENDED.has(status))) && (
        <div className="standing-progress">
          <Bar progress={progress} label="Progress" />
          <span className="standing-percent">{progress} %</span>
          {progressMessage !== null && <Said>{progressMessage}</Said>}
        </div>
      )}
      {!gone && <Waiting facts={facts} />}
      {cancelReason !== null && (
        <p className="waiting">
          <strong>Why it was cancelled:</strong> <Said>{cancelReason}</Said>
        </p>
      )}
      {error && (status === 'DEAD_LETTER' || status === 'RETRYING') && (
        <div className="standing-error">
          <h3>{status === 'DEAD_LETTER' ? 'Why it failed' : 'The last failure'}</h3>
          <FailureSaid failure={error} />
        </div>
      )}
    </section>
  );
}

function HowLong({ facts, usual }: { facts: Facts; usual: Usual | null }) {
  useEachSecond();
  const { status, startedAt, finishedAt, durationMs, createdAt } = facts;
  if (status === 'PROCESSING' && startedAt)
    return (
      <>
        running for <Age from={startedAt} />
        {usual && <Compared ran={elapsed(startedAt)} usual={usual} goesOn />}
      </>
    );
  if (finishedAt)
    return (
      <>
        {durationMs !== null && (
          <>
            ran {span(durationMs)}
            {usual && status === 'COMPLETED' && <Compared ran={durationMs} usual={usual} goesOn={false} />} ·{' '}
          </>
        )}
        ended <Age from={finishedAt} suffix=" ago" />, <Age from={createdAt} to={finishedAt} /> after its
        creation
      </>
    );
  return (
    <>
      created <Age from={createdAt} suffix=" ago" />
      {usual && <span className="hint"> · usually runs {span(usual.half)}</span>}
    </>
  );
}

/** What is usual, and in words whether this run is not. */
function Compared({ ran, usual, goesOn }: { ran: number; usual: Usual; goesOn: boolean }) {
  const isLong = ran > usual.most && ran > usual.half * 1.5;
  return (
    <span
      className={isLong ? 'unusual' : 'hint'}
      title={`Of the last ${usual.runs} that completed, half ran ${span(usual.half)} at most, and 95 of 100 ${span(usual.most)}.`}
    >
      {' '}
      · usually {span(usual.half)}
      {isLong && (goesOn ? ', so it is longer than nearly all' : ', so it was longer than nearly all')}
    </span>
  );
}

/** Why it does not run, as the server says it. */
function Waiting({ facts: { status, waiting, runAt, nextAttemptAt } }: { facts: Facts }) {
  useEachSecond();
  if (ENDED.has(status) || status === 'PROCESSING') return null;
  const until =
    waiting?.until ?? (status === 'SCHEDULED' ? runAt : status === 'RETRYING' ? nextAttemptAt : null);
  return (
    <p className="waiting">
      <strong>Why it waits:</strong>{' '}
      <span role="status">
        {waiting ? <Said>{waiting.detail}</Said> : 'a worker is free; it starts at once'}
      </span>
      {until && Date.parse(until) > serverNow() && (
        <>
          {' '}
          · starts <Until at={until} />, at <Moment at={until} milliseconds />
        </>
      )}
      {waiting?.ahead != null && waiting.reason === 'NO_WORKER' && (
        <> · {waiting.ahead === 0 ? 'no job is before it' : `${many(waiting.ahead, 'job')} before it`}</>
      )}
    </p>
  );
}

function Actions({ facts, onMove, onDelete }: { facts: Facts; onMove: () => void; onDelete: () => void }) {
  const client = useClient();
  const [problem, setProblem] = useState('');
  const [busy, setBusy] = useState(false);
  const [asks, setAsks] = useState<'cancel' | 'delete' | null>(null);
  const { id, status } = facts;
  const canCancel = can('CONTROL') && !ENDED.has(status);
  const canEdit = can('CONTROL') && isChangeable(facts);
  const canDelete = can('OPERATE') && status !== 'PROCESSING';
  const canRetry = can('CONTROL') && isRetriable(status);

  async function move(document: typeof CancelJobDocument | typeof RetryJobDocument): Promise<void> {
    setBusy(true);
    setProblem('');
    const { error } = await client.mutation(document as typeof CancelJobDocument, { id }).toPromise();
    setBusy(false);
    setAsks(null);
    if (error) setProblem(sentence(error, true));
    onMove();
  }

  return (
    <>
      {canRetry && (
        <button type="button" className="primary" disabled={busy} onClick={() => void move(RetryJobDocument)}>
          Retry
        </button>
      )}
      {canEdit && (
        <a className="button" href={href(`jobs/${id}/edit`)}>
          Edit
        </a>
      )}
      {canRetry && (
        <a className="button" href={href(`jobs/${id}/retry`)}>
          Retry with another payload
        </a>
      )}
      {can('CREATE') && (
        <a className="button" href={href('new', { from: id })}>
          Edit and run as a new job
        </a>
      )}
      {canCancel && (
        <button type="button" className="danger" disabled={busy} onClick={() => setAsks('cancel')}>
          Cancel the job
        </button>
      )}
      {canDelete && (
        <button type="button" className="danger" disabled={busy} onClick={() => setAsks('delete')}>
          Delete…
        </button>
      )}
      {problem && <Problem>{problem}</Problem>}
      {asks === 'delete' && <DeleteDialog facts={facts} onDelete={onDelete} onClose={() => setAsks(null)} />}
      {asks === 'cancel' && (
        <Dialog title="Cancel this job?" onClose={() => setAsks(null)}>
          <p>
            {status === 'PROCESSING'
              ? 'Its handler is told to stop at once. What it has done so far stays done, and what it returns is discarded.'
              : 'It will not run.'}{' '}
            It can be retried later.
          </p>
          <div className="row">
            <button
              type="button"
              className="danger"
              disabled={busy}
              onClick={() => void move(CancelJobDocument)}
            >
              Cancel the job
            </button>
            <button type="button" onClick={() => setAsks(null)}>
              Let it go on
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}

/** `2 of 4`, by the attempts that the job may take. */
export const attemptsOf = ({ attempt, maxRetries }: Facts): string =>
  attempt === 0 ? `none of ${count(maxRetries + 1)} yet` : `${count(attempt)} of ${count(maxRetries + 1)}`;
