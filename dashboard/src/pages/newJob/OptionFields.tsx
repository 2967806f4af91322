// How urgently, when, how often and beside which others a new job runs.

import { LosslessNumber } from 'lossless-json';
import type { Exact } from '../../api/exact';
import type { Problems } from '../../parts/form/drafts';
import { Labelled } from '../../parts/form/Labelled';
import { OPTION } from '../../parts/form/problems';
import { momentOf, tagsOf, textOfTags, type When, WhenFields } from '../../parts/form/WhenFields';
import { type Steering, SteeringFields, UNSTEERED, valuesOfSteering } from './SteeringFields';

/** What was entered, as texts. */
export interface Options extends When, Steering {
  maxRetries: string;
  timeoutSeconds: string;
  idempotencyKey: string;
}

/** The options of a job that is there, for another one like it. */
export function optionsOf(job: { [name: string]: Exact }): Options {
  return {
    priority: String(job.priority),
    tags: textOfTags(job.tags),
    runAt: '',
    maxRetries: job.maxRetries instanceof LosslessNumber ? job.maxRetries.value : '',
    timeoutSeconds: job.timeoutSeconds instanceof LosslessNumber ? job.timeoutSeconds.value : '',
    idempotencyKey: '',
    // What holds the original back, or is its own, is nothing that another job has as well.
    ...UNSTEERED,
  };
}

/** The options as the API takes them, those left empty left out. What cannot be read is noted among the problems. */
export function valuesOfOptions(options: Options, problems: Problems): { [name: string]: Exact } {
  const values: { [name: string]: Exact } = {};
  if (options.priority !== 'NORMAL') values.priority = options.priority;
  const tags = tagsOf(options.tags);
  if (tags.length > 0) values.tags = tags;
  const runAt = momentOf('runAt', options.runAt, problems);
  if (runAt !== null) values.runAt = runAt;
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
  return { ...values, ...valuesOfSteering(options, problems) };
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
      <WhenFields when={options} onChange={set} />
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
      <SteeringFields steering={options} onChange={set} />
    </>
  );
}
