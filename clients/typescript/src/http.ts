// Queries and mutations: over HTTP, repeated for a while where that is safe.

import { type Access, authorization } from './access.js';
import {
  asJobsError,
  askedPause,
  type GraphQLFault,
  isPassing,
  isUndone,
  JobsError,
  refusalOf,
} from './errors.js';
import { replacer, reviver } from './json.js';
import { backOff, linked, orAborted, wait } from './pause.js';

/** Milliseconds in which one try has to be answered. */
const ANSWER_WITHIN = 20_000;

export interface Abortable {
  /** Ends the waiting, with its reason; what was sent by then may be done all the same. */
  signal?: AbortSignal | undefined;
}

export interface Asking extends Abortable {
  /** Whether it may be sent again where it is not known if it was done: true where left out. */
  repeatable?: boolean;
  /** Called before it is sent again where it may have been done. */
  onDoubt?: () => void;
}

/** By what names the caller knows what is at fault. */
export interface Named {
  /** The type whose payload was given. */
  name?: string | undefined;
  /** The option that was given as the idempotency key. */
  key?: string;
}

/** Asks for the data of an operation. */
export type Ask = <Data>(query: string, variables: object, how?: Asking & Named) => Promise<Data>;

export class Http {
  /**
   * @param patience milliseconds after whose end nothing is tried again.
   */
  constructor(
    private readonly url: string,
    private readonly access: Access,
    private readonly patience: number,
    private readonly fetch: typeof globalThis.fetch | undefined,
  ) {}

  /** The data of an operation. Rejects with JobsError, or with the reason of the signal. */
  async ask<Data>(
    query: string,
    variables: object,
    { repeatable = true, onDoubt, signal }: Asking,
  ): Promise<Data> {
    const begun = Date.now();
    let isRenewed = false;
    for (let failures = 0; ; failures += 1) {
      let token: string | undefined;
      let refusal: JobsError;
      try {
        token = await orAborted(this.access.token(), signal);
        return await this.once<Data>(query, variables, token, signal);
      } catch (problem) {
        signal?.throwIfAborted();
        refusal = asJobsError(problem);
      }
      if (
        refusal.code === 'UNAUTHENTICATED' &&
        token !== undefined &&
        this.access.isRenewable &&
        !isRenewed
      ) {
        isRenewed = true;
        this.access.drop(token);
        continue;
      }
      // Without a token nothing was sent.
      const isSurelyUndone = isUndone(refusal) || (token === undefined && this.access.isRenewable);
      const mayRepeat = repeatable || isSurelyUndone;
      const pause = Math.max(backOff(failures), askedPause(refusal));
      if (!mayRepeat || !isPassing(refusal) || Date.now() + pause - begun > this.patience) throw refusal;
      if (!isSurelyUndone) onDoubt?.();
      await wait(pause, signal);
    }
  }

  private async once<Data>(
    query: string,
    variables: object,
    token: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Data> {
    const body = JSON.stringify({ query, variables }, replacer);
    const ask = this.fetch ?? globalThis.fetch;
    const under = linked(signal);
    const late = setTimeout(() => under.abort(), Math.min(ANSWER_WITHIN, this.patience));
    let status: number;
    let text: string;
    try {
      const response = await ask(this.url, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', Accept: 'application/json', ...authorization(token) },
        body,
        signal: under.signal,
      });
      status = response.status;
      text = await response.text();
    } finally {
      clearTimeout(late);
      under.release();
    }
    let answer: { data?: Data | null; errors?: GraphQLFault[] } | null;
    try {
      answer = JSON.parse(text, reviver);
    } catch (cause) {
      // A proxy says by these that what is behind it is not there, or is asked too often.
      if ([429, 502, 503, 504].includes(status)) throw cause;
      throw new JobsError('BAD_RESPONSE', `What answers at ${this.url} is not the API of gql-jobs.`, {
        cause,
      });
    }
    if (answer?.errors?.length) throw refusalOf(answer.errors);
    if (!answer?.data)
      throw new JobsError('BAD_RESPONSE', `What answers at ${this.url} is not the API of gql-jobs.`);
    return answer.data;
  }
}

/** Whether what was to be deleted was there. Where an answer was lost, it may be that try that has deleted it. */
export async function wasThere<Data extends { deletion: { deleted: boolean } }>(
  ask: Ask,
  query: string,
  variables: object,
  { signal }: Abortable = {},
): Promise<boolean> {
  let isInDoubt = false;
  const onDoubt = () => {
    isInDoubt = true;
  };
  try {
    return (await ask<Data>(query, variables, { signal, onDoubt })).deletion.deleted || isInDoubt;
  } catch (problem) {
    // To whoever sees a part of the jobs, one that is deleted was never there.
    if (isInDoubt && problem instanceof JobsError && problem.code === 'NOT_FOUND') return true;
    throw problem;
  }
}
