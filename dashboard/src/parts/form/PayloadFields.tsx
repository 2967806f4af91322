// The fields of a payload on the screen, whatever its schema asks for.

import { type ReactNode, useContext, useId } from 'react';
import { write } from '../../api/exact';
import {
  begun,
  below,
  chosenOf,
  type Draft,
  entriesOf,
  isRaw,
  itemsOf,
  type Members,
  membersOf,
  newId,
  OTHERS,
} from './drafts';
import type { Field, Member } from './fields';
import { type Control, FormState, Json, Labelled, Name } from './Labelled';

interface Place {
  /** Its name; empty for the payload as a whole. */
  name: string;
  path: string;
  required: boolean;
  draft: Draft;
  onChange: (draft: Draft) => void;
}

/** A field of a payload, whatever it is. */
export function PayloadField({ field, ...place }: Place & { field: Field }) {
  const { draft, onChange, name, path, required } = place;
  if (isRaw(draft))
    return (
      <Labelled
        name={name}
        title={field.title}
        path={path}
        required={required}
        hint={`${field.hint} What is here is not what the schema says, so it is shown as JSON.`.trim()}
        beside={
          <button
            type="button"
            className="quiet"
            onClick={() => onChange(required && !field.nullable ? begun(field) : undefined)}
          >
            Begin anew<span className="visually-hidden"> {name}</span>
          </button>
        }
      >
        {(control) => <Json control={control} text={draft.raw} onChange={(raw) => onChange({ raw })} />}
      </Labelled>
    );
  switch (field.kind) {
    case 'object':
      return name === '' ? (
        <Object_ field={field} {...place} />
      ) : (
        <Group field={field} {...place}>
          <Object_ field={field} {...place} />
        </Group>
      );
    case 'list':
      return (
        <Group field={field} {...place}>
          <List field={field} {...place} />
        </Group>
      );
    case 'map':
      return (
        <Group field={field} {...place}>
          <Table field={field} {...place} />
        </Group>
      );
    case 'union':
      return (
        <Group field={field} {...place}>
          <Union field={field} {...place} />
        </Group>
      );
    default:
      return <Leaf field={field} {...place} />;
  }
}

type Of<Kind extends Field['kind']> = Place & { field: Extract<Field, { kind: Kind }> };

/** What applies where a field is left empty. */
function emptyMeans(field: Field, required: boolean, draft: Draft): string {
  if (draft === null) return 'null';
  if (field.fallback !== undefined && field.fallback !== null) return write(field.fallback, 0);
  if (required) return field.nullable ? 'null' : '';
  return 'left out';
}

function Leaf({
  field,
  name,
  path,
  required,
  draft,
  onChange,
}: Of<'text' | 'number' | 'boolean' | 'choice' | 'json'>) {
  const text = typeof draft === 'string' ? draft : '';
  const empty = emptyMeans(field, required, draft);
  const set = (value: string) => onChange(value === '' ? undefined : value);
  const must = required && !field.nullable;
  const { fallback } = field;
  const ending =
    fallback === undefined || fallback === null || field.kind === 'boolean'
      ? ''
      : ` Default: ${write(fallback, 0)}.`;
  const hint = `${field.hint}${ending}`.trim();
  return (
    <Labelled name={name} title={field.title} path={path} required={must} hint={hint}>
      {(control) => {
        switch (field.kind) {
          case 'boolean':
            return (
              <select {...control} value={text} onChange={(event) => set(event.target.value)}>
                <option value="">
                  {must ? 'Choose…' : `— (${empty === 'true' ? 'yes' : empty === 'false' ? 'no' : empty})`}
                </option>
                <option value="true">yes</option>
                <option value="false">no</option>
              </select>
            );
          case 'choice':
            return (
              <select {...control} value={text} onChange={(event) => set(event.target.value)}>
                <option value="">{must ? 'Choose…' : `— (${empty})`}</option>
                {field.options.map(({ value }) => (
                  <option key={write(value, 0)} value={write(value, 0)}>
                    {typeof value === 'string' ? value : write(value, 0)}
                  </option>
                ))}
              </select>
            );
          case 'json':
            return (
              <Json control={control} text={text} placeholder={`JSON; ${empty || 'needed'}`} onChange={set} />
            );
          case 'number':
            return (
              <input
                {...control}
                inputMode={field.integer ? 'numeric' : 'decimal'}
                autoComplete="off"
                value={text}
                placeholder={empty}
                onChange={(event) => set(event.target.value)}
              />
            );
          case 'text':
            return <Text control={control} field={field} text={text} placeholder={empty} onChange={set} />;
        }
      }}
    </Labelled>
  );
}

