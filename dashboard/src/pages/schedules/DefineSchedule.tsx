// A form for a schedule, a new one or one that is there: when it is due is previewed by the server while it is entered.

import { type CombinedError, stringifyDocument } from '@urql/core';
import { type FormEvent, useId, useRef, useState } from 'react';
import { useClient } from 'urql';
import { line, sentence } from '../../api/connection';
import { exactly } from '../../api/exact';
import {
  IsThereScheduleDocument,
  ScheduleToChangeDocument,
  UpsertScheduleDocument,
} from '../../api/generated';
import { useObservable } from '../../api/observable';
import { asInput, type Problems } from '../../parts/form/drafts';
import { isRecord, payloadMember } from '../../parts/form/fields';
import { FormState, Labelled } from '../../parts/form/Labelled';
import { type JobType, loadJobTypes, type Original, originalOf } from '../../parts/form/jobTypes';
import {
  type Entry,
  entryOf,
  missingSecrets,
  PayloadPanel,
  payloadOf,
  SecretsNote,
  unknownSecrets,
} from '../../parts/form/PayloadPanel';
import { faultsOf, inJson, isUncertain, OPTION, useProblems } from '../../parts/form/problems';
import { useLoaded } from '../../parts/form/useLoaded';
import { zone } from '../../parts/form/WhenFields';
import { Problem } from '../../parts/Problem';
import { Said } from '../../parts/Said';
import { go, href } from '../../route';
import { type Definition, definitionOf, inputOf, newDefinition } from './definition';
import { Preview, usePreview } from './Preview';
import { OVERLAP } from './when';
import './schedules.css';

/** The schedule as it was when the page was opened. */
interface Found extends Original {
  definition: Definition;
  definedBy: string | null;
}

export default function DefineSchedule({ parameters }: { parameters: URLSearchParams }) {
  const client = useClient();
  const name = parameters.get('name');
  const { loaded, problem, again } = useLoaded<{ types: JobType[]; found: Found | null }>(async (stop) => {
    const [types, answer] = await Promise.all([
      loadJobTypes(client, stop),
      name === null ? null : exactly(stringifyDocument(ScheduleToChangeDocument), { name }, stop),
    ]);
    if (answer === null) return { types, found: null };
    const { schedule } = answer;
    if (!isRecord(schedule)) throw new Error('The schedule is not there (any more).');
    const definedBy = schedule.definedBy == null ? null : String(schedule.definedBy);
    return {
      types,
      found: { ...originalOf(schedule.rawPayload), definition: definitionOf(schedule), definedBy },
    };
  });
  return (
    <>
      <h1>
        {name === null ? (
          'New schedule'
        ) : (
          <>
            Change schedule <Said>{name}</Said>
          </>
        )}
      </h1>
      {problem !== null && (
        <>
          <Problem>{problem}</Problem>
          <p className="row">
            <button type="button" onClick={again}>
              Try again
            </button>
            <a href={href('schedules')}>Go to the schedules</a>
          </p>
        </>
      )}
      {problem === null && !loaded && <p role="status">Loading…</p>}
      {problem === null && loaded && <Form {...loaded} />}
    </>
  );
}

const NO_SECRETS: ReadonlySet<string> = new Set();

