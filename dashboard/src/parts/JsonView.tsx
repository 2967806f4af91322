// JSON of any size as a tree that is unfolded where it is looked at, its numbers as they are written.

import { useVirtualizer } from '@tanstack/react-virtual';
import { isLosslessNumber } from 'lossless-json';
import { type KeyboardEvent, useEffect, useId, useMemo, useRef, useState } from 'react';
import { type Exact, write } from '../api/exact';
import { bytes, count, many } from '../format';
import { Copy } from './Copy';
import { visible } from './Said';
import { Scrolling } from './Scrolling';
import './JsonView.css';

/** One line of the tree. Paths are JSON pointers, so that they stay the same when the value comes again. */
export interface JsonRow {
  path: string;
  level: number;
  /** The member's name or the item's place; null of the root and of a part of a text. */
  name: string | number | null;
  value: Exact;
  /** Whether something is folded in it: null where nothing could be. */
  open: boolean | null;
  /** Which part of a long text this line is; null for a whole value. */
  part: string | null;
  position: number;
  siblings: number;
}

/** A longer text is cut, and comes in parts once it is unfolded. */
const LONGEST_TEXT = 300;
const PART = 1000;
/** As many values as a screen shows are unfolded from the start. */
const UNFOLDED = 40;

type Members = readonly (readonly [string | number, Exact])[];

type Container = Exact[] | { [name: string]: Exact };

const isContainer = (value: Exact): value is Container =>
  value !== null && typeof value === 'object' && !isLosslessNumber(value);

function membersOf(value: Exact): Members {
  if (!isContainer(value)) return [];
  return Array.isArray(value) ? value.map((one, index) => [index, one] as const) : Object.entries(value);
}

function sizeOf(value: Exact): number {
  if (!isContainer(value)) return 0;
  return Array.isArray(value) ? value.length : Object.keys(value).length;
}

const isLong = (value: Exact): value is string => typeof value === 'string' && value.length > LONGEST_TEXT;

const pathTo = (path: string, name: string | number): string =>
  `${path}/${String(name).replaceAll('~', '~0').replaceAll('/', '~1')}`;

/** Parts of a text, none of which cuts a character in two. */
function partsOf(text: string): string[] {
  const parts = [];
  for (let from = 0; from < text.length; ) {
    let to = Math.min(from + PART, text.length);
    const code = text.charCodeAt(to - 1);
    if (to < text.length && code >= 0xd800 && code <= 0xdbff) to -= 1;
    parts.push(text.slice(from, to));
    from = to;
  }
  return parts;
}

/** The lines of a value of which these paths are open. Nothing of what is folded is looked at. */
export function jsonRows(root: Exact, open: ReadonlySet<string>): JsonRow[] {
  const rows: JsonRow[] = [];
  function add(
    value: Exact,
    name: string | number | null,
    path: string,
    level: number,
    position: number,
    siblings: number,
  ): void {
    const canOpen = sizeOf(value) > 0 || isLong(value);
    const isOpen = canOpen && open.has(path);
    rows.push({ path, level, name, value, open: canOpen ? isOpen : null, part: null, position, siblings });
    if (!isOpen) return;
    if (typeof value === 'string') {
      const parts = partsOf(value);
      for (const [index, part] of parts.entries())
        rows.push({
          path: `${path}#${index}`,
          level: level + 1,
          name: null,
          value,
          open: null,
          part,
          position: index + 1,
          siblings: parts.length,
        });
      return;
    }
    const members = membersOf(value);
    for (const [index, [key, member]] of members.entries())
      add(member, key, pathTo(path, key), level + 1, index + 1, members.length);
  }
  add(root, null, '', 1, 1, 1);
  return rows;
}

