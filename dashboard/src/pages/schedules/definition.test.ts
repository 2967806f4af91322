import { expect, test } from 'vitest';
import { read, write } from '../../api/exact';
import { OPTION } from '../../parts/form/problems';
import { type Definition, definitionOf, inputOf, newDefinition, recurrenceOf } from './definition';

const NIGHTLY = `{
  "name": "nightly", "cron": "30 2 * * *", "everySeconds": null, "timeZone": "Europe/Berlin", "type": "report",
  "priority": "HIGH", "tags": ["a", "b c"], "overlap": "ALLOW", "catchUpSeconds": 3600, "spreadSeconds": 5,
  "paused": true
}`;

const nightly = (part: Partial<Definition> = {}): Definition => ({
  ...definitionOf(read(NIGHTLY) as never),
  ...part,
});

test('a schedule that is there and is not changed is asked for as it is, its pause included', () => {
  const problems = {};
  const { type: _, everySeconds: __, ...same } = read(NIGHTLY) as { [name: string]: never };
  expect(JSON.parse(write(inputOf(nightly(), problems)))).toEqual(JSON.parse(write(same)));
  expect(problems).toEqual({});
});

test('of an expression and an interval the one that was chosen counts', () => {
  const both = { cron: '0 3 * * *', everySeconds: '0090' };
  expect(recurrenceOf(nightly({ ...both, by: 'cron' }), {})).toEqual({ cron: '0 3 * * *' });
  expect(write(recurrenceOf(nightly({ ...both, by: 'everySeconds' }), {}) as never, 0)).toBe(
    '{"everySeconds":90}',
  );
});

test('what is missing in an empty form is said at its fields', () => {
  const problems = {};
  inputOf({ ...newDefinition(''), catchUpSeconds: 'a minute' }, problems);
  expect(problems).toEqual({
    [`${OPTION}name`]: 'This is needed.',
    [`${OPTION}timeZone`]: 'This is needed, as Europe/Berlin or UTC.',
    [`${OPTION}cron`]: 'This is needed.',
    [`${OPTION}catchUpSeconds`]: 'Write a whole number.',
  });
});