function Form({ types, found }: { types: JobType[]; found: Found | null }) {
  const client = useClient();
  const [definition, setDefinition] = useState<Definition>(() =>
    found
      ? found.definition
      : { ...newDefinition(zone()), type: (types.length === 1 && types[0]?.name) || '' },
  );
  const type = types.find(({ name }) => name === definition.type);
  const original = found?.definition.type === definition.type ? found : null;
  const begin = (): Entry | null => (type ? entryOf(type.field, original) : null);
  const [entry, setEntry] = useState(begin);
  const [busy, setBusy] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const { problems, refusal, say } = useProblems(form);
  const running = useRef(false);
  const warned = useRef(new Set<string>());
  const connected = useObservable(line).state === 'open';
  const previewed = usePreview(definition);
  const secrets = original?.secrets ?? NO_SECRETS;
  const set = (part: Partial<Definition>) => setDefinition((before) => ({ ...before, ...part }));

  function choose(name: string): void {
    const chosen = types.find((one) => one.name === name);
    set({ type: name });
    setEntry(chosen ? entryOf(chosen.field, found?.definition.type === name ? found : null) : null);
    say({});
  }

  /** Note a problem the first time it is come upon; whoever goes on has been told. */
  function warn(faults: Problems, path: string, key: string, text: string): void {
    if (warned.current.has(key)) return;
    warned.current.add(key);
    faults[path] ??= text;
  }

  /** What is entered, and what is wrong with it. */
  async function present(): Promise<{ input: ReturnType<typeof inputOf>; faults: Problems }> {
    const faults: Problems = {};
    const input = inputOf(definition, faults);
    if (!type || !entry) return { input, faults: { ...faults, [`${OPTION}type`]: 'Choose one.' } };
    const payload = payloadOf(type.field, entry, faults);
    for (const path of unknownSecrets(payload, secrets))
      faults[path] = 'The secret is not known here: type it anew.';
    for (const path of missingSecrets(payload, secrets))
      warn(
        faults,
        path,
        `secret ${path}`,
        'Its payload has a secret here: type it anew, or save again to leave it out.',
      );
    const { name } = input;
    if (found === null && typeof name === 'string' && name !== '') {
      const { data } = await client.query(IsThereScheduleDocument, { name }).toPromise();
      if (data?.schedule)
        warn(
          faults,
          `${OPTION}name`,
          `name ${name}`,
          'There is a schedule of this name: save again to replace it.',
        );
    }
    return {
      input: { ...input, payload: { [payloadMember(type.name)]: asInput(type.field, payload) } },
      faults,
    };
  }

  const placed = (faults: Problems) => (entry?.json == null ? faults : inJson(faults));

  async function save(event: FormEvent): Promise<void> {
    event.preventDefault();
    if (running.current) return;
    running.current = true;
    setBusy(true);
    say({});
    try {
      const { input, faults } = await present();
      if (Object.keys(faults).length > 0) return say(placed(faults));
      await exactly(stringifyDocument(UpsertScheduleDocument), { input });
      go(href('schedules'), true);
    } catch (error) {
      const refused = error as CombinedError;
      if (isUncertain(refused))
        return say(
          {},
          `${sentence(refused)} It is not known whether this was saved. Save it once more: to repeat it does no harm.`,
        );
      const { fields, general } = faultsOf(refused, definition.type, type?.field ?? null);
      say(placed(fields), general.join(' '));
    } finally {
      running.current = false;
      setBusy(false);
    }
  }

  const wrong = Object.keys(problems).length;
  return (
    <FormState.Provider value={{ problems: { ...previewed.faults, ...problems }, secrets }}>
      <form
        ref={form}
        noValidate
        aria-label="A schedule"
        onSubmit={(event) => void save(event)}
        onKeyDown={(event) => {
          if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.current?.requestSubmit();
        }}
      >
        {found?.definedBy != null && (
          <p className="form-note" role="note">
            The code of <Said>{found.definedBy}</Said> defines it. What is changed here stays until that code
            says something else.
          </p>
        )}
        <SecretsNote
          secrets={secrets}
          what="To save the schedule, type them anew where the form says so, even if only its times are changed."
        />
        <div className="job-form">
          <div className="job-form-payload">
            <section className="panel" aria-labelledby="schedule-when">
              <h2 id="schedule-when">When</h2>
              <WhenFields definition={definition} isNew={found === null} onChange={set} />
              <Preview previewed={previewed} />
            </section>
            <section className="panel" aria-labelledby="schedule-type">
              <h2 id="schedule-type">What</h2>
              <Labelled name="type" path={`${OPTION}type`} required hint={type?.description ?? ''}>
                {(control) => (
                  <select
                    {...control}
                    value={definition.type}
                    onChange={({ target }) => choose(target.value)}
                  >
                    <option value="" disabled>
                      Choose…
                    </option>
                    {types.map(({ name }) => (
                      <option key={name}>{name}</option>
                    ))}
                    {!type && definition.type !== '' && <option>{definition.type}</option>}
                  </select>
                )}
              </Labelled>
              {!type && definition.type !== '' && (
                <Problem>
                  There is no job type “{definition.type}” on this server: its jobs cannot be created.
                </Problem>
              )}
            </section>
            {type && entry && (
              <PayloadPanel
                key={type.name}
                field={type.field}
                entry={entry}
                onChange={setEntry}
                onProblems={say}
              />
            )}
          </div>
          <section className="panel job-form-options" aria-labelledby="schedule-options">
            <h2 id="schedule-options">Options</h2>
            <Options definition={definition} onChange={set} />
          </section>
          <div className="job-form-actions">
            {refusal && <Problem>{refusal}</Problem>}
            {wrong > 0 && (
              <Problem>
                {wrong === 1 ? 'One field needs' : `${wrong} fields need`} another look: see there.
              </Problem>
            )}
            <div className="row">
              <button type="submit" className="primary" aria-disabled={busy}>
                {busy ? 'Saving…' : 'Save the schedule'}
              </button>
              <a href={href('schedules')}>Leave it as it was</a>
              {!connected && <span className="hint">The connection is lost: wait until it is back.</span>}
            </div>
          </div>
        </div>
      </form>
    </FormState.Provider>
  );
}

const zones = (): string[] =>
  ['UTC', ...Intl.supportedValuesOf('timeZone')].filter((name, place, all) => all.indexOf(name) === place);

