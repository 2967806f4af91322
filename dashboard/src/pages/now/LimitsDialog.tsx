// The dialog in which the limits of a queue are set and taken away, all of them at once.

import type { CombinedError } from '@urql/core';
import { useEffect, useRef, useState } from 'react';
import { useClient } from 'urql';
import { sentence } from '../../api/connection';
import { type QueueLimitsInput, SetQueueLimitsDocument } from '../../api/generated';
import { many } from '../../format';
import { Dialog } from '../../parts/Dialog';
import type { Problems } from '../../parts/form/drafts';
import { FormState, Labelled } from '../../parts/form/Labelled';
import { useProblems } from '../../parts/form/problems';
import { Problem } from '../../parts/Problem';
import { type Limits, limitsSaid } from './figures';

const FIELDS = [
  { name: 'concurrency', title: 'At a time', hint: 'How many of its jobs run at a time.' },
  {
    name: 'concurrencyPerKey',
    title: 'Of one key',
    hint: 'How many of those with one concurrencyKey do. Jobs of different tenants have no key in common.',
  },
  { name: 'perSecond', title: 'A second', hint: 'How many start, on average; 0.1 is one in ten seconds.' },
] as const;
type Name = (typeof FIELDS)[number]['name'];
type Texts = Record<Name, string>;

const NO_SECRETS: ReadonlySet<string> = new Set();

const textsOf = (limits: Limits): Texts => ({
  concurrency: String(limits.concurrency ?? ''),
  concurrencyPerKey: String(limits.concurrencyPerKey ?? ''),
  perSecond: String(limits.perSecond ?? ''),
});

/** The limits that were entered. What is no number is noted among the problems; its bounds are for the server to say. */
function entered(texts: Texts, problems: Problems): QueueLimitsInput {
  const limits: QueueLimitsInput = {};
  for (const { name } of FIELDS) {
    const text = texts[name].trim();
    if (text === '') continue;
    // Of what is no Int or Float to the API it would speak as of the request, or not at all.
    if (name === 'perSecond' ? /^-?\d{0,9}\.?\d{1,20}(e-\d{1,2})?$/i.test(text) : /^-?\d{1,9}$/.test(text))
      limits[name] = Number(text);
    else
      problems[name] =
        name === 'perSecond' ? 'Write a number, with a dot.' : 'Write a whole number of at most nine digits.';
  }
  return limits;
}

/** What the server refuses, at the fields that it names; the rest in a sentence. */
function refusalOf(error: CombinedError): { fields: Problems; general: string } {
  const fields: Problems = {};
  for (const { message, extensions } of error.graphQLErrors) {
    const name = String(extensions?.argument ?? '').replace(/^limits\./, '');
    if (FIELDS.some((field) => field.name === name)) fields[name] = message;
  }
  return { fields, general: Object.keys(fields).length > 0 ? '' : sentence(error, true) };
}

export default function LimitsDialog({
  name,
  limits,
  onClose,
}: {
  name: string;
  limits: Limits;
  onClose: () => void;
}) {
  const client = useClient();
  const [before] = useState(limits);
  const [texts, setTexts] = useState(() => textsOf(limits));
  const [busy, setBusy] = useState(false);
  const [ungated, setUngated] = useState(0);
  const form = useRef<HTMLFormElement>(null);
  const { problems, refusal, say } = useProblems(form);
  const present = limitsSaid(limits);
  const hasOthers = present.join() !== limitsSaid(before).join();

  async function set(wanted: QueueLimitsInput): Promise<void> {
    if (busy) return;
    setBusy(true);
    say({});
    const { data, error } = await client
      .mutation(SetQueueLimitsDocument, { name, limits: wanted })
      .toPromise();
    setBusy(false);
    if (error) {
      const { fields, general } = refusalOf(error);
      say(fields, general);
    } else if (data?.setQueueLimits.ungated && Object.keys(wanted).length > 0)
      setUngated(data.setQueueLimits.ungated);
    else onClose();
  }

  function submit(): void {
    const found: Problems = {};
    const wanted = entered(texts, found);
    if (Object.keys(found).length > 0) say(found);
    else void set(wanted);
  }

  return (
    <Dialog title={`Limits of the queue “${name}”`} onClose={onClose}>
      {ungated > 0 ? (
        <Done ungated={ungated} onClose={onClose} />
      ) : (
        <FormState.Provider value={{ problems, secrets: NO_SECRETS }}>
          <form
            ref={form}
            noValidate
            onSubmit={(event) => {
              event.preventDefault();
              submit();
            }}
          >
            <p>
              They hold together, on all workers, and take the place of those that there are. An empty field
              is no limit. What runs goes on, and the next jobs wait until they may start.
            </p>
            <div role="status">
              {hasOthers && (
                <p className="limits-changed">
                  Somebody has changed them since this was opened. Now they are:{' '}
                  {present.join(', ') || 'no limits'}.
                </p>
              )}
            </div>
            {FIELDS.map((field) => (
              <Labelled
                key={field.name}
                name={field.name}
                title={field.title}
                path={field.name}
                hint={field.hint}
              >
                {(control) => (
                  <input
                    {...control}
                    inputMode={field.name === 'perSecond' ? 'decimal' : 'numeric'}
                    autoComplete="off"
                    placeholder="no limit"
                    value={texts[field.name]}
                    onChange={(event) => setTexts({ ...texts, [field.name]: event.target.value })}
                  />
                )}
              </Labelled>
            ))}
            {refusal && <Problem>{refusal}</Problem>}
            <div className="row">
              <button type="submit" className="primary" aria-disabled={busy}>
                Set the limits
              </button>
              {present.length > 0 && (
                <button type="button" aria-disabled={busy} onClick={() => void set({})}>
                  Take all of them away
                </button>
              )}
              <button type="button" onClick={onClose}>
                Leave them
              </button>
            </div>
          </form>
        </FormState.Provider>
      )}
    </Dialog>
  );
}

/** What the limits say nothing of, which nobody would see otherwise. */
function Done({ ungated, onClose }: { ungated: number; onClose: () => void }) {
  const text = useRef<HTMLParagraphElement>(null);
  useEffect(() => text.current?.focus(), []);
  return (
    <>
      <p ref={text} tabIndex={-1}>
        The limits are set. {many(ungated, 'job')} {ungated === 1 ? 'was' : 'were'} submitted before and{' '}
        {ungated === 1 ? 'has' : 'have'} not ended: {ungated === 1 ? 'it starts' : 'they start'} as ever, and
        those that run are counted.
      </p>
      <button type="button" className="primary" onClick={onClose}>
        Close
      </button>
    </>
  );
}
