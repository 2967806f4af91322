// A form for a new job: its payload by the schema of its type, field by field or as JSON, and its options. It may begin
// with what another job was asked for.

import type { Client, CombinedError } from '@urql/core';
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { useClient } from 'urql';
import { ENDPOINT, line } from '../../api/connection';
import { type Exact, exactly } from '../../api/exact';
import { useObservable } from '../../api/observable';
import { session } from '../../api/session';
import { short } from '../../format';
import { Copy } from '../../parts/Copy';
import { FollowedJob } from '../../parts/FollowedJob';
import { asInput, type Problems } from '../../parts/form/drafts';
import { isRecord, payloadMember } from '../../parts/form/fields';
import { type JobType, loadJobTypes, type Original, originalOf } from '../../parts/form/jobTypes';
import { FormState, Labelled } from '../../parts/form/Labelled';
import {
  entryOf,
  missingSecrets,
  PayloadPanel,
  payloadOf,
  SecretsNote,
  unknownSecrets,
} from '../../parts/form/PayloadPanel';
import { inJson, useProblems } from '../../parts/form/problems';
import { useLoaded } from '../../parts/form/useLoaded';
import { JobLink } from '../../parts/job';
import { Problem } from '../../parts/Problem';
import { go, href } from '../../route';
import { type Creation, createOnce, refusalOf } from './creation';
import { OptionFields, type Options, optionsOf, valuesOfOptions } from './OptionFields';
import { UNSTEERED } from './SteeringFields';
import { asCurl, asPython, asTypeScript } from './programs';
import './newJob.css';

/** The job whose copy is edited. */
interface Copied extends Original {
  id: string;
  type: string;
  options: Options;
}

const ORIGINAL =
  'query Original($id: ID!) { job(id: $id) { id type priority tags maxRetries timeoutSeconds rawPayload } }';

/** Set while the page is shown anew because another type was chosen on it: the focus stays where it was. */
let choosing = false;
/** The types that were loaded last, for a page on which one of them was chosen. */
const loadedTypes = new WeakMap<Client, JobType[]>();

export default function NewJob({ parameters }: { parameters: URLSearchParams }) {
  const client = useClient();
  const from = parameters.get('from');
  const { loaded, problem, again } = useLoaded<{ types: JobType[]; original: Copied | null }>(
    async (stop) => {
      const [types, found] = await Promise.all([
        loadJobTypes(client, stop),
        from === null ? null : exactly(ORIGINAL, { id: from }, stop),
      ]);
      loadedTypes.set(client, types);
      if (found === null) return { types, original: null };
      if (!isRecord(found.job))
        throw new Error('The job that this one was to be made of is not there (any more).');
      return { types, original: copiedOf(found.job) };
    },
    () => {
      const types = choosing ? loadedTypes.get(client) : undefined;
      return types ? { types, original: null } : null;
    },
  );

  if (problem !== null)
    return (
      <>
        <h1>New job</h1>
        <Problem>{problem}</Problem>
        <p className="row">
          <button type="button" onClick={again}>
            Try again
          </button>
          {from && <a href={href('new')}>Begin with an empty form</a>}
        </p>
      </>
    );
  if (!loaded)
    return (
      <>
        <h1>New job</h1>
        <p role="status">Loading…</p>
      </>
    );
  const { types, original } = loaded;
  const name = original?.type ?? parameters.get('type') ?? (types.length === 1 ? types[0]?.name : undefined);
  const type = types.find((one) => one.name === name);
  return (
    <>
      <h1>New job</h1>
      {original && (
        <p>
          Made from job <JobLink id={original.id} />, of type <code>{original.type}</code>.
        </p>
      )}
      {name !== undefined && !type && (
        <Problem>
          There is no job type “{name}” on this server
          {original ? ', so no job can be made from this one' : ''}.
        </Problem>
      )}
      {!original && <TypeChoice types={types} chosen={type?.name ?? ''} />}
      {type && <Form type={type} original={original} />}
    </>
  );
}

const copiedOf = (job: { [name: string]: Exact }): Copied => ({
  ...originalOf(job.rawPayload),
  id: String(job.id),
  type: String(job.type),
  options: optionsOf(job),
});