// Fields of the types email and url would change what is typed: they spell domains anew and drop blanks.
const KEYBOARDS: Record<string, 'email' | 'url'> = { email: 'email', uri: 'url' };
const SAMPLES: Record<string, string> = {
  'date-time': '2026-01-31T12:00:00Z',
  time: '12:00:00',
  duration: 'PT1H30M',
};

function Text({
  control,
  field,
  text,
  placeholder,
  onChange,
}: {
  control: Control;
  field: Extract<Field, { kind: 'text' }>;
  text: string;
  placeholder: string;
  onChange: (text: string) => void;
}) {
  if (field.long)
    return (
      <textarea
        {...control}
        className="grows"
        rows={1}
        value={text}
        placeholder={placeholder}
        onChange={(event) => onChange(event.target.value)}
      />
    );
  // A date that is none is shown as the text that it is.
  const isDate = field.format === 'date' && (text === '' || /^\d{4}-\d\d-\d\d$/.test(text));
  return (
    <input
      {...control}
      type={field.secret ? 'password' : isDate ? 'date' : 'text'}
      inputMode={KEYBOARDS[field.format]}
      autoComplete={field.secret ? 'new-password' : 'off'}
      spellCheck={false}
      value={text}
      placeholder={SAMPLES[field.format] ?? placeholder}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}

/** Before a button goes: the focus stays at the group that it is in, from where Tab goes on. */
const toGroup = ({ currentTarget }: { currentTarget: HTMLElement }): void =>
  currentTarget.closest('fieldset')?.focus({ preventScroll: true });

/** The frame of a field that has parts; where it may be left out, it begins with a button. */
function Group({
  field,
  name,
  path,
  required,
  draft,
  onChange,
  children,
}: Place & { field: Field; children: ReactNode }) {
  const { problems, secrets } = useContext(FormState);
  const id = useId();
  const must = required && !field.nullable;
  const given = draft !== undefined && draft !== null;
  return (
    <fieldset
      className="form-group"
      tabIndex={-1}
      data-path={path}
      aria-describedby={problems[path] ? `${id}-problem` : undefined}
    >
      <legend>
        <Name name={name} title={field.title} required={must} />
      </legend>
      {field.hint && <p className="hint">{field.hint}</p>}
      {secrets.has(path) && (
        <p className="form-secret">The original has secrets here, which nobody is shown: type them anew.</p>
      )}
      {given ? (
        <>
          {children}
          {!must && (
            <button
              type="button"
              className="quiet"
              onClick={(event) => {
                toGroup(event);
                onChange(undefined);
              }}
            >
              Leave out<span className="visually-hidden"> {name}</span>
            </button>
          )}
        </>
      ) : (
        <div className="row">
          <button
            type="button"
            onClick={(event) => {
              toGroup(event);
              onChange(withOne(field));
            }}
          >
            {field.kind === 'list' || field.kind === 'map' ? 'Add to ' : 'Give '}
            {name}
          </button>
          <span className="hint">now: {emptyMeans(field, required, draft) || 'nothing'}</span>
        </div>
      )}
      {problems[path] && (
        <p className="field-problem" id={`${id}-problem`}>
          {problems[path]}
        </p>
      )}
    </fieldset>
  );
}

/** What a field that was left out begins with when it is given: a list with its first item. */
function withOne(field: Field): Draft {
  if (field.kind === 'list') return { items: [{ id: newId(), draft: begun(field.items) }] };
  if (field.kind === 'map') return { entries: [{ id: newId(), key: '', draft: begun(field.values) }] };
  return begun({ ...field, fallback: undefined });
}

/** What there is only one value for is not asked for, where it has that. */
const asksFor =
  (given: Members['members']) =>
  ({ name, required, field }: Member): boolean =>
    !(
      field.kind === 'choice' &&
      field.fixed &&
      required &&
      given[name] === write(field.options[0]?.value ?? null, 0)
    );

function Object_({ field, path, draft, onChange }: Of<'object'>) {
  const { members, others } = membersOf(draft);
  const shown = others === undefined ? { members } : { members, others };
  return (
    <>
      {field.members.filter(asksFor(members)).map((member) => (
        <PayloadField
          key={member.name}
          field={member.field}
          name={member.name}
          path={below(path, member.name)}
          required={member.required}
          draft={members[member.name]}
          onChange={(inner) => onChange({ ...shown, members: { ...members, [member.name]: inner } })}
        />
      ))}
      {others !== undefined && (
        <Labelled
          name="others"
          path={below(path, OTHERS)}
          hint="What the payload has beyond its schema, as JSON."
          beside={
            <button type="button" className="quiet" onClick={() => onChange({ members })}>
              Leave out<span className="visually-hidden"> others</span>
            </button>
          }
        >
          {(control) => (
            <Json control={control} text={others} onChange={(text) => onChange({ members, others: text })} />
          )}
        </Labelled>
      )}
    </>
  );
}

function List({ field, name, path, draft, onChange }: Of<'list'>) {
  const items = itemsOf(draft);
  return (
    <>
      {items.length > 0 && (
        <ol className="form-items">
          {items.map(({ id, draft: item }, place) => (
            <li key={id}>
              <PayloadField
                field={field.items}
                name={`${name} ${place + 1}`}
                path={below(path, place)}
                required
                draft={item}
                onChange={(inner) =>
                  onChange({ items: items.map((one) => (one.id === id ? { id, draft: inner } : one)) })
                }
              />
              <span className="row">
                <button
                  type="button"
                  className="quiet"
                  aria-disabled={place === 0}
                  aria-label={`Move ${name} ${place + 1} up`}
                  onClick={() => place > 0 && onChange({ items: movedUp(items, place) })}
                >
                  ↑
                </button>
                <button
                  type="button"
                  className="quiet"
                  aria-label={`Remove ${name} ${place + 1}`}
                  onClick={(event) => {
                    toGroup(event);
                    onChange({ items: items.filter((one) => one.id !== id) });
                  }}
                >
                  ✕
                </button>
              </span>
            </li>
          ))}
        </ol>
      )}
      <button
        type="button"
        onClick={() => onChange({ items: [...items, { id: newId(), draft: begun(field.items) }] })}
      >
        Add to {name}
      </button>
    </>
  );
}

function movedUp<Item>(items: readonly Item[], place: number): Item[] {
  const moved = [...items];
  moved.splice(place - 1, 0, ...moved.splice(place, 1));
  return moved;
}

function Table({ field, name, path, draft, onChange }: Of<'map'>) {
  const entries = entriesOf(draft);
  const change = (id: number, part: { key?: string; draft?: Draft }) =>
    onChange({ entries: entries.map((one) => (one.id === id ? { ...one, ...part } : one)) });
  return (
    <>
      {entries.length > 0 && (
        <ul className="form-items">
          {entries.map(({ id, key, draft: value }, place) => (
            <li key={id}>
              <Labelled name={`name ${place + 1}`} path={`${below(path, place)} name`}>
                {(control) => (
                  <input
                    {...control}
                    autoComplete="off"
                    spellCheck={false}
                    value={key}
                    onChange={(event) => change(id, { key: event.target.value })}
                  />
                )}
              </Labelled>
              <PayloadField
                field={field.values}
                name={`value ${place + 1}`}
                path={below(path, key)}
                required
                draft={value}
                onChange={(inner) => change(id, { draft: inner })}
              />
              <button
                type="button"
                className="quiet"
                aria-label={`Remove ${name} ${place + 1}`}
                onClick={(event) => {
                  toGroup(event);
                  onChange({ entries: entries.filter((one) => one.id !== id) });
                }}
              >
                ✕
              </button>
            </li>
          ))}
        </ul>
      )}
      <button
        type="button"
        onClick={() =>
          onChange({ entries: [...entries, { id: newId(), key: '', draft: begun(field.values) }] })
        }
      >
        Add to {name}
      </button>
    </>
  );
}

function Union({ field, name, path, draft, onChange }: Of<'union'>) {
  const { choice, draft: inner } = chosenOf(draft);
  const chosen = field.choices[choice];
  const id = useId();
  return (
    <>
      <div className="form-field">
        <label htmlFor={id}>
          Which <code>{name}</code>
        </label>
        <select
          id={id}
          value={choice}
          onChange={(event) => {
            const next = Number(event.target.value);
            const field_ = field.choices[next]?.field;
            onChange({ choice: next, draft: field_ && begun(field_) });
          }}
        >
          {field.choices.map(({ label }, place) => (
            <option key={place} value={place}>
              {label}
            </option>
          ))}
        </select>
      </div>
      {chosen && (
        <PayloadField
          field={chosen.field}
          name={chosen.field.kind === 'object' ? '' : name}
          path={path}
          required
          draft={inner}
          onChange={(next) => onChange({ choice, draft: next })}
        />
      )}
    </>
  );
}