/** What is open at first: level by level from the root, as long as the lines are few. */
export function firstOpen(root: Exact): Set<string> {
  const open = new Set<string>();
  let lines = 1;
  let level: [string, Exact][] = [['', root]];
  while (level.length) {
    const below: [string, Exact][] = [];
    for (const [path, value] of level) {
      const size = sizeOf(value);
      if (size === 0 || (path !== '' && lines + size > UNFOLDED)) continue;
      lines += size;
      open.add(path);
      if (lines <= UNFOLDED)
        for (const [name, member] of membersOf(value)) below.push([pathTo(path, name), member]);
    }
    level = below;
  }
  return open;
}

/** Every path at which something can be unfolded, up to so many of them. */
function allOpen(root: Exact, limit: number): Set<string> {
  const open = new Set<string>();
  const left: [string, Exact][] = [['', root]];
  for (let next = left.shift(); next && open.size < limit; next = left.shift()) {
    const [path, value] = next;
    if (sizeOf(value) === 0) continue;
    open.add(path);
    for (const [name, member] of membersOf(value))
      if (sizeOf(member) > 0) left.push([pathTo(path, name), member]);
  }
  return open;
}
const MOST_OPEN = 20_000;

/** How much of the raw text is shown before one asks for all of it: a browser lays out long texts slowly. */
const RAW = 100_000;
const LINE = 24;

/** A JSON value, called `label`: a tree that arrow keys walk, or its text. */
export function JsonView({ value, label }: { value: Exact; label: string }) {
  const text = useMemo(() => write(value), [value]);
  const size = useMemo(() => new TextEncoder().encode(text).length, [text]);
  const [open, setOpen] = useState<ReadonlySet<string>>(() => firstOpen(value));
  const [raw, setRaw] = useState(false);
  return (
    <div className="json">
      <div className="row json-tools">
        <span className="hint">{bytes(size)}</span>
        {!raw && sizeOf(value) > 0 && (
          <>
            <button type="button" className="quiet" onClick={() => setOpen(allOpen(value, MOST_OPEN))}>
              Unfold all
            </button>
            <button type="button" className="quiet" onClick={() => setOpen(new Set())}>
              Fold all
            </button>
          </>
        )}
        <button type="button" className="quiet" aria-pressed={raw} onClick={() => setRaw(!raw)}>
          As text
        </button>
        <Copy text={text} label={`Copy ${label.toLowerCase()}`} />
      </div>
      {raw ? <RawText text={text} label={label} /> : <Tree {...{ value, label, open, setOpen }} />}
    </div>
  );
}

function RawText({ text, label }: { text: string; label: string }) {
  const [whole, setWhole] = useState(false);
  const isCut = !whole && text.length > RAW;
  return (
    <>
      <Scrolling label={`${label} as text`} className="json-raw">
        <pre>{visible(isCut ? text.slice(0, RAW) : text)}</pre>
      </Scrolling>
      {isCut && (
        <button type="button" onClick={() => setWhole(true)}>
          Show all {count(text.length)} characters
        </button>
      )}
    </>
  );
}