function TypeChoice({ types, chosen }: { types: JobType[]; chosen: string }) {
  const select = useRef<HTMLSelectElement>(null);
  useEffect(() => {
    if (choosing) select.current?.focus();
    choosing = false;
  }, []);
  return (
    <Labelled
      name="type"
      path="(type)"
      required
      hint={types.find(({ name }) => name === chosen)?.description ?? ''}
    >
      {(control) => (
        <select
          {...control}
          ref={select}
          value={chosen}
          onChange={(event) => {
            choosing = true;
            go(href('new', { type: event.target.value }), true);
          }}
        >
          <option value="" disabled>
            Choose…
          </option>
          {types.map(({ name }) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      )}
    </Labelled>
  );
}

const NO_SECRETS: ReadonlySet<string> = new Set();

const NO_OPTIONS: Options = {
  priority: 'NORMAL',
  tags: '',
  runAt: '',
  maxRetries: '',
  timeoutSeconds: '',
  idempotencyKey: '',
  ...UNSTEERED,
};

function Form({ type, original }: { type: JobType; original: Copied | null }) {
  const { field } = type;
  const [entry, setEntry] = useState(() => entryOf(field, original));
  const [options, setOptions] = useState(original?.options ?? NO_OPTIONS);
  const [busy, setBusy] = useState(false);
  const [created, setCreated] = useState<Creation | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const { problems, refusal, say } = useProblems(form);
  const running = useRef(false);
  const warned = useRef(false);
  const once = useRef(createOnce());
  const connected = useObservable(line).state === 'open';
  const secrets = original?.secrets ?? NO_SECRETS;
  const placed = (found: Problems) => (entry.json === null ? found : inJson(found));

  /** What is there so far, and what is wrong with it. */
  function present(): { payload: Exact; input: { [name: string]: Exact }; problems: Problems } {
    const found: Problems = {};
    const payload = payloadOf(field, entry, found);
    for (const path of unknownSecrets(payload, secrets))
      found[path] = 'The secret is not known here: type it anew.';
    const input = {
      payload: { [payloadMember(type.name)]: asInput(field, payload) },
      ...valuesOfOptions(options, found),
      ...(original && { origin: original.id }),
    };
    return { payload, input, problems: found };
  }

  async function create(event: FormEvent): Promise<void> {
    event.preventDefault();
    if (running.current) return;
    const { payload, input, problems: found } = present();
    if (!warned.current)
      for (const path of missingSecrets(payload, secrets))
        found[path] ??=
          'The secret of the original is missing: type it anew, or create again to leave it out.';
    if (Object.keys(found).length > 0) warned.current = true;
    if (Object.keys(found).length > 0) return say(placed(found));
    running.current = true;
    setBusy(true);
    say({});
    try {
      setCreated(await once.current(input));
    } catch (error) {
      const { fields, general } = refusalOf(error as CombinedError, type.name, field);
      say(placed(fields), general);
    } finally {
      running.current = false;
      setBusy(false);
    }
  }

  if (created)
    return (
      <Made
        creation={created}
        hasKey={options.key !== ''}
        onAnother={() => {
          setCreated(null);
          requestAnimationFrame(() => form.current?.querySelector<HTMLElement>('[data-path]')?.focus());
        }}
      />
    );
  const wrong = Object.keys(problems).length;
  return (
    <FormState.Provider value={{ problems, secrets }}>
      <form
        ref={form}
        noValidate
        aria-label={`A job of type ${type.name}`}
        onSubmit={(event) => void create(event)}
        onKeyDown={(event) => {
          if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.current?.requestSubmit();
        }}
      >
        {original && type.description && <p className="hint">{type.description}</p>}
        <SecretsNote
          secrets={secrets}
          what="They are not part of this copy: type them anew where the form says so."
        />
        <div className="job-form">
          <PayloadPanel field={field} entry={entry} onChange={setEntry} onProblems={say} />
          <section className="panel job-form-options" aria-labelledby="job-form-options">
            <h2 id="job-form-options">Options</h2>
            <OptionFields options={options} onChange={setOptions} type={type} />
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
                {busy ? 'Creating…' : 'Create the job'}
              </button>
              {!connected && <span className="hint">The connection is lost: wait until it is back.</span>}
            </div>
          </div>
        </div>
      </form>
      <Program present={present} />
    </FormState.Provider>
  );
}

function Made({
  creation,
  hasKey,
  onAnother,
}: {
  creation: Creation;
  hasKey: boolean;
  onAnother: () => void;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <section className="panel" aria-labelledby="made">
      <h2 id="made" ref={heading} tabIndex={-1}>
        Job {short(creation.id)} {creation.deduplicated ? 'was there already' : 'was created'}
      </h2>
      {creation.deduplicated && (
        <p>
          {hasKey
            ? 'It has the key, or its idempotency key had made it before. No other one was made.'
            : 'Its idempotency key had made it before, with the same payload. No other one was made.'}
        </p>
      )}
      <FollowedJob id={creation.id} />
      <p className="row">
        <a className="button primary" href={href(`jobs/${creation.id}`)}>
          Go to the job
        </a>
        <button type="button" onClick={onAnother}>
          Create another
        </button>
      </p>
    </section>
  );
}

const LANGUAGES = { curl: asCurl, Python: asPython, TypeScript: asTypeScript };
type Language = keyof typeof LANGUAGES;

function Program({ present }: { present: () => { input: { [name: string]: Exact }; problems: Problems } }) {
  const [open, setOpen] = useState(false);
  const [language, setLanguage] = useState<Language>('curl');
  return (
    <details
      className="panel new-job-program"
      open={open}
      onToggle={(event) => setOpen((event.target as HTMLDetailsElement).open)}
    >
      <summary>As a command or a program</summary>
      {open && <Shown language={language} onLanguage={setLanguage} present={present} />}
    </details>
  );
}

function Shown({
  language,
  onLanguage,
  present,
}: {
  language: Language;
  onLanguage: (language: Language) => void;
  present: () => { input: { [name: string]: Exact }; problems: Problems };
}) {
  const asks = useObservable(session);
  const authenticated = asks.state === 'signed in' && asks.viewer.subject !== 'anonymous';
  const { input, problems } = present();
  const text = LANGUAGES[language](ENDPOINT, input, authenticated);
  return (
    <>
      <div className="row new-job-languages">
        {(Object.keys(LANGUAGES) as Language[]).map((name) => (
          <button key={name} type="button" aria-pressed={name === language} onClick={() => onLanguage(name)}>
            {name}
          </button>
        ))}
        <Copy text={text} label={`Copy as ${language}`} />
      </div>
      {Object.keys(problems).length > 0 && (
        <p className="hint">The form is not complete yet, and neither is this.</p>
      )}
      <textarea
        className="code grows"
        aria-label={`The job as ${language}`}
        readOnly
        spellCheck={false}
        value={text}
      />
    </>
  );
}
