// What can go wrong, in one class: a sentence for people, a stable code for programs, the field that is at fault.

import type { ErrorCode } from './generated/codes.js';
import type { Job } from './jobTypes.js';

export type { ErrorCode };

/** Codes of what goes wrong on this side, or of how a job has ended. */
export type ClientErrorCode =
  /** The server was not reached, or has not answered. Of what is not repeatable it is not known whether it was done. */
  | 'UNREACHABLE'
  /** What answered is not the API of gql-jobs. */
  | 'BAD_RESPONSE'
  /** The client was closed. */
  | 'CLOSED'
  /** The job has failed for good; `job.error` says why. */
  | 'JOB_FAILED'
  /** The job was cancelled. */
  | 'JOB_CANCELLED';

/** A refusal as the server writes it. */
export interface GraphQLFault {
  message: string;
  path?: readonly (string | number)[] | undefined;
  extensions?: Readonly<Record<string, unknown>> | undefined;
}

/** One field of a payload and what is wrong with it. */
export interface FieldFault {
  readonly path: string;
  readonly message: string;
}

interface Details {
  field?: string | null;
  fields?: readonly FieldFault[];
  extensions?: Readonly<Record<string, unknown>>;
  job?: Job;
  cause?: unknown;
}

/** Everything that the client throws, but for the reason of an AbortSignal. */
export class JobsError extends Error {
  override readonly name = 'JobsError';
  /** Stays the same from release to release. */
  readonly code: ErrorCode | ClientErrorCode;
  /** The argument, or the first field of the payload, that is at fault; null where none is. */
  readonly field: string | null;
  /** All fields of a payload that are at fault. */
  readonly fields: readonly FieldFault[];
  /** What else the server says, as `existingJobId` of an `IDEMPOTENCY_CONFLICT`. */
  readonly extensions: Readonly<Record<string, unknown>>;
  /** The job that has failed or was cancelled. */
  readonly job: Job | undefined;

  constructor(code: ErrorCode | ClientErrorCode, message: string, details: Details = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.fields = details.fields ?? [];
    this.field = details.field ?? this.fields[0]?.path ?? null;
    this.extensions = details.extensions ?? {};
    this.job = details.job;
  }

  /**
   * The same, with its fields as whoever has called a method knows them: `to` for `input.payload.email.to`.
   *
   * @param name the type whose payload was given.
   * @param key the option that was given as the idempotency key.
   */
  within(name?: string, key = 'idempotencyKey'): JobsError {
    const { code, message, extensions, cause } = this;
    const begin = new RegExp(`^((input|limits)\\.)?(payload\\.${name}\\.)?`);
    const called = (path: string) => path.replace(begin, '').replace(/^idempotencyKey$/, key);
    const fields = this.fields.map(({ path, message }) => ({ path: called(path), message }));
    return new JobsError(code, message, {
      field: this.field && called(this.field),
      fields,
      extensions,
      cause,
    });
  }
}

/** The first refusal of an answer as an error. */
export function refusalOf([fault]: readonly GraphQLFault[]): JobsError {
  if (!fault) return new JobsError('BAD_RESPONSE', 'The server refused this without a reason.');
  const extensions = fault.extensions ?? {};
  const { code, argument, fields } = extensions;
  return new JobsError((code as ErrorCode | undefined) ?? 'INTERNAL', fault.message, {
    field: typeof argument === 'string' ? argument : null,
    fields: Array.isArray(fields) ? (fields as FieldFault[]) : [],
    extensions,
  });
}

/** Whatever was thrown as an error of the client: what is none comes of a connection. */
export function asJobsError(problem: unknown): JobsError {
  if (problem instanceof JobsError) return problem;
  if (Array.isArray(problem)) return refusalOf(problem as GraphQLFault[]);
  return new JobsError('UNREACHABLE', 'The server could not be reached, or has not answered.', {
    cause: problem,
  });
}

const PASSING: ReadonlySet<string> = new Set([
  'UNREACHABLE',
  'QUEUE_UNAVAILABLE',
  'RATE_LIMITED',
  'SERVER_STOPPING',
  'TIMEOUT',
]);

/** Whether the same may be answered otherwise in a while. */
export const isPassing = ({ code }: JobsError): boolean => PASSING.has(code);

/** Whether it is certain that nothing was done. */
export const isUndone = ({ code }: JobsError): boolean => code === 'RATE_LIMITED';

/** Milliseconds for which the server asks to be left alone. */
export const askedPause = ({ extensions: { retryAfter } }: JobsError): number =>
  typeof retryAfter === 'number' ? retryAfter * 1000 : 0;
