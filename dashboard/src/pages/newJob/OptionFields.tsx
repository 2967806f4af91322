// How urgently, when and how often a new job runs.

import { LosslessNumber } from 'lossless-json';
import type { Exact } from '../../api/exact';
import type { Problems } from './drafts';
import { Labelled } from './Labelled';

/** What was entered, as texts. */
export interface Options {
  priority: string;
  /** One per line. */
  tags: string;
  /** In the browser's time zone, as its fields for moments have it. */
  runAt: string;
  maxRetries: string;
  timeoutSeconds: string;
  idempotencyKey: string;
}

/** What stands before the names of options among the problems, which are those of the payload's fields otherwise. */
export const OPTION = '(option) ';

const PRIORITIES = ['LOW', 'NORMAL', 'HIGH', 'CRITICAL'];

/** The options of a job that is there, for another one like it. */
export function optionsOf(job: { [name: string]: Exact }): Options {
  return {
    priority: String(job.priority),
    tags: Array.isArray(job.tags) ? job.tags.join('\n') : '',
    runAt: '',
    maxRetries: job.maxRetries instanceof LosslessNumber ? job.maxRetries.value : '',
    timeoutSeconds: job.timeoutSeconds instanceof LosslessNumber ? job.timeoutSeconds.value : '',
    idempotencyKey: '',
  };
}

/** The options as the API takes them, those left empty left out. What cannot be read is noted among the problems. */
export function valuesOfOptions(options: Options, problems: Problems): { [name: string]: Exact } {
  const values: { [name: string]: Exact } = {};
  if (options.priority !== 'NORMAL') values.priority = options.priority;
  const tags = options.tags.split('\n').filter((tag) => tag !== '');
  if (tags.length > 0) values.tags = tags;
  if (options.runAt !== '') {
    const moment = new Date(options.runAt);
    if (Number.isNaN(moment.getTime())) problems[`${OPTION}runAt`] = 'This is no moment.';
    else values.runAt = moment.toISOString();
  }
  for (const [name, grammar] of [
    ['maxRetries', /^\d{1,9}$/],
    ['timeoutSeconds', /^\d{1,9}(\.\d{1,9})?$/],
  ] as const) {
    const text = options[name].trim();
    if (text === '') continue;
    if (grammar.test(text)) values[name] = new LosslessNumber(text.replace(/^0+(?=\d)/, ''));
    else problems[`${OPTION}${name}`] = name === 'maxRetries' ? 'Write a whole number.' : 'Write a number.';
  }
  if (options.idempotencyKey !== '') values.idempotencyKey = options.idempotencyKey;
  return values;
}

/** The fields of the options. */
export function OptionFields({
  options,
  onChange,
  type,
}: {
  options: Options;
  onChange: (options: Options) => void;
  type: { maxRetries: string; timeoutSeconds: string; queue: string };
}) {
  const set = (part: Partial<Options>) => onChange({ ...options, ...part });
  return (
    <>
      <p className="hint">
        Jobs of this type go to the queue <code>{type.queue}</code>.
      </p>
      <Labelled name="priority" path={`${OPTION}priority`}>
        {(control) => (
          <select
            {...control}
            value={options.priority}
            onChange={(event) => set({ priority: event.target.value })}
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
            value={options.tags}
            onChange={(event) => set({ tags: event.target.value })}
          />
        )}
      </Labelled>
      <Labelled
        name="runAt"
        path={`${OPTION}runAt`}
        hint={`Not before this moment, in the time zone of this browser (${zone()}). At once where it is empty.`}
      >
        {(control) => (
          <input
            {...control}
            type="datetime-local"
            step={1}
            value={options.runAt}
            onChange={(event) => set({ runAt: event.target.value })}
          />
        )}
      </Labelled>
      <Labelled name="maxRetries" path={`${OPTION}maxRetries`} hint="Attempts after the first: 0 to 100.">
        {(control) => (
          <input
            {...control}
            inputMode="numeric"
            autoComplete="off"
            placeholder={type.maxRetries}
            value={options.maxRetries}
            onChange={(event) => set({ maxRetries: event.target.value })}
          />
        )}
      </Labelled>
      <Labelled
        name="timeoutSeconds"
        path={`${OPTION}timeoutSeconds`}
        hint="How long one attempt may take: 0.1 to 86400."
      >
        {(control) => (
          <input
            {...control}
            inputMode="decimal"
            autoComplete="off"
            placeholder={type.timeoutSeconds}
            value={options.timeoutSeconds}
            onChange={(event) => set({ timeoutSeconds: event.target.value })}
          />
        )}
      </Labelled>
      <Labelled
        name="idempotencyKey"
        path={`${OPTION}idempotencyKey`}
        hint="The same key with the same payload makes one job only, however often it is sent."
      >
        {(control) => (
          <input
            {...control}
            autoComplete="off"
            spellCheck={false}
            value={options.idempotencyKey}
            onChange={(event) => set({ idempotencyKey: event.target.value })}
          />
        )}
      </Labelled>
    </>
  );
}

const zone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone;
