// A job is changed before it starts, or retried with another payload once it has ended.

import { type CombinedError, stringifyDocument } from '@urql/core';
import { type FormEvent, useRef, useState } from 'react';
import { useClient } from 'urql';
import { line, sentence } from '../../api/connection';
import { exactly } from '../../api/exact';
import {
  EditableJobDocument,
  type JobStatus,
  RetryJobWithDocument,
  UpdateJobDocument,
} from '../../api/generated';
import { useJobList } from '../../api/jobList';
import { useObservable } from '../../api/observable';
import { can } from '../../api/session';
import { isRetriable } from '../../format';
import type { Problems } from '../../parts/form/drafts';
import { isRecord } from '../../parts/form/fields';
import { FormState } from '../../parts/form/Labelled';
import { type JobType, loadJobTypes, type Original, originalOf } from '../../parts/form/jobTypes';
import { entryOf, PayloadPanel, SecretsNote } from '../../parts/form/PayloadPanel';
import { faultsOf, inJson, isUncertain, useProblems } from '../../parts/form/problems';
import { useLoaded } from '../../parts/form/useLoaded';
import { localMoment, textOfTags, type When, WhenFields } from '../../parts/form/WhenFields';
import { JobLink, StatusBadge } from '../../parts/job';
import { Problem } from '../../parts/Problem';
import { Said } from '../../parts/Said';
import { go, href } from '../../route';
import { allows, editsOf, type Way, whyNot } from './edits';

const TITLE: Record<Way, string> = { edit: 'Edit job', retry: 'Retry with another payload' };

/** The job as it was when the page was opened. */
interface Found extends Original {
  type: string;
  status: JobStatus;
  attempt: number;
  when: When;
}

export default function EditJob({ id, way }: { id: string; way: Way }) {
  const client = useClient();
  const { loaded, problem, again } = useLoaded<{ found: Found; type: JobType | null }>(async (stop) => {
    const [types, { job }] = await Promise.all([
      loadJobTypes(client, stop),
      exactly(stringifyDocument(EditableJobDocument), { id }, stop),
    ]);
    if (!isRecord(job)) throw new Error('The job is not there (any more).');
    const found: Found = {
      ...originalOf(job.rawPayload),
      type: String(job.type),
      status: String(job.status) as JobStatus,
      attempt: Number(String(job.attempt)),
      when: {
        priority: String(job.priority),
        tags: textOfTags(job.tags),
        runAt: localMoment(job.runAt === null ? null : String(job.runAt)),
      },
    };
    return { found, type: types.find(({ name }) => name === found.type) ?? null };
  });
  if (problem !== null)
    return (
      <>
        <h1>{TITLE[way]}</h1>
        <Problem>{problem}</Problem>
        <p className="row">
          <button type="button" onClick={again}>
            Try again
          </button>
          <a href={href(`jobs/${id}`)}>Go to the job</a>
        </p>
      </>
    );
  if (!loaded)
    return (
      <>
        <h1>{TITLE[way]}</h1>
        <p role="status">Loading…</p>
      </>
    );
  return <Opened id={id} way={way} {...loaded} />;
}

function Opened({ id, way, found, type }: { id: string; way: Way; found: Found; type: JobType | null }) {
  const { list } = useJobList('The job that is edited', { ids: [id] }, null, 1);
  const now = list ? (list.jobs[0] ?? null) : found;
  return (
    <>
      <h1>{TITLE[way]}</h1>
      <p>
        Job <JobLink id={id} />, of type <Said>{found.type}</Said>:{' '}
        <span role="status">{now ? <StatusBadge status={now.status} /> : 'It is not there any more.'}</span>
      </p>
      {allows(way, found) && (type || way === 'edit') ? (
        <Form id={id} way={way} found={found} type={type} now={now} />
      ) : (
        <TooLate
          id={id}
          way={way}
          status={found.status}
          why={allows(way, found) ? unknownType(found.type) : whyNot(way, found.status)}
        />
      )}
    </>
  );
}

const unknownType = (name: string): string =>
  `There is no job type “${name}” on this server, so its payload cannot be given anew.`;

/** Says that it cannot be done, and what can be done instead. */
function TooLate({ id, way, status, why }: { id: string; way: Way; status: JobStatus | null; why: string }) {
  return (
    <>
      <Problem>{why}</Problem>
      <p className="row">
        <a href={href(`jobs/${id}`)}>Go to the job</a>
        {way === 'edit' && status !== null && isRetriable(status) && (
          <a href={href(`jobs/${id}/retry`)}>Retry it with another payload</a>
        )}
        {status !== null && can('CREATE') && (
          <a href={href('new', { from: id })}>Edit its payload and run it as a new job</a>
        )}
      </p>
    </>
  );
}

