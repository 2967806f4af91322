// When a schedule is due and what has become of its ticks, in words.

import type { ListedScheduleFragment, OverlapPolicy, SkipReason } from '../../api/generated';
import { many } from '../../format';
import { cronInWords } from './cron';

export type Schedule = ListedScheduleFragment;

const UNITS = [
  [86_400, 'day'],
  [3600, 'hour'],
  [60, 'minute'],
  [1, 'second'],
] as const;

/** An interval in words, to the second: `every hour`, `every 1 hour 30 minutes`. */
export function intervalInWords(seconds: number): string {
  const parts: string[] = [];
  let rest = seconds;
  for (const [size, unit] of UNITS) {
    const number = Math.floor(rest / size);
    rest -= number * size;
    if (number > 0) parts.push(number === 1 && seconds === size ? unit : many(number, unit));
  }
  return `every ${parts.join(' ')}`;
}

/** When a schedule is due, in words; null where its expression is one that cannot be said. */
export function whenInWords({
  cron,
  everySeconds,
}: {
  cron: string | null;
  everySeconds: number | null;
}): string | null {
  if (everySeconds !== null) return intervalInWords(everySeconds);
  return cron === null ? null : cronInWords(cron);
}

const MOMENT: Intl.DateTimeFormatOptions = {
  weekday: 'short',
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
};

/** A moment as it is in a time zone, with how far that is from UTC then; in UTC where the browser does not know it. */
export function momentIn(zone: string, at: string, locale?: string): string {
  const date = new Date(at);
  const options = date.getUTCSeconds() === 0 ? MOMENT : { ...MOMENT, second: '2-digit' as const };
  for (const timeZone of [zone, 'UTC'])
    try {
      const timeZoneName = timeZone === 'UTC' ? 'short' : 'shortOffset';
      return new Intl.DateTimeFormat(locale, { ...options, timeZone, timeZoneName }).format(date);
    } catch {
      // A browser may have an older list of zones than the server.
    }
  return at;
}

export const OVERLAP: Record<OverlapPolicy, string> = {
  SKIP: 'Skipped while an earlier job has not ended',
  ALLOW: 'Runs beside earlier jobs',
  CANCEL_OTHER: 'Cancels an earlier job that has not ended',
};

export const SKIP_REASON: Record<SkipReason, string> = {
  OVERLAP: 'an earlier job had not ended',
  OUTAGE: 'no API process made it in time',
  REFUSED: 'its job could not be created, as the log of the server says',
};

/** How many ticks of a schedule had no run. */
export const skippedOf = ({ skips }: Schedule): number =>
  skips.reduce((total, { count }) => total + count, 0);

/** The first schedules by their names. */
export interface Listed {
  schedules: readonly Schedule[];
  /** Whether there are more behind these. */
  more: boolean;
}

/** Those of a list of which another one would have the names as well: both may be beginnings only. */
function comparable(list: Listed, other: Listed): Schedule[] {
  const last = other.more ? other.schedules.at(-1)?.name : undefined;
  return list.schedules.filter(({ name }) => last === undefined || name <= last);
}

/** The names that a list does not have any more. */
export function goneFrom(before: Listed, after: Listed): string[] {
  const names = new Set(after.schedules.map(({ name }) => name));
  return comparable(before, after)
    .map(({ name }) => name)
    .filter((name) => !names.has(name));
}

/** How two states of the list differ, in words. */
export function differenceOfSchedules(before: Listed, after: Listed): string {
  const known = new Map(before.schedules.map((schedule) => [schedule.name, schedule]));
  const gone = goneFrom(before, after).length;
  let entered = 0;
  let ran = 0;
  let changed = 0;
  let skipped = 0;
  for (const schedule of comparable(after, before)) {
    const then = known.get(schedule.name);
    if (then === undefined) {
      entered += 1;
      continue;
    }
    if (schedule.lastJob !== null && schedule.lastJob.id !== then.lastJob?.id) ran += 1;
    if (schedule.changedAt !== then.changedAt) changed += 1;
    skipped += Math.max(0, skippedOf(schedule) - skippedOf(then));
  }
  const parts = [
    ran && `${ran} ${ran === 1 ? 'has' : 'have'} run`,
    skipped && `${many(skipped, 'tick')} skipped`,
    entered && `${entered} new`,
    changed && `${changed} changed`,
    gone && `${gone} gone`,
  ].filter(Boolean);
  return parts.length ? `Schedules: ${parts.join(', ')}.` : 'Schedules: nothing has changed.';
}

/** Milliseconds between two questions, at least and at most. */
export const ASKS_AFTER = { least: 5000, most: 30_000 } as const;
/** Milliseconds after the moment at which a schedule is due in which its job is made, as a rule. */
const MADE_WITHIN = 1500;

/** In how many milliseconds to ask again: soon after one of them is due, since the next run is another one then. */
export function asksAgainIn(schedules: readonly Schedule[], now: number): number {
  const due = schedules.flatMap(({ nextRuns }) => nextRuns.slice(0, 1).map((at) => Date.parse(at)));
  const next = Math.min(...due) + MADE_WITHIN - now;
  return Math.min(ASKS_AFTER.most, Math.max(ASKS_AFTER.least, next));
}