function Tree({
  value,
  label,
  open,
  setOpen,
}: {
  value: Exact;
  label: string;
  open: ReadonlySet<string>;
  setOpen: (open: ReadonlySet<string>) => void;
}) {
  const rows = useMemo(() => jsonRows(value, open), [value, open]);
  const [chosen, setChosen] = useState('');
  const prefix = useId();
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => LINE,
    getItemKey: (index) => rows[index]?.path ?? index,
    overscan: 10,
  });
  const found = rows.findIndex(({ path }) => path === chosen);
  const at = Math.max(0, found);

  // What was chosen may have been folded away.
  useEffect(() => {
    if (found < 0) setChosen('');
  }, [found]);

  function choose(index: number): void {
    const row = rows[Math.min(Math.max(index, 0), rows.length - 1)];
    if (!row) return;
    setChosen(row.path);
    virtual.scrollToIndex(rows.indexOf(row));
  }

  function toggle(row: JsonRow, to = !row.open): void {
    if (row.open === null) return;
    const next = new Set(open);
    if (to) next.add(row.path);
    else next.delete(row.path);
    setOpen(next);
  }

  function pressed(event: KeyboardEvent): void {
    const row = rows[at];
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const screen = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / LINE) - 1);
    const actions: Record<string, () => void> = {
      ArrowDown: () => choose(at + 1),
      ArrowUp: () => choose(at - 1),
      PageDown: () => choose(at + screen),
      PageUp: () => choose(at - screen),
      Home: () => choose(0),
      End: () => choose(rows.length - 1),
      ArrowRight: () => (row.open ? choose(at + 1) : toggle(row, true)),
      ArrowLeft: () => {
        if (row.open) return toggle(row, false);
        for (let above = at - 1; above >= 0; above--)
          if ((rows[above] as JsonRow).level < row.level) return choose(above);
      },
      Enter: () => toggle(row),
      ' ': () => toggle(row),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  return (
    <div
      className="json-tree"
      ref={scroller}
      role="tree"
      aria-label={label}
      tabIndex={0}
      aria-activedescendant={`${prefix}${at}`}
      onKeyDown={pressed}
    >
      <div role="presentation" style={{ height: virtual.getTotalSize() }}>
        {virtual.getVirtualItems().map(({ index, key, start }) => {
          const row = rows[index];
          return (
            row && (
              // biome-ignore lint/a11y/useFocusableInteractive: the tree has the focus, and names this one
              // biome-ignore lint/a11y/useKeyWithClickEvents: the tree takes the keys
              <div
                key={key}
                id={`${prefix}${index}`}
                ref={virtual.measureElement}
                data-index={index}
                role="treeitem"
                aria-level={row.level}
                aria-setsize={row.siblings}
                aria-posinset={row.position}
                aria-expanded={row.open ?? undefined}
                aria-selected={index === at}
                style={{
                  transform: `translateY(${start}px)`,
                  paddingInlineStart: `${Math.min(row.level, 24) + 0.125}rem`,
                }}
                onClick={() => {
                  setChosen(row.path);
                  // A click that ends a selection selects.
                  if (!getSelection()?.toString()) toggle(row);
                }}
              >
                <JsonLine row={row} />
              </div>
            )
          );
        })}
      </div>
    </div>
  );
}

function JsonLine({ row: { name, value, open, part } }: { row: JsonRow }) {
  if (part !== null) return <span className="json-text">{written(part).slice(1, -1)}</span>;
  return (
    <>
      <span className="json-fold" aria-hidden="true">
        {open === null ? '' : open ? '▾' : '▸'}
      </span>
      {name !== null && (
        <>
          <span className={typeof name === 'number' ? 'json-place' : 'json-name'}>
            {typeof name === 'number' ? name : written(name)}
          </span>
          {': '}
        </>
      )}
      <JsonValue value={value} open={open} />
    </>
  );
}

/** A text as JSON writes it, with what is not seen as `\u202e`, which JSON knows as well. */
const written = (text: string): string => visible(JSON.stringify(text));

function JsonValue({ value, open }: { value: Exact; open: boolean | null }) {
  if (typeof value === 'string') {
    if (open === null) return <span className="json-text">{written(value)}</span>;
    const head = written(value.slice(0, LONGEST_TEXT)).slice(0, -1);
    return (
      <>
        {!open && <span className="json-text">{head}… </span>}
        <span className="hint">
          {open ? `text of ${count(value.length)} characters` : `show all ${count(value.length)} characters`}
        </span>
      </>
    );
  }
  if (value === null || typeof value === 'boolean') return <span className="json-word">{String(value)}</span>;
  if (!isContainer(value)) return <span className="json-number">{String(value)}</span>;
  const isList = Array.isArray(value);
  const size = sizeOf(value);
  if (size === 0) return <span>{isList ? '[ ]' : '{ }'}</span>;
  return (
    <>
      <span>{isList ? '[' : '{'}</span>
      {!open && <span>{isList ? '…]' : '…}'}</span>}
      <span className="hint"> {isList ? many(size, 'item') : many(size, 'member')}</span>
    </>
  );
}
