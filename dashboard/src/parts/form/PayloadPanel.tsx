// The payload of a form: field by field or as JSON, and what has become of the secrets of the job that it begins with.

import { useContext, useId } from 'react';
import { type Exact, read, write } from '../../api/exact';
import { begun, type Draft, draftOf, entered, type Problems, redactedIn } from './drafts';
import { type Field, isRecord } from './fields';
import { isHidden, type Original } from './jobTypes';
import { FormState, Json, Labelled } from './Labelled';
import { PayloadField } from './PayloadFields';

/** What was entered so far: by fields, or as JSON where that is not null. */
export interface Entry {
  draft: Draft;
  json: string | null;
}

/** What a form begins with: what another job was asked for, or what its fields have by themselves. */
export const entryOf = (field: Field, original: Original | null): Entry => ({
  draft: original && !isHidden(original) ? draftOf(field, original.payload) : begun(field),
  json: null,
});

/** The payload that was entered. What cannot be read is noted among the problems. */
export function payloadOf(field: Field, { draft, json }: Entry, problems: Problems): Exact {
  if (json === null) return entered(field, draft, '', problems) ?? {};
  try {
    return read(json);
  } catch (error) {
    problems[''] = `This is no JSON: ${(error as Error).message}.`;
    return {};
  }
}

/** The places at which the payload has what stands for a secret that is not known here. */
export const unknownSecrets = (payload: Exact, secrets: ReadonlySet<string>): string[] =>
  redactedIn(payload).filter((path) => secrets.has(path));

/** The places at which the original has a secret and the payload has nothing. */
export const missingSecrets = (payload: Exact, secrets: ReadonlySet<string>): string[] =>
  [...secrets].filter((path) => path !== '' && !isAt(payload, path));

/** Whether a payload has something at a path. */
function isAt(payload: Exact, path: string): boolean {
  let at: Exact | undefined = payload;
  for (const part of path.split('.')) {
    if (Array.isArray(at)) at = at[Number(part)];
    else at = isRecord(at) && Object.hasOwn(at, part) ? at[part] : undefined;
  }
  return at !== undefined && at !== null;
}

/** Says that the original has secrets, and what that means here. */
export function SecretsNote({ secrets, what }: { secrets: ReadonlySet<string>; what: string }) {
  if (secrets.size === 0) return null;
  return (
    <p className="form-note" role="note">
      {secrets.has('')
        ? 'The payload of the original cannot be shown here, so nothing of it is filled in.'
        : `The original has secrets, which nobody is shown. ${what}`}
    </p>
  );
}

/** The panel in which a payload is entered. `onProblems` is told what keeps it from being shown in the other way. */
export function PayloadPanel({
  field,
  entry: { draft, json },
  onChange,
  onProblems,
}: {
  field: Field;
  entry: Entry;
  onChange: (entry: Entry) => void;
  onProblems: (found: Problems) => void;
}) {
  const { problems } = useContext(FormState);
  const heading = useId();

  function toggle(asJson: boolean): void {
    if (asJson) {
      onProblems({});
      // Fields that are not filled in yet are no reason not to show the rest.
      onChange({ draft, json: write(entered(field, draft, '', {}) ?? {}) });
      return;
    }
    try {
      onChange({ draft: draftOf(field, read(json ?? '{}')), json: null });
      onProblems({});
    } catch (error) {
      onProblems({ '': `This is no JSON, so it cannot be shown as fields: ${(error as Error).message}.` });
    }
  }

  return (
    <section className="panel job-form-payload" aria-labelledby={heading}>
      <div className="row job-form-head">
        <h2 id={heading}>Payload</h2>
        <label className="check">
          <input type="checkbox" checked={json !== null} onChange={(event) => toggle(event.target.checked)} />
          as JSON
        </label>
      </div>
      {json !== null ? (
        <Labelled name="payload" path="" required hint="All of it, under the names that its schema has.">
          {(control) => (
            <Json
              control={control}
              text={json}
              rows={12}
              onChange={(text) => onChange({ draft, json: text })}
            />
          )}
        </Labelled>
      ) : (
        <>
          <PayloadField
            field={field}
            name=""
            path=""
            required
            draft={draft}
            onChange={(changed) => onChange({ draft: changed, json })}
          />
          {problems[''] && (
            <p className="field-problem" data-path="" tabIndex={-1}>
              {problems['']}
            </p>
          )}
        </>
      )}
    </section>
  );
}
