// The rows of the list: only those on the screen are there, whatever their number, and each is drawn again only when its
// job has changed.

import { useVirtualizer } from '@tanstack/react-virtual';
import {
  type KeyboardEvent,
  memo,
  type PointerEvent,
  useCallback,
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
} from 'react';
import { Observable, useObservable } from '../../api/observable';
import type { ListedJob } from '../../api/jobList';
import { count, short, span } from '../../format';
import { Bar, StatusBadge } from '../../parts/job';
import { Age, Until } from '../../parts/time';
import { go, href } from '../../route';
import { useShortcuts } from '../../shortcuts';
import { PRIORITY } from './filter';
import type { ReadList } from './useReading';

/** Below this width a row is a card; the style sheet has the same number. */
const NARROW = matchMedia('(max-width: 48rem)');
const narrow = new Observable(NARROW.matches);
NARROW.addEventListener('change', () => narrow.set(NARROW.matches));

/** Heights of a row in rem, as the style sheet has them: rows are placed without being measured. */
const ROW = 2.75;
const CARD = 11;
const HEADER = 2.25;
/** Pixels from the top within which somebody is still there. */
export const TOP = 4;
/** Rows from the end at which the next page is asked for. */
const AHEAD = 30;

const rem = (): number => Number.parseFloat(getComputedStyle(document.documentElement).fontSize) || 16;

/** What keeps the rows where they are, beside the selection. */
export interface Attention {
  scrolled: boolean;
  hovered: boolean;
  focused: boolean;
}

