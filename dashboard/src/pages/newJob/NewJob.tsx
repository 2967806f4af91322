// A form for a new job: its payload by the schema of its type, field by field or as JSON, and its options. It may begin
// with what another job was asked for.

import type { Client, CombinedError } from '@urql/core';
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { useClient } from 'urql';
import { ENDPOINT, line, sentence } from '../../api/connection';
import { type Exact, exactly, read, write } from '../../api/exact';
import { InputTypesDocument } from '../../api/generated';
import { useObservable } from '../../api/observable';
import { session } from '../../api/session';
import { type Creation, createOnce, refusalOf } from './creation';
import { asInput, begun, type Draft, draftOf, type Problems, REDACTED, redactedIn, entered } from './drafts';
import { type Field, fieldsOf, InputTypes, isRecord, payloadMember } from './fields';
import { OPTION, OptionFields, type Options, optionsOf, valuesOfOptions } from './OptionFields';
import { FormState, focusFirst, Json, Labelled } from './Labelled';
import { PayloadField } from './PayloadFields';
import { asCurl, asPython, asTypeScript } from './programs';
import { short } from '../../format';
import { Copy } from '../../parts/Copy';
import { FollowedJob } from '../../parts/FollowedJob';
import { JobLink } from '../../parts/job';
import { Problem } from '../../parts/Problem';
import { go, href } from '../../route';
import './newJob.css';

interface JobType {
  name: string;
  description: string;
  queue: string;
  maxRetries: string;
  timeoutSeconds: string;
  field: Field;
}

/** The job whose copy is edited. */
interface Original {
  id: string;
  type: string;
  payload: Exact;
  options: Options;
  /** Where its payload has secrets that were taken out. */
  secrets: readonly string[];
}

const TYPES = 'query Types { jobTypes { name queue maxRetries timeoutSeconds payloadSchema } }';
const ORIGINAL =
  'query Original($id: ID!) { job(id: $id) { id type priority tags maxRetries timeoutSeconds rawPayload } }';

/** Set while the page is shown anew because another type was chosen on it: the focus stays where it was. */
let choosing = false;
/** The types that were loaded last, for a page on which one of them was chosen. */
const loadedTypes = new WeakMap<Client, JobType[]>();

