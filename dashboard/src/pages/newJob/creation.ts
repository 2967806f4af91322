// Creating a job once: a creation whose answer was lost may be asked for again, and what the server refuses is said at
// the fields.

import type { CombinedError } from '@urql/core';
import { sentence } from '../../api/connection';
import { type Exact, exactly, write } from '../../api/exact';
import type { Problems } from '../../parts/form/drafts';
import type { Field } from '../../parts/form/fields';
import { faultsOf, isUncertain, OPTION } from '../../parts/form/problems';
import { CREATE } from './programs';

export interface Creation {
  id: string;
  /** An idempotency key had made the job before. */
  deduplicated: boolean;
}

/**
 * Returns what creates a job of an input. Where the outcome of a creation is not known, the same input is sent again
 * under the same idempotency key, so that there is one job in the end; another input, or the same after an answer, is
 * another job.
 */
export function createOnce(
  send: (input: { [name: string]: Exact }) => Promise<Record<string, Exact>> = (input) =>
    exactly(CREATE, { input }),
): (input: { [name: string]: Exact }) => Promise<Creation> {
  let pending: { contents: string; key: string } | null = null;
  return async (input) => {
    const contents = write(input, 0);
    const repeats = pending?.contents === contents;
    if (!pending || !repeats) pending = { contents, key: `dashboard-${crypto.randomUUID()}` };
    try {
      const answer = await send({ idempotencyKey: pending.key, ...input });
      pending = null;
      const { createJob } = answer as { createJob: { deduplicated: boolean; job: { id: string } } };
      // That an own key had made it before is the end of a creation whose answer was lost.
      return {
        id: createJob.job.id,
        deduplicated: createJob.deduplicated && !(repeats && input.idempotencyKey === undefined),
      };
    } catch (error) {
      if (!isUncertain(error)) pending = null;
      throw error;
    }
  };
}

/** What a refusal says of which fields, and what it says of none. */
export function refusalOf(
  error: CombinedError,
  type: string,
  field: Field,
): { fields: Problems; general: string } {
  if (isUncertain(error))
    return {
      fields: {},
      general:
        `${error.networkError ? 'The connection was lost' : sentence(error)} It is not known whether the job was created. Create it again without a change: there will be one job only.`.replace(
          /^The connection was lost /,
          'The connection was lost. ',
        ),
    };
  const { fields, general } = faultsOf(error, type, field);
  const taken = error.graphQLErrors.find(({ extensions }) => extensions?.code === 'KEY_TAKEN');
  if (taken) fields[`${OPTION}key.value`] = taken.message;
  return { fields, general: general.filter((said) => said !== taken?.message).join(' ') };
}
