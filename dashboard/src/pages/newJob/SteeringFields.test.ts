import { expect, test } from 'vitest';
import { LosslessNumber } from 'lossless-json';
import type { Problems } from '../../parts/form/drafts';
import { type Steering, UNSTEERED, valuesOfSteering } from './SteeringFields';

function values(entered: Partial<Steering>) {
  const problems: Problems = {};
  return { values: valuesOfSteering({ ...UNSTEERED, ...entered }, problems), problems };
}

test('what is left empty is not sent, and neither is what says nothing alone', () => {
  const left = { afterPolicy: 'RUN', policy: 'REPLACE', maxDelaySeconds: '9' };
  expect(values(left)).toEqual({ values: {}, problems: {} });
});

test('ids are separated by whatever stands between them', () => {
  expect(values({ after: 'a\n b, c;\n', afterPolicy: 'RUN' }).values).toEqual({
    after: ['a', 'b', 'c'],
    afterPolicy: 'RUN',
  });
});

test('a key is sent with what is asked for it, a delay only where one is replaced', () => {
  expect(values({ key: 'k' }).values).toEqual({ key: { value: 'k' } });
  expect(values({ key: 'k', policy: 'REJECT', maxDelaySeconds: 'x' })).toEqual({
    values: { key: { value: 'k', policy: 'REJECT' } },
    problems: {},
  });
  const replaced = values({ key: 'k', policy: 'REPLACE', maxDelaySeconds: ' 060 ' }).values;
  expect(replaced).toEqual({
    key: { value: 'k', policy: 'REPLACE', maxDelaySeconds: new LosslessNumber('60') },
  });
  const { problems } = values({ key: 'k', policy: 'REPLACE', maxDelaySeconds: 'soon' });
  expect(Object.keys(problems)).toEqual(['(option) key.maxDelaySeconds']);
});
