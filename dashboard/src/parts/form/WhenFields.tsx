// How urgently and when a job runs, and by what it is found: what can be said of a job at its creation and until it starts.

import type { Exact } from '../../api/exact';
import type { Problems } from './drafts';
import { Labelled } from './Labelled';
import { OPTION } from './problems';

/** What was entered, as texts. */
export interface When {
  priority: string;
  /** One per line. */
  tags: string;
  /** In the browser's time zone, as its fields for moments have it. */
  runAt: string;
}

const PRIORITIES = ['LOW', 'NORMAL', 'HIGH', 'CRITICAL'];

/** The tags that were entered. */
export const tagsOf = (text: string): string[] => text.split('\n').filter((tag) => tag !== '');

/** The tags of a job, to be changed. */
export const textOfTags = (tags: Exact | undefined): string => (Array.isArray(tags) ? tags.join('\n') : '');

/** The moment that was entered; null for none. What is no moment is noted among the problems. */
export function momentOf(name: string, text: string, problems: Problems): string | null {
  if (text === '') return null;
  const moment = new Date(text);
  if (!Number.isNaN(moment.getTime())) return moment.toISOString();
  problems[`${OPTION}${name}`] = 'This is no moment.';
  return null;
}

/** A moment as a field for local time has it, to the second; empty for none. */
export function localMoment(at: string | null): string {
  if (at === null) return '';
  const date = new Date(at);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return Number.isNaN(local.getTime()) ? '' : local.toISOString().slice(0, 19);
}

export const zone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone;

export function MomentField({
  name,
  text,
  hint,
  onChange,
}: {
  name: string;
  text: string;
  hint: string;
  onChange: (text: string) => void;
}) {
  return (
    <Labelled name={name} path={`${OPTION}${name}`} hint={hint}>
      {(control) => (
        <input
          {...control}
          type="datetime-local"
          step={1}
          value={text}
          onChange={(event) => onChange(event.target.value)}
        />
      )}
    </Labelled>
  );
}

export function WhenFields({ when, onChange }: { when: When; onChange: (part: Partial<When>) => void }) {
  return (
    <>
      <Labelled name="priority" path={`${OPTION}priority`}>
        {(control) => (
          <select
            {...control}
            value={when.priority}
            onChange={(event) => onChange({ priority: event.target.value })}
          >
            {PRIORITIES.map((priority) => (
              <option key={priority}>{priority}</option>
            ))}
          </select>
        )}
      </Labelled>
      <Labelled name="tags" path={`${OPTION}tags`} hint="One per line.">
        {(control) => (
          <textarea
            {...control}
            className="grows"
            rows={1}
            spellCheck={false}
            value={when.tags}
            onChange={(event) => onChange({ tags: event.target.value })}
          />
        )}
      </Labelled>
      <MomentField
        name="runAt"
        text={when.runAt}
        hint={`Not before this moment, in the time zone of this browser (${zone()}). At once where it is empty.`}
        onChange={(runAt) => onChange({ runAt })}
      />
    </>
  );
}
