// The filters of the list, as a form that writes the address.

import { type KeyboardEvent, memo, type ReactNode, useEffect, useId, useRef, useState } from 'react';
import { useClient } from 'urql';
import { FilterChoicesDocument, type JobFilter, type JobPriority, type JobStatus } from '../../api/generated';
import { STATUS, STATUSES } from '../../format';
import { go, href } from '../../route';
import { useShortcuts } from '../../shortcuts';
import {
  type Asked,
  conditions,
  inWords,
  localField,
  momentOfField,
  momentSaid,
  narrowed,
  ORDERS,
  orderName,
  PRIORITY,
  parametersOf,
} from './filter';

interface Option {
  value: string;
  name: string;
}

const named = (value: string): Option => ({ value, name: value });
const STATUS_OPTIONS = STATUSES.map((value) => ({ value, name: STATUS[value] }));
const PRIORITY_OPTIONS = Object.entries(PRIORITY).map(([value, name]) => ({ value, name }));

/** Types and queues to choose from; none until they are known, or where the viewer may not see them. */
function useChoices(): { types: string[]; queues: string[] } {
  const client = useClient();
  const [choices, setChoices] = useState<{ types: string[]; queues: string[] }>({ types: [], queues: [] });
  useEffect(() => {
    let over = false;
    void client
      .query(FilterChoicesDocument, {})
      .toPromise()
      .then(({ data }) => {
        if (!over && data)
          setChoices({
            types: data.jobTypes.map(({ name }) => name).sort(),
            queues: data.queues.map(({ name }) => name).sort(),
          });
      });
    return () => {
      over = true;
    };
  }, [client]);
  return choices;
}

/** The filters. Each choice is a step of the browser's history; the key `/` leads here. */
export const Filters = memo(function Filters({ filter, orderBy }: Asked) {
  const { types, queues } = useChoices();
  const [open, setOpen] = useState(false);
  const first = useRef<HTMLInputElement>(null);
  const toggle = useRef<HTMLButtonElement>(null);
  const number = conditions(filter);
  useShortcuts({
    '/': () => {
      setOpen(true);
      // On a small screen the fields are not there before they are opened.
      requestAnimationFrame(() => {
        first.current?.focus();
        first.current?.select();
      });
    },
  });

  const show = (next: Partial<Asked>) => go(href('jobs', parametersOf({ filter, orderBy, ...next })));
  const narrow = (name: keyof JobFilter, value: string[] | string | null) =>
    show({ filter: narrowed(filter, name, value as never) });

  return (
    <search className="job-filters" data-open={open} aria-label="Filters">
      <button
        type="button"
        ref={toggle}
        className="job-filters-toggle"
        aria-expanded={open}
        onClick={() => setOpen(!open)}
      >
        Filters{number > 0 && ` (${number})`}
      </button>
      <div className="job-filters-fields">
        <TextField
          label="Job id"
          value={filter.ids?.join(' ') ?? ''}
          placeholder="one or more"
          input={first}
          onChange={(text) => narrow('ids', text.split(/[\s,;]+/).filter(Boolean))}
        />
        <Choice
          label="Status"
          options={STATUS_OPTIONS}
          chosen={filter.status ?? []}
          onChange={(value) => narrow('status', value as JobStatus[])}
        />
        <Choice
          label="Type"
          options={types.map(named)}
          chosen={filter.type ?? []}
          onChange={(value) => narrow('type', value)}
        />
        <Choice
          label="Queue"
          options={queues.map(named)}
          chosen={filter.queue ?? []}
          onChange={(value) => narrow('queue', value)}
        />
        <Choice
          label="Priority"
          options={PRIORITY_OPTIONS}
          chosen={filter.priority ?? []}
          onChange={(value) => narrow('priority', value as JobPriority[])}
        />
        <Tags tags={filter.tags ?? []} onChange={(value) => narrow('tags', value)} />
        <Popup label="Created" said={createdSaid(filter)}>
          <MomentField
            label="Created after"
            value={filter.createdAfter}
            onChange={(value) => narrow('createdAfter', value)}
          />
          <MomentField
            label="Created before"
            value={filter.createdBefore}
            onChange={(value) => narrow('createdBefore', value)}
          />
        </Popup>
        <Popup label="Related by" said={relationsSaid(filter)}>
          {RELATIONS.map(([name, label, placeholder]) => (
            <TextField
              key={name}
              label={label}
              value={filter[name] ?? ''}
              placeholder={placeholder}
              onChange={(text) => narrow(name, text)}
            />
          ))}
        </Popup>
        <label className="job-filters-order">
          <span className="job-filters-label">Order</span>
          <select
            value={orderName(orderBy)}
            onChange={({ target }) => {
              const [field, direction] = target.value.split('-', 2);
              show({ orderBy: { field, direction } as Asked['orderBy'] });
            }}
          >
            {Object.entries(ORDERS).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
            {!(orderName(orderBy) in ORDERS) && <option>{orderName(orderBy)}</option>}
          </select>
        </label>
        {number > 0 && (
          <button
            type="button"
            className="job-filters-clear"
            onClick={() => {
              show({ filter: {} });
              (first.current?.offsetParent ? first.current : toggle.current)?.focus();
            }}
          >
            Clear filters
          </button>
        )}
      </div>
    </search>
  );
});

/** A text that counts once it is complete: at Enter, or when the field is left. */
function TextField({
  label,
  value,
  placeholder,
  input,
  onChange,
}: {
  label: string;
  value: string;
  placeholder: string;
  input?: React.RefObject<HTMLInputElement | null>;
  onChange: (text: string) => void;
}) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const done = () => text.trim() !== value && onChange(text.trim());
  return (
    <label className="job-filters-id">
      <span className="job-filters-label">{label}</span>
      <input
        ref={input}
        type="search"
        autoComplete="off"
        spellCheck={false}
        value={text}
        placeholder={placeholder}
        onChange={({ target }) => setText(target.value)}
        onBlur={done}
        onKeyDown={({ key }) => key === 'Enter' && done()}
      />
    </label>
  );
}