function Form({
  id,
  way,
  found,
  type,
  now,
}: {
  id: string;
  way: Way;
  found: Found;
  type: JobType | null;
  now: { status: JobStatus; attempt: number } | null;
}) {
  const [before] = useState(() => ({
    when: found.when,
    entry: type ? entryOf(type.field, found) : { draft: undefined, json: null },
  }));
  const [when, setWhen] = useState(before.when);
  const [entry, setEntry] = useState(before.entry);
  const [busy, setBusy] = useState(false);
  const [refused, setRefused] = useState<JobStatus | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const { problems, refusal, say } = useProblems(form);
  const running = useRef(false);
  const warned = useRef(false);
  const connected = useObservable(line).state === 'open';
  const edits = editsOf(type, found.secrets, before, { when, entry });
  const changed = Object.keys(edits.input);
  const placed = (faults: Problems) => (entry.json === null ? faults : inJson(faults));

  async function send(): Promise<void> {
    const { input } = edits;
    if (way === 'edit') await exactly(stringifyDocument(UpdateJobDocument), { id, input });
    else
      await exactly(stringifyDocument(RetryJobWithDocument), {
        id,
        ...(input.payload !== undefined && { payload: input.payload }),
      });
  }

  function sayRefusal(error: CombinedError): void {
    if (isUncertain(error)) {
      const again =
        'It is not known whether the job was changed. Save it once more: to repeat it does no harm.';
      say({}, way === 'edit' ? `${sentence(error)} ${again}` : sentence(error, true));
      return;
    }
    const state = error.graphQLErrors.find(({ extensions }) => extensions?.code === 'INVALID_STATE');
    if (state) setRefused(String(state.extensions?.status) as JobStatus);
    const { fields, general } = faultsOf(error, found.type, type?.field ?? null);
    say(placed(fields), state ? '' : general.join(' '));
  }

  async function save(event: FormEvent): Promise<void> {
    event.preventDefault();
    if (running.current) return;
    if (changed.length === 0 && way === 'edit')
      return say({}, 'Nothing is changed here yet, so there is nothing to save.');
    const faults = { ...edits.problems };
    if (!warned.current)
      for (const path of edits.missing)
        faults[path] ??=
          'The job has a secret here: type it anew, or press the button again to leave it out.';
    if (Object.keys(faults).length > 0) {
      warned.current = true;
      return say(placed(faults));
    }
    running.current = true;
    setBusy(true);
    say({});
    try {
      await send();
      go(href(`jobs/${id}`), true);
    } catch (error) {
      sayRefusal(error as CombinedError);
    } finally {
      running.current = false;
      setBusy(false);
    }
  }

  // What is sent may be what moves it on.
  const late = refused ?? (now && !busy && !allows(way, now) ? now.status : null);
  const wrong = Object.keys(problems).length;
  return (
    <FormState.Provider value={{ problems, secrets: found.secrets }}>
      <form
        ref={form}
        noValidate
        aria-label={`${TITLE[way]} of type ${found.type}`}
        onSubmit={(event) => void save(event)}
        onKeyDown={(event) => {
          if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.current?.requestSubmit();
        }}
      >
        {type && (
          <SecretsNote
            secrets={found.secrets}
            what="They stay as they are unless the payload is changed: then type them anew where the form says so."
          />
        )}
        <div className="job-form">
          {type ? (
            <PayloadPanel field={type.field} entry={entry} onChange={setEntry} onProblems={say} />
          ) : (
            <section className="panel job-form-payload">
              <p>{unknownType(found.type)}</p>
            </section>
          )}
          {way === 'edit' && (
            <section className="panel job-form-options" aria-labelledby="job-form-options">
              <h2 id="job-form-options">How and when</h2>
              <WhenFields when={when} onChange={(part) => setWhen({ ...when, ...part })} />
            </section>
          )}
          <div className="job-form-actions">
            {now === null ? (
              <TooLate id={id} way={way} status={null} why="The job is not there any more." />
            ) : late !== null ? (
              <TooLate
                id={id}
                way={way}
                status={late}
                why={`${whyNot(way, late)} Nothing of what is here was done.`}
              />
            ) : (
              <>
                {refusal && <Problem>{refusal}</Problem>}
                {wrong > 0 && (
                  <Problem>
                    {wrong === 1 ? 'One field needs' : `${wrong} fields need`} another look: see there.
                  </Problem>
                )}
                <p className="hint">{saidOf(way, changed)}</p>
                <div className="row">
                  <button type="submit" className="primary" aria-disabled={busy}>
                    {way === 'edit' ? 'Save the changes' : 'Retry'}
                  </button>
                  <a href={href(`jobs/${id}`)}>Leave it as it is</a>
                  {!connected && <span className="hint">The connection is lost: wait until it is back.</span>}
                </div>
              </>
            )}
          </div>
        </div>
      </form>
    </FormState.Provider>
  );
}

/** What is sent. */
function saidOf(way: Way, changed: readonly string[]): string {
  if (way === 'retry')
    return changed.length > 0
      ? 'It runs again with this payload, in place of the one that it had.'
      : 'The payload is as it was, and so the job is retried as it is.';
  return changed.length > 0 ? `Changed here: ${changed.join(', ')}.` : 'Nothing is changed here yet.';
}
