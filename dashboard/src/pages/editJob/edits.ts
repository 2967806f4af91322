// What is to be another about a job: of all that a form shows only what somebody has changed in it is sent.

import { type Exact, write } from '../../api/exact';
import type { JobStatus } from '../../api/generated';
import { isChangeable, isRetriable } from '../../format';
import { asInput, type Problems } from '../../parts/form/drafts';
import { isRecord, payloadMember } from '../../parts/form/fields';
import type { JobType } from '../../parts/form/jobTypes';
import { type Entry, missingSecrets, payloadOf, unknownSecrets } from '../../parts/form/PayloadPanel';
import { momentOf, tagsOf, type When } from '../../parts/form/WhenFields';

/** What is done to a job: it is changed before it starts, or run again with another payload once it has ended. */
export type Way = 'edit' | 'retry';

/** What the form shows. */
export interface Shown {
  when: When;
  entry: Entry;
}

/** The changes by their names in `UpdateJobInput`, and what is wrong with them. */
export interface Edits {
  input: { [name: string]: Exact };
  problems: Problems;
  /** Where a changed payload lacks a secret that the job has. */
  missing: string[];
}

/** What differs between the form as it was and as it is. `type` is null where the payload is not shown. */
export function editsOf(
  type: JobType | null,
  secrets: ReadonlySet<string>,
  before: Shown,
  now: Shown,
): Edits {
  const input: Edits['input'] = {};
  const problems: Problems = {};
  if (now.when.runAt !== before.when.runAt) input.runAt = momentOf('runAt', now.when.runAt, problems);
  if (now.when.priority !== before.when.priority) input.priority = now.when.priority;
  const tags = tagsOf(now.when.tags);
  if (write(tags, 0) !== write(tagsOf(before.when.tags), 0)) input.tags = tags;
  let missing: string[] = [];
  if (type !== null) {
    const [faultsBefore, faults]: [Problems, Problems] = [{}, {}];
    const payload = payloadOf(type.field, now.entry, faults);
    const was = payloadOf(type.field, before.entry, faultsBefore);
    // A secret that has to be given is missing from the beginning, and no fault of a payload that stays as it is.
    if (
      ordered(payload) !== ordered(was) ||
      Object.keys(faults).some((path) => faults[path] !== faultsBefore[path])
    ) {
      input.payload = { [payloadMember(type.name)]: asInput(type.field, payload) };
      Object.assign(problems, faults);
      for (const path of unknownSecrets(payload, secrets))
        problems[path] = 'The secret is not known here: type it anew.';
      missing = missingSecrets(payload, secrets);
    }
  }
  return { input, problems, missing };
}

/** A value as text, in which the order of names makes no difference. */
function ordered(value: Exact): string {
  if (Array.isArray(value)) return `[${value.map(ordered).join(',')}]`;
  if (!isRecord(value)) return write(value, 0);
  const names = Object.keys(value).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${ordered(value[name] ?? null)}`).join(',')}}`;
}

/** Whether that can be done to a job in this state, as far as it is known here. */
export const allows = (way: Way, job: { status: JobStatus; attempt: number }): boolean =>
  way === 'retry' ? isRetriable(job.status) : isChangeable(job);

/** Why it cannot be done, or could not, to a job in this state. */
export function whyNot(way: Way, status: JobStatus): string {
  if (way === 'retry')
    return status === 'COMPLETED'
      ? 'The job has completed, so it is not retried.'
      : 'The job runs again already, or has not ended yet, so it is not retried with this payload.';
  return status === 'CANCELLED'
    ? 'The job was cancelled, so it cannot be changed any more.'
    : 'The job has started, so it cannot be changed any more.';
}
