// A schedule as a form has it, and what the API takes of that.

import { LosslessNumber } from 'lossless-json';
import type { Exact } from '../../api/exact';
import type { Problems } from '../../parts/form/drafts';
import { OPTION } from '../../parts/form/problems';
import { tagsOf, textOfTags } from '../../parts/form/WhenFields';

/** What was entered, as texts. */
export interface Definition {
  name: string;
  by: 'cron' | 'everySeconds';
  cron: string;
  everySeconds: string;
  timeZone: string;
  type: string;
  priority: string;
  /** One per line. */
  tags: string;
  overlap: string;
  catchUpSeconds: string;
  spreadSeconds: string;
  paused: boolean;
}

/** What an empty form begins with; the zone is that of the browser. */
export const newDefinition = (timeZone: string): Definition => ({
  name: '',
  by: 'cron',
  cron: '',
  everySeconds: '',
  timeZone,
  type: '',
  priority: 'NORMAL',
  tags: '',
  overlap: 'SKIP',
  catchUpSeconds: '60',
  spreadSeconds: '0',
  paused: false,
});

const textOf = (value: Exact | undefined): string =>
  value instanceof LosslessNumber ? value.value : typeof value === 'string' ? value : '';

/** A schedule that is there, to be changed. */
export const definitionOf = (schedule: { [name: string]: Exact }): Definition => ({
  name: textOf(schedule.name),
  by: schedule.everySeconds === null ? 'cron' : 'everySeconds',
  cron: textOf(schedule.cron),
  everySeconds: textOf(schedule.everySeconds),
  timeZone: textOf(schedule.timeZone),
  type: textOf(schedule.type),
  priority: textOf(schedule.priority),
  tags: textOfTags(schedule.tags),
  overlap: textOf(schedule.overlap),
  catchUpSeconds: textOf(schedule.catchUpSeconds),
  spreadSeconds: textOf(schedule.spreadSeconds),
  paused: schedule.paused === true,
});

/** When it is to be due, as the API takes it; null while that is not complete. What is no number is noted. */
export function recurrenceOf(
  { by, cron, everySeconds, timeZone }: Definition,
  problems: Problems,
): { cron: string } | { everySeconds: LosslessNumber } | null {
  if (timeZone.trim() === '') problems[`${OPTION}timeZone`] = 'This is needed, as Europe/Berlin or UTC.';
  if (by === 'cron') {
    if (cron.trim() !== '') return { cron: cron.trim() };
    problems[`${OPTION}cron`] = 'This is needed.';
    return null;
  }
  const seconds = wholeNumber('everySeconds', everySeconds, problems);
  return seconds && { everySeconds: seconds };
}

function wholeNumber(name: string, text: string, problems: Problems): LosslessNumber | null {
  if (/^\d{1,9}$/.test(text.trim())) return new LosslessNumber(text.trim().replace(/^0+(?=\d)/, ''));
  problems[`${OPTION}${name}`] = text.trim() === '' ? 'This is needed.' : 'Write a whole number.';
  return null;
}

/** All of it but the payload, as the API takes it. What is missing or cannot be read is noted among the problems. */
export function inputOf(definition: Definition, problems: Problems): { [name: string]: Exact } {
  if (definition.name.trim() === '') problems[`${OPTION}name`] = 'This is needed.';
  return {
    name: definition.name.trim(),
    ...recurrenceOf(definition, problems),
    timeZone: definition.timeZone.trim(),
    priority: definition.priority,
    tags: tagsOf(definition.tags),
    overlap: definition.overlap,
    catchUpSeconds: wholeNumber('catchUpSeconds', definition.catchUpSeconds, problems),
    spreadSeconds: wholeNumber('spreadSeconds', definition.spreadSeconds, problems),
    paused: definition.paused,
  };
}
