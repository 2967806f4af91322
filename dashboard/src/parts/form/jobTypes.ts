// The job types that there are, each with the fields that its payload has, and the payload of a job that is there.

import type { Client } from '@urql/core';
import { type Exact, exactly, write } from '../../api/exact';
import { InputTypesDocument } from '../../api/generated';
import { REDACTED, redactedIn } from './drafts';
import { type Field, fieldsOf, InputTypes, payloadMember } from './fields';

export interface JobType {
  name: string;
  description: string;
  queue: string;
  maxRetries: string;
  timeoutSeconds: string;
  field: Field;
}

const TYPES = 'query Types { jobTypes { name queue maxRetries timeoutSeconds payloadSchema } }';

/** Ask for the job types. Raises CombinedError with what is refused, or if there is no connection. */
export async function loadJobTypes(client: Client, stop: AbortSignal): Promise<JobType[]> {
  const [{ jobTypes }, introspected] = await Promise.all([
    exactly(TYPES, {}, stop),
    client.query(InputTypesDocument, {}).toPromise(),
  ]);
  if (introspected.error) throw introspected.error;
  const inputs = new InputTypes(introspected.data ?? null);
  return (jobTypes as Record<string, Exact>[]).map((type) => jobTypeOf(type, inputs));
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

/** What a job was asked for, to begin a form with. */
export interface Original {
  payload: Exact;
  /** Where it has secrets that were taken out. */
  secrets: ReadonlySet<string>;
}

/** The payload of a job as the API shows it. */
export const originalOf = (rawPayload: Exact | undefined): Original => ({
  payload: rawPayload ?? null,
  secrets: new Set(redactedIn(rawPayload ?? null)),
});

/** Whether nothing of a payload is shown. */
export const isHidden = ({ payload }: Original): boolean => payload === REDACTED;