export default function NewJob({ parameters }: { parameters: URLSearchParams }) {
  const client = useClient();
  const from = parameters.get('from');
  const [loaded, setLoaded] = useState<{ types: JobType[]; original: Original | null } | null>(() => {
    const types = choosing ? loadedTypes.get(client) : undefined;
    return types ? { types, original: null } : null;
  });
  const [problem, setProblem] = useState<string | null>(null);
  const [tries, setTries] = useState(0);
  const isLive = useObservable(line).state === 'open';
  const isMissing = useRef(false);

  // What did not come because there was no connection is asked for when there is one.
  useEffect(() => {
    if (isLive && isMissing.current) setTries((before) => before + 1);
  }, [isLive]);

  useEffect(() => {
    if (loaded) return;
    isMissing.current = false;
    setProblem(null);
    const stop = new AbortController();
    async function load(): Promise<void> {
      const [{ jobTypes }, introspected, found] = await Promise.all([
        exactly(TYPES, {}, stop.signal),
        client.query(InputTypesDocument, {}).toPromise(),
        from === null ? null : exactly(ORIGINAL, { id: from }, stop.signal),
      ]);
      if (stop.signal.aborted) return;
      if (introspected.error) throw introspected.error;
      const inputs = new InputTypes(introspected.data ?? null);
      const types = (jobTypes as Record<string, Exact>[]).map((type) => jobTypeOf(type, inputs));
      loadedTypes.set(client, types);
      if (from === null) return setLoaded({ types, original: null });
      if (!isRecord(found?.job))
        return setProblem('The job that this one was to be made of is not there (any more).');
      setLoaded({ types, original: originalOf(found.job) });
    }
    load().catch((error: CombinedError) => {
      if (stop.signal.aborted) return;
      isMissing.current = error.networkError !== undefined;
      setProblem(sentence(error));
    });
    return () => stop.abort();
  }, [client, from, tries]);

  if (problem !== null)
    return (
      <>
        <h1>New job</h1>
        <Problem>{problem}</Problem>
        <p className="row">
          <button type="button" onClick={() => setTries(tries + 1)}>
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

function jobTypeOf(type: Record<string, Exact>, inputs: InputTypes): JobType {
  const name = String(type.name);
  const members = inputs.membersOf({ kind: 'INPUT_OBJECT', name: 'JobPayloadInput' });
  return {
    name,
    description: members?.find((member) => member.name === payloadMember(name))?.description ?? '',
    queue: String(type.queue),
    maxRetries: write(type.maxRetries ?? null, 0),
    timeoutSeconds: write(type.timeoutSeconds ?? null, 0),
    field: fieldsOf(name, type.payloadSchema ?? null, inputs),
  };
}

function originalOf(job: { [name: string]: Exact }): Original {
  const payload = job.rawPayload ?? null;
  return {
    id: String(job.id),
    type: String(job.type),
    payload,
    options: optionsOf(job),
    secrets: redactedIn(payload),
  };
}

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

/** Whether a payload has something at a path. */
function isAt(payload: Exact, path: string): boolean {
  let at: Exact | undefined = payload;
  for (const part of path.split('.')) {
    if (Array.isArray(at)) at = at[Number(part)];
    else at = isRecord(at) && Object.hasOwn(at, part) ? at[part] : undefined;
  }
  return at !== undefined && at !== null;
}

function firstDraft(field: Field, original: Original | null): Draft {
  if (!original || original.payload === REDACTED) return begun(field);
  return draftOf(field, original.payload);
}

const NO_OPTIONS: Options = {
  priority: 'NORMAL',
  tags: '',
  runAt: '',
  maxRetries: '',
  timeoutSeconds: '',
  idempotencyKey: '',
};

function Form({ type, original }: { type: JobType; original: Original | null }) {
  const { field } = type;
  const [draft, setDraft] = useState(() => firstDraft(field, original));
  const [json, setJson] = useState<string | null>(null);
  const [options, setOptions] = useState(original?.options ?? NO_OPTIONS);
  const [problems, setProblems] = useState<Problems>({});
  const [refusal, setRefusal] = useState('');
  const [busy, setBusy] = useState(false);
  const [created, setCreated] = useState<Creation | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const running = useRef(false);
  const warned = useRef(false);
  const once = useRef(createOnce());
  const connected = useObservable(line).state === 'open';
  const secrets = new Set(original?.secrets);

  /** What is there so far, and what is wrong with it. */
  function present(): { payload: Exact; input: { [name: string]: Exact }; problems: Problems } {
    const found: Problems = {};
    let payload: Exact = {};
    if (json === null) payload = entered(field, draft, '', found) ?? {};
    else
      try {
        payload = read(json);
      } catch (error) {
        found[''] = `This is no JSON: ${(error as Error).message}.`;
      }
    for (const path of redactedIn(payload))
      if (secrets.has(path)) found[path] = 'The secret is not known here: type it anew.';
    const input = {
      payload: { [payloadMember(type.name)]: asInput(field, payload) },
      ...valuesOfOptions(options, found),
      ...(original && { origin: original.id }),
    };
    return { payload, input, problems: found };
  }

  function say(found: Problems, general = ''): void {
    setProblems(found);
    setRefusal(general);
    // The fields have to be marked before one of them can be told about.
    requestAnimationFrame(() => {
      const missing = focusFirst(form.current, Object.keys(found));
      const said = [general, ...missing.map((path) => `${path}: ${found[path]}`)].filter(Boolean);
      setRefusal(said.join('\n'));
    });
  }

  async function create(event: FormEvent): Promise<void> {
    event.preventDefault();
    if (running.current) return;
    const { payload, input, problems: found } = present();
    if (!warned.current)
      for (const path of secrets)
        if (path !== '' && !isAt(payload, path))
          found[path] ??=
            'The secret of the original is missing: type it anew, or create again to leave it out.';
    if (Object.keys(found).length > 0) warned.current = true;
    if (Object.keys(found).length > 0) return say(json === null ? found : inJson(found));
    running.current = true;
    setBusy(true);
    say({});
    try {
      setCreated(await once.current(input));
    } catch (error) {
      const { fields, general } = refusalOf(error as CombinedError, type.name, field);
      say(json === null ? fields : inJson(fields), general);
    } finally {
      running.current = false;
      setBusy(false);
    }
  }

  function toggle(asJson: boolean): void {
    if (asJson) {
      setProblems({});
      setJson(write(jsonFor(draft)));
      return;
    }
    try {
      setDraft(draftOf(field, read(json ?? '{}')));
      setJson(null);
      setProblems({});
    } catch (error) {
      say({ '': `This is no JSON, so it cannot be shown as fields: ${(error as Error).message}.` });
    }
  }

  function jsonFor(from: Draft): Exact {
    // Fields that are not filled in yet are no reason not to show the rest.
    return entered(field, from, '', {}) ?? {};
  }

  if (created)
    return (
      <Made
        creation={created}
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
        {secrets.size > 0 && (
          <p className="new-job-secrets" role="note">
            {secrets.has('')
              ? 'The payload of the original cannot be shown here, so nothing of it is filled in.'
              : 'The original has secrets, which nobody is shown. They are not part of this copy: type them anew where the form says so.'}
          </p>
        )}
        <div className="new-job">
          <section className="panel new-job-payload" aria-labelledby="new-job-payload">
            <div className="row new-job-head">
              <h2 id="new-job-payload">Payload</h2>
              <label className="check">
                <input
                  type="checkbox"
                  checked={json !== null}
                  onChange={(event) => toggle(event.target.checked)}
                />
                as JSON
              </label>
            </div>
            {json !== null ? (
              <Labelled
                name="payload"
                path=""
                required
                hint="All of it, under the names that its schema has."
              >
                {(control) => <Json control={control} text={json} rows={12} onChange={setJson} />}
              </Labelled>
            ) : (
              <>
                <PayloadField field={field} name="" path="" required draft={draft} onChange={setDraft} />
                {problems[''] && (
                  <p className="field-problem" data-path="" tabIndex={-1}>
                    {problems['']}
                  </p>
                )}
              </>
            )}
          </section>
          <section className="panel new-job-options" aria-labelledby="new-job-options">
            <h2 id="new-job-options">Options</h2>
            <OptionFields options={options} onChange={setOptions} type={type} />
          </section>
          <div className="new-job-actions">
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

/** In one text field for all, problems are said together, each with its place. */
function inJson(found: Problems): Problems {
  const ofPayload: string[] = [];
  const others: Problems = {};
  for (const [path, problem] of Object.entries(found)) {
    if (path.startsWith(OPTION)) others[path] = problem;
    else ofPayload.push(path === '' ? problem : `${path}: ${problem}`);
  }
  return ofPayload.length > 0 ? { '': ofPayload.join('\n'), ...others } : others;
}

function Made({ creation, onAnother }: { creation: Creation; onAnother: () => void }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <section className="panel" aria-labelledby="made">
      <h2 id="made" ref={heading} tabIndex={-1}>
        Job {short(creation.id)} {creation.deduplicated ? 'was there already' : 'was created'}
      </h2>
      {creation.deduplicated && (
        <p>Its idempotency key had made it before, with the same payload. No other one was made.</p>
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
