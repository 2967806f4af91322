// How moments, spans of time, sizes and names are written.

import type { JobStatus } from './api/generated';

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const CLOCK_OF_MILLISECONDS = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  fractionalSecondDigits: 3,
});
const DATE = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
const COUNT = new Intl.NumberFormat();

/** A moment of the browser's time zone: the time alone if it is of today. */
export function moment(at: string | number, milliseconds = false): string {
  const date = new Date(at);
  const time = (milliseconds ? CLOCK_OF_MILLISECONDS : CLOCK).format(date);
  return date.toDateString() === new Date().toDateString() ? time : `${DATE.format(date)}, ${time}`;
}

const SPANS = [
  [86_400_000, 'd', 3_600_000, 'h'],
  [3_600_000, 'h', 60_000, 'min'],
  [60_000, 'min', 1000, 's'],
] as const;

/** How long ago something was, or how long it is until then: in whole seconds, else as `span`. */
export const age = (milliseconds: number): string =>
  milliseconds < 59_500 ? `${Math.max(0, Math.floor(milliseconds / 1000))} s` : span(milliseconds);

/** A span of time in its two largest units: `850 ms`, `9.3 s`, `4 min 5 s`, `2 d 3 h`. */
export function span(milliseconds: number): string {
  const whole = Math.max(0, Math.round(milliseconds));
  if (whole < 1000) return `${whole} ms`;
  if (whole < 59_500) return `${(whole / 1000).toFixed(whole < 9_950 ? 1 : 0)} s`;
  for (const [large, largeUnit, small, smallUnit] of SPANS) {
    const rounded = Math.round(whole / small) * small;
    if (rounded < large) continue;
    const rest = (rounded % large) / small;
    return `${Math.floor(rounded / large)} ${largeUnit}${rest ? ` ${rest} ${smallUnit}` : ''}`;
  }
  return '1 min';
}

export function bytes(size: number): string {
  if (size < 1000) return `${size} B`;
  for (const [unit, factor] of [
    ['kB', 1e3],
    ['MB', 1e6],
  ] as const)
    if (size < factor * 999.5) return `${(size / factor).toFixed(size < factor * 10 ? 1 : 0)} ${unit}`;
  return `${(size / 1e9).toFixed(1)} GB`;
}

export const count = (number: number): string => COUNT.format(number);

/** `1 job`, `2 jobs`, `no jobs`. */
export const many = (number: number, noun: string, plural = `${noun}s`): string =>
  `${number === 0 ? 'no' : count(number)} ${number === 1 ? noun : plural}`;

/** What a state is called on the screen. */
export const STATUS: Record<JobStatus, string> = {
  SCHEDULED: 'Scheduled',
  WAITING: 'Held back',
  QUEUED: 'Queued',
  PROCESSING: 'Running',
  RETRYING: 'Retrying',
  COMPLETED: 'Completed',
  DEAD_LETTER: 'Dead letter',
  CANCELLED: 'Cancelled',
};

export const STATUSES = Object.keys(STATUS) as JobStatus[];

/** The states in which a job stays until somebody retries it. */
export const ENDED: ReadonlySet<JobStatus> = new Set<JobStatus>(['COMPLETED', 'DEAD_LETTER', 'CANCELLED']);

/** Whether a job can be changed, as far as its state tells: no attempt of it has begun. */
export const isChangeable = ({ status, attempt }: { status: JobStatus; attempt: number }): boolean =>
  attempt === 0 && (status === 'SCHEDULED' || status === 'WAITING' || status === 'QUEUED');

/** Whether a job can be retried by hand. */
export const isRetriable = (status: JobStatus): boolean => status === 'DEAD_LETTER' || status === 'CANCELLED';

/** The first characters of an id, with which people tell jobs apart. */
export const short = (id: string): string => id.slice(0, 8);