export function Table({
  list,
  selected,
  onSelect,
  onAttention,
}: {
  list: ReadList;
  selected: ReadonlySet<string>;
  /** Select these, or no longer. */
  onSelect: (ids: readonly string[], on: boolean) => void;
  onAttention: (change: Partial<Attention>) => void;
}) {
  const { reading, place } = list;
  const { ids } = reading;
  const isNarrow = useObservable(narrow);
  const [unit] = useState(rem);
  const height = (isNarrow ? CARD : ROW) * unit;
  const header = HEADER * unit;
  const scroller = useRef<HTMLElement>(null);
  const body = useRef<HTMLTableSectionElement>(null);
  /** The row that is reached with Tab, and that the keys are about. */
  const [active, setActive] = useState(place.active);
  const activeIndex = Math.max(0, active === null ? 0 : reading.indexOf(active));
  const focusOn = useRef<string | null>(null);
  const rangeFrom = useRef<string | null>(null);

  const rows = useVirtualizer({
    count: ids.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => height,
    getItemKey: useCallback((index: number) => ids[index] ?? index, [ids]),
    initialOffset: () => place.top,
    scrollMargin: header,
    scrollPaddingStart: header,
    overscan: 6,
    useFlushSync: false,
    // The active row stays there when it is scrolled away: the focus would be lost with it.
    rangeExtractor: ({ startIndex, endIndex, overscan, count: number }) => {
      const first = Math.max(0, startIndex - overscan);
      const last = Math.min(number - 1, endIndex + overscan);
      const range = Array.from({ length: last - first + 1 }, (_, step) => first + step);
      if (active !== null && activeIndex < first) range.unshift(activeIndex);
      if (active !== null && activeIndex > last) range.push(activeIndex);
      return range;
    },
  });
  const items = rows.getVirtualItems();
  const firstShown = rows.range?.startIndex ?? 0;
  const lastShown = rows.range?.endIndex ?? 0;

  useEffect(() => list.onScreen(firstShown, lastShown));
  useEffect(() => {
    if (reading.more && !list.loading && !list.pageProblem && lastShown >= ids.length - AHEAD)
      list.loadMore();
  });

  // Another size of the rows: what was read stays at the top.
  const drawn = useRef(height);
  useLayoutEffect(() => {
    if (drawn.current === height) return;
    const read = Math.round(place.top / drawn.current);
    drawn.current = height;
    rows.measure();
    // At once, and not when it is drawn again: there is no place to scroll to before.
    if (body.current) body.current.style.height = `${ids.length * height}px`;
    scroller.current?.scrollTo(0, read * height);
  });

  useEffect(() => {
    const wanted = focusOn.current;
    if (wanted === null) return;
    const row = body.current?.querySelector<HTMLElement>(`tr[data-id="${CSS.escape(wanted)}"]`);
    if (!row) return;
    focusOn.current = null;
    row.focus({ preventScroll: true });
  });

  useEffect(() => {
    place.active = active;
    if (active === null || reading.indexOf(active) >= 0) return;
    // The list was renewed without the row. A browser says of none that was taken away that the focus has left it.
    setActive(null);
    if (!body.current?.contains(document.activeElement)) onAttention({ focused: false });
  }, [active, reading, ids, place, onAttention]);

  function move(index: number): void {
    const to = Math.min(ids.length - 1, Math.max(0, index));
    const id = ids[to];
    if (id === undefined) return;
    focusOn.current = id;
    setActive(id);
    rows.scrollToIndex(to, { align: 'auto' });
    // It may be the one already: nothing would be rendered, and the focus would stay where it is.
    body.current
      ?.querySelector<HTMLElement>(`tr[data-id="${CSS.escape(id)}"]`)
      ?.focus({ preventScroll: true });
  }
  /** From outside of the rows the first key goes to the row that the keys are about. */
  const step = (by: number) =>
    move(body.current?.contains(document.activeElement) ? activeIndex + by : activeIndex);

  const current = useRef({ selected, onSelect, reading });
  current.current = { selected, onSelect, reading };
  const toggle = useCallback((id: string, on: boolean, isRange: boolean) => {
    const { onSelect: select, reading: read } = current.current;
    select(isRange ? read.range(rangeFrom.current, id) : [id], on);
    rangeFrom.current = id;
  }, []);
  function toggleActive(isRange: boolean): void {
    const id = ids[activeIndex];
    if (id !== undefined) toggle(id, isRange || !selected.has(id), isRange);
  }

  useShortcuts({
    j: () => step(1),
    k: () => step(-1),
    x: () => toggleActive(false),
    X: () => toggleActive(true),
  });

  function onKeyDown(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isRow = event.target instanceof HTMLTableRowElement;
    const perPage = Math.max(1, lastShown - firstShown - 1);
    const id = ids[activeIndex];
    const action = {
      ArrowDown: () => step(1),
      ArrowUp: () => step(-1),
      PageDown: () => move(activeIndex + perPage),
      PageUp: () => move(activeIndex - perPage),
      Home: () => move(0),
      End: () => move(ids.length - 1),
      ...(isRow && { ' ': () => toggleActive(event.shiftKey), Enter: () => id && go(href(`jobs/${id}`)) }),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  const onPointer = (hovered: boolean) => (event: PointerEvent) => {
    // A finger does not rest on a row.
    if (event.pointerType === 'mouse') onAttention({ hovered });
  };

  const all = ids.length > 0 && ids.every((id) => selected.has(id));
  const some = !all && ids.some((id) => selected.has(id));

  return (
    <section
      ref={scroller}
      className="job-rows"
      aria-label="List of jobs"
      onScroll={({ currentTarget }) => {
        place.top = currentTarget.scrollTop;
        onAttention({ scrolled: place.top > TOP });
      }}
    >
      <table
        // biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: its rows are moved through with the keys
        role="grid"
        aria-label="Jobs"
        aria-multiselectable="true"
        aria-rowcount={Math.max(ids.length, reading.total ?? 0) + 1}
      >
        <thead>
          <tr aria-rowindex={1}>
            <th scope="col" className="select">
              <label>
                <input
                  type="checkbox"
                  aria-label="Select all that are shown"
                  checked={all}
                  ref={(box) => {
                    if (box) box.indeterminate = some;
                  }}
                  onChange={({ target }) => onSelect(ids, target.checked)}
                />
                <span className="narrow-only" aria-hidden="true">
                  Select all {count(ids.length)} that are shown
                </span>
              </label>
            </th>
            {COLUMNS.map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody
          ref={body}
          style={{ height: rows.getTotalSize() }}
          onKeyDown={onKeyDown}
          onPointerEnter={onPointer(true)}
          onPointerLeave={onPointer(false)}
          onFocus={({ target }) => {
            const id = target.closest<HTMLElement>('tr[data-id]')?.dataset.id;
            if (id !== undefined) setActive(id);
            onAttention({ focused: true });
          }}
          onBlur={({ currentTarget, relatedTarget }) => {
            if (!currentTarget.contains(relatedTarget)) onAttention({ focused: false });
          }}
        >
          {items.map(({ index, start }) => {
            const id = ids[index];
            const job = id === undefined ? undefined : reading.job(id);
            return (
              id !== undefined &&
              job && (
                <Row
                  key={id}
                  job={job}
                  index={index}
                  top={start - header}
                  selected={selected.has(id)}
                  gone={reading.isGone(id)}
                  active={index === activeIndex}
                  onToggle={toggle}
                />
              )
            );
          })}
        </tbody>
      </table>
      <Rest list={list} />
    </section>
  );
}

const COLUMNS = [
  'Status',
  'Type',
  'Job',
  'Progress',
  'Queue',
  'Priority',
  'Tags',
  'Attempt',
  'Created',
  'Run time',
  'Error',
];

/** What is behind the last row. */
function Rest({ list: { reading, loading, pageProblem, loadMore } }: { list: ReadList }) {
  return (
    <div className="job-rest row">
      {pageProblem && <span role="alert">{pageProblem}</span>}
      {reading.more ? (
        <button type="button" disabled={loading} onClick={loadMore}>
          {loading ? 'Loading…' : 'Load more'}
        </button>
      ) : (
        <span className="hint">This is the end of the list.</span>
      )}
    </div>
  );
}

interface RowProps {
  job: ListedJob;
  index: number;
  top: number;
  selected: boolean;
  gone: boolean;
  active: boolean;
  onToggle: (id: string, on: boolean, isRange: boolean) => void;
}

const Row = memo(function Row({ job, index, top, selected, gone, active, onToggle }: RowProps) {
  const { id, type, queue, status, priority, progress, progressMessage, tags, error } = job;
  const stop = active ? 0 : -1;
  return (
    <tr
      data-id={id}
      data-unmatched={gone || undefined}
      aria-rowindex={index + 2}
      aria-selected={selected}
      tabIndex={stop}
      style={{ transform: `translateY(${top}px)` }}
    >
      <td className="select">
        <label>
          <input
            type="checkbox"
            tabIndex={stop}
            aria-label={`Select job ${short(id)}`}
            checked={selected}
            onChange={({ target, nativeEvent }) =>
              onToggle(id, target.checked, nativeEvent instanceof MouseEvent && nativeEvent.shiftKey)
            }
          />
        </label>
      </td>
      <td className="status">
        <StatusBadge status={status} />
        {gone && <small>no longer matches</small>}
      </td>
      <td className="type" title={type}>
        {type}
      </td>
      <td className="job">
        <a className="id" href={href(`jobs/${id}`)} title={id} tabIndex={stop}>
          {short(id)}
        </a>
      </td>
      <td className="progress" title={progressMessage ?? undefined}>
        {(status === 'PROCESSING' || progress > 0) && (
          <>
            <Bar progress={progress} status={status} label={`Progress of job ${short(id)}`} />
            <small>
              {progress} %{progressMessage && ` · ${progressMessage}`}
            </small>
          </>
        )}
      </td>
      <td data-label="Queue" title={queue}>
        {queue}
      </td>
      <td data-label="Priority" data-priority={priority}>
        {PRIORITY[priority]}
      </td>
      <td className="job-tags" data-label="Tags" title={tags.join(', ')}>
        {tags.map((tag) => (
          <span className="job-tag" key={tag}>
            {tag}
          </span>
        ))}
      </td>
      <td data-label="Attempt">{job.attempt > 0 && `${job.attempt} of ${job.maxRetries + 1}`}</td>
      <td data-label="Created">
        <Age from={job.createdAt} suffix=" ago" />
      </td>
      <td data-label="Run time">
        <RunTime job={job} />
      </td>
      <td className="error" title={error ? `${error.type}: ${error.summary}` : undefined}>
        {error?.summary}
      </td>
    </tr>
  );
});

function RunTime({ job: { status, startedAt, durationMs, nextAttemptAt, runAt } }: { job: ListedJob }) {
  if (status === 'PROCESSING' && startedAt) return <Age from={startedAt} />;
  if (status === 'RETRYING' && nextAttemptAt) return <Until at={nextAttemptAt} />;
  if (status === 'SCHEDULED' && runAt) return <Until at={runAt} />;
  return durationMs === null ? null : span(durationMs);
}