function MomentField({
  label,
  value,
  onChange,
}: {
  label: string;
  value: string | null | undefined;
  onChange: (value: string | null) => void;
}) {
  const there = localField(value);
  const [text, setText] = useState(there);
  useEffect(() => setText(there), [there]);
  const done = () => text !== there && onChange(momentOfField(text));
  return (
    <label>
      <span className="job-filters-label">{label}</span>
      <input
        type="datetime-local"
        value={text}
        onChange={({ target }) => setText(target.value)}
        onBlur={done}
        onKeyDown={({ key }) => key === 'Enter' && done()}
      />
    </label>
  );
}

/** Move what opens near the right edge of the screen to the left, so that the page becomes no wider. */
function keepOnScreen(element: HTMLElement | null): void {
  const over = element ? element.getBoundingClientRect().right + 8 - document.documentElement.clientWidth : 0;
  if (element && over > 0) element.style.translate = `${-over}px`;
}

/** A button that says what is chosen, and opens what it is chosen with. */
function Popup({ label, said, children }: { label: string; said: string; children: ReactNode }) {
  const [open, setOpen] = useState(false);
  const id = useId();
  const button = useRef<HTMLButtonElement>(null);

  function onKeyDown(event: KeyboardEvent): void {
    if (event.key !== 'Escape' || !open) return;
    event.preventDefault();
    setOpen(false);
    button.current?.focus();
  }

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the keys belong to the button and the fields in it
    <div
      className="job-choice"
      onKeyDown={onKeyDown}
      onBlur={({ currentTarget, relatedTarget }) => {
        if (!currentTarget.contains(relatedTarget)) setOpen(false);
      }}
    >
      <span className="job-filters-label" id={id}>
        {label}
      </span>
      <button
        ref={button}
        type="button"
        id={`${id}-button`}
        aria-labelledby={`${id} ${id}-button`}
        aria-expanded={open}
        aria-controls={open ? `${id}-list` : undefined}
        data-chosen={said !== '' || undefined}
        title={said}
        onClick={() => setOpen(!open)}
      >
        <span>{said || 'any'}</span>
      </button>
      {open && (
        // A press beside a field is no reason to close: the group itself takes the focus then.
        <fieldset id={`${id}-list`} ref={keepOnScreen} tabIndex={-1}>
          <legend className="visually-hidden">{label}</legend>
          {children}
        </fieldset>
      )}
    </div>
  );
}

/** Any number of some options. */
function Choice({
  label,
  options,
  chosen,
  onChange,
}: {
  label: string;
  options: readonly Option[];
  chosen: readonly string[];
  onChange: (chosen: string[]) => void;
}) {
  const known = new Set(options.map(({ value }) => value));
  // What an address names is shown even if the server does not know it.
  const all = [...options, ...chosen.filter((value) => !known.has(value)).map(named)];
  const said = all.filter(({ value }) => chosen.includes(value)).map(({ name }) => name);
  const chosenWith = (value: string, on: boolean) =>
    all.map((option) => option.value).filter((one) => (one === value ? on : chosen.includes(one)));
  return (
    <Popup label={label} said={said.join(', ')}>
      {all.map(({ value, name }) => (
        <label key={value} className="check">
          <input
            type="checkbox"
            checked={chosen.includes(value)}
            onChange={({ target }) => onChange(chosenWith(value, target.checked))}
          />
          {name}
        </label>
      ))}
      {all.length === 0 && <p className="hint">There are none to choose from.</p>}
    </Popup>
  );
}

function createdSaid({ createdAfter, createdBefore }: JobFilter): string {
  const parts = [
    createdAfter && `after ${momentSaid(createdAfter)}`,
    createdBefore && `before ${momentSaid(createdBefore)}`,
  ];
  return parts.filter(Boolean).join(', ');
}

/** What several jobs have in common, each with how it is written. */
const RELATIONS = [
  ['parent', 'Created by job', 'its id'],
  ['key', 'Key', 'all of it'],
  ['concurrencyKey', 'Concurrency key', 'all of it'],
  ['schedule', 'Schedule', 'its name'],
] as const;

const relationsSaid = ({ parent, key, concurrencyKey, schedule }: JobFilter): string =>
  inWords({ parent, key, concurrencyKey, schedule });

function Tags({ tags, onChange }: { tags: readonly string[]; onChange: (tags: string[]) => void }) {
  const [text, setText] = useState('');
  const input = useRef<HTMLInputElement>(null);
  function add(): void {
    const tag = text.trim();
    setText('');
    if (tag && !tags.includes(tag)) onChange([...tags, tag]);
  }
  return (
    <div className="job-filters-tags">
      <label>
        <span className="job-filters-label">Tag</span>
        <input
          ref={input}
          value={text}
          autoComplete="off"
          spellCheck={false}
          placeholder={tags.length ? 'and another one' : 'any'}
          onChange={({ target }) => setText(target.value)}
          onBlur={add}
          onKeyDown={({ key }) => key === 'Enter' && add()}
        />
      </label>
      {tags.map((tag) => (
        <button
          key={tag}
          type="button"
          className="job-tag"
          aria-label={`Remove the tag ${tag}`}
          onClick={() => {
            onChange(tags.filter((other) => other !== tag));
            input.current?.focus();
          }}
        >
          {tag} <span aria-hidden="true">✕</span>
        </button>
      ))}
    </div>
  );
}