function WhenFields({
  definition: { name, by, cron, everySeconds, timeZone },
  isNew,
  onChange,
}: {
  definition: Definition;
  isNew: boolean;
  onChange: (part: Partial<Definition>) => void;
}) {
  const id = useId();
  const [all] = useState(zones);
  return (
    <>
      {isNew && (
        <Labelled name="name" path={`${OPTION}name`} required hint="1 to 64 letters, digits, _ or -.">
          {(control) => (
            <input
              {...control}
              autoComplete="off"
              spellCheck={false}
              value={name}
              onChange={({ target }) => onChange({ name: target.value })}
            />
          )}
        </Labelled>
      )}
      <fieldset className="schedule-by">
        <legend className="visually-hidden">How it is said when it is due</legend>
        {(
          [
            ['cron', 'By a cron expression'],
            ['everySeconds', 'By an interval'],
          ] as const
        ).map(([value, label]) => (
          <label key={value} className="check">
            <input type="radio" name={id} checked={by === value} onChange={() => onChange({ by: value })} />
            {label}
          </label>
        ))}
      </fieldset>
      {by === 'cron' ? (
        <>
          <Labelled
            name="cron"
            path={`${OPTION}cron`}
            required
            hint="Minute, hour, day of the month, month, day of the week, as 30 2 * * MON-FRI; with six fields the first is for seconds."
          >
            {(control) => (
              <input
                {...control}
                className="schedule-cron"
                autoComplete="off"
                spellCheck={false}
                value={cron}
                onChange={({ target }) => onChange({ cron: target.value })}
              />
            )}
          </Labelled>
          <Labelled
            name="timeZone"
            path={`${OPTION}timeZone`}
            required
            hint="In which the expression is meant."
          >
            {(control) => (
              <>
                <input
                  {...control}
                  list={`${id}-zones`}
                  autoComplete="off"
                  spellCheck={false}
                  value={timeZone}
                  onChange={({ target }) => onChange({ timeZone: target.value })}
                />
                <datalist id={`${id}-zones`}>
                  {all.map((one) => (
                    <option key={one} value={one} />
                  ))}
                </datalist>
              </>
            )}
          </Labelled>
        </>
      ) : (
        <Labelled
          name="everySeconds"
          path={`${OPTION}everySeconds`}
          required
          hint="Counted from 1970 in UTC: of 3600 each full hour."
        >
          {(control) => (
            <input
              {...control}
              inputMode="numeric"
              autoComplete="off"
              value={everySeconds}
              onChange={({ target }) => onChange({ everySeconds: target.value })}
            />
          )}
        </Labelled>
      )}
    </>
  );
}

const PRIORITIES = ['LOW', 'NORMAL', 'HIGH', 'CRITICAL'];
const SECONDS = [
  [
    'catchUpSeconds',
    'How late a tick may be made up for after an outage: 0 to 604800. Older ones are skipped.',
  ],
  [
    'spreadSeconds',
    'Each tick is later than in the preview by up to so many seconds, which follow from the name: 0 to 86400.',
  ],
] as const;

function Options({
  definition,
  onChange,
}: {
  definition: Definition;
  onChange: (part: Partial<Definition>) => void;
}) {
  return (
    <>
      <Labelled
        name="overlap"
        path={`${OPTION}overlap`}
        hint="What becomes of a tick while an earlier job has not ended."
      >
        {(control) => (
          <select
            {...control}
            value={definition.overlap}
            onChange={({ target }) => onChange({ overlap: target.value })}
          >
            {Object.entries(OVERLAP).map(([value, words]) => (
              <option key={value} value={value}>
                {words}
              </option>
            ))}
          </select>
        )}
      </Labelled>
      {SECONDS.map(([name, hint]) => (
        <Labelled key={name} name={name} path={`${OPTION}${name}`} hint={hint}>
          {(control) => (
            <input
              {...control}
              inputMode="numeric"
              autoComplete="off"
              value={definition[name]}
              onChange={({ target }) => onChange({ [name]: target.value })}
            />
          )}
        </Labelled>
      ))}
      <Labelled name="priority" path={`${OPTION}priority`}>
        {(control) => (
          <select
            {...control}
            value={definition.priority}
            onChange={({ target }) => onChange({ priority: target.value })}
          >
            {PRIORITIES.map((priority) => (
              <option key={priority}>{priority}</option>
            ))}
          </select>
        )}
      </Labelled>
      <Labelled name="tags" path={`${OPTION}tags`} hint="Of its jobs, one per line.">
        {(control) => (
          <textarea
            {...control}
            className="grows"
            rows={1}
            spellCheck={false}
            value={definition.tags}
            onChange={({ target }) => onChange({ tags: target.value })}
          />
        )}
      </Labelled>
      <label className="check">
        <input
          type="checkbox"
          checked={definition.paused}
          onChange={({ target }) => onChange({ paused: target.checked })}
        />
        paused: without ticks until it is resumed
      </label>
    </>
  );
}
