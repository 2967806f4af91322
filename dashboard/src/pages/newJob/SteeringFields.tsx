// What a new job has to wait for, what it shares limits with, and until when it is of use.

import { LosslessNumber } from 'lossless-json';
import type { Exact } from '../../api/exact';
import type { Problems } from '../../parts/form/drafts';
import { Labelled } from '../../parts/form/Labelled';
import { OPTION } from '../../parts/form/problems';
import { MomentField, momentOf } from '../../parts/form/WhenFields';

/** What was entered, as texts. */
export interface Steering {
  /** Ids, one per line. */
  after: string;
  afterPolicy: string;
  /** In the browser's time zone. */
  startBefore: string;
  concurrencyKey: string;
  key: string;
  policy: string;
  maxDelaySeconds: string;
}

export const UNSTEERED: Steering = {
  after: '',
  afterPolicy: 'CANCEL',
  startBefore: '',
  concurrencyKey: '',
  key: '',
  policy: 'RETURN',
  maxDelaySeconds: '',
};

/** What becomes of the creation while another job has the key. */
const POLICIES: Record<string, string> = {
  RETURN: 'RETURN: that job is given back',
  REJECT: 'REJECT: this one is refused',
  REPLACE: 'REPLACE: that one takes over this payload',
};

/** What becomes of the job when one of those before it does not complete. */
const AFTER_POLICIES: Record<string, string> = {
  CANCEL: 'CANCEL: it is cancelled as well',
  RUN: 'RUN: it runs all the same',
};

const linesOf = (text: string): string[] => text.split(/[\s,;]+/).filter(Boolean);

/** What was entered as the API takes it, without what is empty. What cannot be read is noted among the problems. */
export function valuesOfSteering(steering: Steering, problems: Problems): { [name: string]: Exact } {
  const values: { [name: string]: Exact } = {};
  const after = linesOf(steering.after);
  if (after.length > 0) {
    values.after = after;
    if (steering.afterPolicy !== 'CANCEL') values.afterPolicy = steering.afterPolicy;
  }
  const startBefore = momentOf('startBefore', steering.startBefore, problems);
  if (startBefore !== null) values.startBefore = startBefore;
  if (steering.concurrencyKey !== '') values.concurrencyKey = steering.concurrencyKey;
  if (steering.key !== '') {
    const delay = steering.policy === 'REPLACE' ? steering.maxDelaySeconds.trim() : '';
    if (!/^\d{0,9}$/.test(delay)) problems[`${OPTION}key.maxDelaySeconds`] = 'Write a whole number.';
    values.key = {
      value: steering.key,
      ...(steering.policy !== 'RETURN' && { policy: steering.policy }),
      ...(/^\d{1,9}$/.test(delay) && { maxDelaySeconds: new LosslessNumber(String(Number(delay))) }),
    };
  }
  return values;
}

export function SteeringFields({
  steering,
  onChange,
}: {
  steering: Steering;
  onChange: (part: Partial<Steering>) => void;
}) {
  return (
    <>
      <Labelled
        name="after"
        path={`${OPTION}after`}
        hint="The ids of jobs that have to complete first, one per line."
      >
        {(control) => (
          <textarea
            {...control}
            className="grows"
            rows={1}
            spellCheck={false}
            value={steering.after}
            onChange={(event) => onChange({ after: event.target.value })}
          />
        )}
      </Labelled>
      {steering.after !== '' && (
        <OneOf
          name="afterPolicy"
          hint="If one of them does not complete."
          choices={AFTER_POLICIES}
          chosen={steering.afterPolicy}
          onChange={(afterPolicy) => onChange({ afterPolicy })}
        />
      )}
      <MomentField
        name="startBefore"
        text={steering.startBefore}
        hint="Cancelled if it has not started by this moment, in the same time zone."
        onChange={(startBefore) => onChange({ startBefore })}
      />
      <Labelled
        name="concurrencyKey"
        path={`${OPTION}concurrencyKey`}
        hint="Jobs that have the same one share the limits per key; in the place of what their type says."
      >
        {(control) => (
          <input
            {...control}
            autoComplete="off"
            spellCheck={false}
            value={steering.concurrencyKey}
            onChange={(event) => onChange({ concurrencyKey: event.target.value })}
          />
        )}
      </Labelled>
      <Labelled
        name="key.value"
        path={`${OPTION}key.value`}
        hint="What no other job may have until this one has ended."
      >
        {(control) => (
          <input
            {...control}
            autoComplete="off"
            spellCheck={false}
            value={steering.key}
            onChange={(event) => onChange({ key: event.target.value })}
          />
        )}
      </Labelled>
      {steering.key !== '' && (
        <OneOf
          name="key.policy"
          hint="While another job has it."
          choices={POLICIES}
          chosen={steering.policy}
          onChange={(policy) => onChange({ policy })}
        />
      )}
      {steering.key !== '' && steering.policy === 'REPLACE' && (
        <Labelled
          name="key.maxDelaySeconds"
          path={`${OPTION}key.maxDelaySeconds`}
          hint="How long after its creation that job may be put off, each time it is replaced."
        >
          {(control) => (
            <input
              {...control}
              inputMode="numeric"
              autoComplete="off"
              placeholder="without end"
              value={steering.maxDelaySeconds}
              onChange={(event) => onChange({ maxDelaySeconds: event.target.value })}
            />
          )}
        </Labelled>
      )}
    </>
  );
}

function OneOf({
  name,
  hint,
  choices,
  chosen,
  onChange,
}: {
  name: string;
  hint: string;
  choices: Record<string, string>;
  chosen: string;
  onChange: (value: string) => void;
}) {
  return (
    <Labelled name={name} path={`${OPTION}${name}`} hint={hint}>
      {(control) => (
        <select {...control} value={chosen} onChange={(event) => onChange(event.target.value)}>
          {Object.entries(choices).map(([value, said]) => (
            <option key={value} value={value}>
              {said}
            </option>
          ))}
        </select>
      )}
    </Labelled>
  );
}
