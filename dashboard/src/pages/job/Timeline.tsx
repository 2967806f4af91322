// What has happened to a job, to the millisecond.

import { useVirtualizer } from '@tanstack/react-virtual';
import { useEffect, useId, useMemo, useRef, useState } from 'react';
import { count, many, moment, span } from '../../format';
import { Said } from '../../parts/Said';
import { Scrolling } from '../../parts/Scrolling';
import { Moment } from '../../parts/time';
import { type Failure, type Happened, type Receipts, type Row, rowsOf } from './history';

/** Heights of lines before they are measured, in pixels: the nearer, the less moves while one scrolls. */
const LINE = 34;
const LINE_WITH_FAILURE = 90;
/** So near to the end, in pixels, a reader is taken along when more comes. */
const AT_THE_END = 40;

export function Timeline({
  events,
  receipts,
  complete,
}: {
  events: readonly Happened[];
  receipts: Receipts | null;
  complete: boolean;
}) {
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());
  const rows = useMemo(() => rowsOf(events, receipts, open, span), [events, receipts, open]);
  const heading = useId();
  const scroller = useRef<HTMLElement>(null);
  const isAtEnd = useRef(true);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index) => {
      const row = rows[index];
      return row?.kind === 'happened' && row.failure ? LINE_WITH_FAILURE : LINE;
    },
    getItemKey: (index) => rows[index]?.key ?? index,
    overscan: 12,
  });

  const last = rows.at(-1)?.key;
  useEffect(() => {
    if (isAtEnd.current && complete) virtual.scrollToIndex(rows.length - 1, { align: 'end' });
  }, [last, rows.length, complete]);

  function toggle(key: string): void {
    // Whoever unfolds a line wants to read on from it.
    isAtEnd.current = false;
    const next = new Set(open);
    if (!next.delete(key)) next.add(key);
    setOpen(next);
  }

  return (
    <section className="panel timeline" aria-labelledby={heading}>
      <header className="row">
        <h2 id={heading}>Timeline</h2>
        <span className="hint timeline-count">
          {complete ? many(events.length, 'event') : `Loading… ${count(events.length)} so far`}
        </span>
      </header>
      <Scrolling
        label="Events"
        className="timeline-scroller"
        ref={scroller}
        onKeyDown={(event) => {
          if (event.target !== event.currentTarget || !(event.key === 'Home' || event.key === 'End')) return;
          // At once: a smooth way through thousands of lines would be measured, and stopped, halfway.
          event.preventDefault();
          virtual.scrollToIndex(event.key === 'Home' ? 0 : rows.length - 1);
        }}
        onScroll={({ currentTarget: { scrollTop, clientHeight, scrollHeight } }) => {
          isAtEnd.current = scrollHeight - scrollTop - clientHeight < AT_THE_END;
        }}
      >
        <ol style={{ height: virtual.getTotalSize() }}>
          {virtual.getVirtualItems().map(({ index, key, start }) => {
            const row = rows[index];
            return (
              row && (
                <li
                  key={key}
                  ref={virtual.measureElement}
                  data-index={index}
                  data-kind={row.kind}
                  data-tone={row.kind === 'happened' ? row.tone : undefined}
                  aria-setsize={rows.length}
                  aria-posinset={index + 1}
                  style={{ transform: `translateY(${start}px)` }}
                >
                  <Line row={row} onToggle={toggle} />
                </li>
              )
            );
          })}
        </ol>
      </Scrolling>
    </section>
  );
}

function Line({ row, onToggle }: { row: Row; onToggle: (key: string) => void }) {
  if (row.kind === 'idle')
    return (
      <>
        <span />
        <span className="timeline-what">{row.title}</span>
      </>
    );
  return (
    <>
      <span className="timeline-at">
        <Moment at={row.at} milliseconds />
      </span>
      <div className="timeline-what">
        {row.kind === 'happened' && <What row={row} />}
        {row.kind === 'report' && <Reported progress={row.report.progress} message={row.report.message} />}
        {row.kind === 'progress' &&
          (row.reports === 1 ? (
            <Reported progress={row.last.progress} message={row.last.message} />
          ) : (
            <button
              type="button"
              className="quiet fold"
              aria-expanded={row.open}
              onClick={() => onToggle(row.key)}
            >
              <span aria-hidden="true">{row.open ? '▾' : '▸'}</span> {many(row.reports, 'report')} of
              progress, the last: <Reported progress={row.last.progress} message={row.last.message} />
            </button>
          ))}
      </div>
    </>
  );
}

function Reported({ progress, message }: { progress: number; message: string | null }) {
  return (
    <span>
      {progress} %{message !== null && ' '}
      {message !== null && <Said>{message}</Said>}
    </span>
  );
}

function What({ row }: { row: Extract<Row, { kind: 'happened' }> }) {
  return (
    <>
      <strong>{row.title}</strong>
      {row.ran !== null && <span className="hint"> after {span(row.ran)}</span>}
      {row.actor !== null && (
        <span className="hint">
          {' '}
          by <Said>{row.actor}</Said>
        </span>
      )}
      {row.worker !== null && (
        <span className="hint">
          {' '}
          on <Said className="id">{row.worker}</Said>
        </span>
      )}
      {row.next !== null && <span className="hint"> · next at {moment(row.next, true)}</span>}
      {row.why !== null && (
        <span className="timeline-why">
          <Said>{row.why}</Said>
        </span>
      )}
      {row.failure && <FailureSaid failure={row.failure} />}
    </>
  );
}

/** A long message is cut, since it would push all else out of sight. */
const LONGEST = 600;

/** A failure as its handler told it, and whether another attempt could help. */
export function FailureSaid({ failure: { type, message, attempt, retryable } }: { failure: Failure }) {
  const [whole, setWhole] = useState(false);
  const isLong = message.length > LONGEST;
  return (
    <div className="failure">
      <span className="failure-type">
        <Said className="id">{type}</Said>
        <span className="hint">{retryable ? 'may be tried again' : 'permanent, no attempt can succeed'}</span>
      </span>
      {whole ? (
        <Scrolling label={`Message of attempt ${attempt}`} className="failure-message">
          <Said>{message}</Said>
        </Scrolling>
      ) : (
        <Said>{isLong ? `${message.slice(0, LONGEST)}…` : message}</Said>
      )}
      {isLong && (
        <button type="button" className="quiet" aria-expanded={whole} onClick={() => setWhole(!whole)}>
          {whole ? 'Show less' : `Show all ${count(message.length)} characters`}
        </button>
      )}
    </div>
  );
}
