import { expect, test } from 'vitest';
import {
  ASKS_AFTER,
  asksAgainIn,
  differenceOfSchedules,
  goneFrom,
  intervalInWords,
  momentIn,
  type Schedule,
  whenInWords,
} from './when';

const schedule = (name: string, part: Partial<Schedule> = {}): Schedule => ({
  name,
  cron: '0 3 * * *',
  everySeconds: null,
  timeZone: 'UTC',
  type: 'report',
  overlap: 'SKIP',
  catchUpSeconds: 60,
  spreadSeconds: 0,
  paused: false,
  createdBy: null,
  definedBy: null,
  changedAt: '2026-01-01T00:00:00Z',
  nextRuns: [],
  lastJob: null,
  skips: [],
  ...part,
});

const all = (...schedules: Schedule[]) => ({ schedules, more: false });

const ran = (id: string): Schedule['lastJob'] => ({
  id,
  status: 'COMPLETED',
  runAt: null,
  createdAt: '2026-01-01T03:00:00Z',
  startedAt: null,
  finishedAt: null,
  error: null,
});

test.each([
  [1, 'every second'],
  [90, 'every 1 minute 30 seconds'],
  [300, 'every 5 minutes'],
  [3600, 'every hour'],
  [5400, 'every 1 hour 30 minutes'],
  [86_400, 'every day'],
  [172_800, 'every 2 days'],
])('an interval of %s seconds is %s', (seconds, words) => expect(intervalInWords(seconds)).toBe(words));

test('an expression is said in words where it can be', () => {
  expect(whenInWords({ cron: '0 3 * * *', everySeconds: null })).toBe('every day at 03:00');
  expect(whenInWords({ cron: 'whatever', everySeconds: null })).toBeNull();
});

test('a run is shown by the clock of its zone, with the offset that tells the two hours of an autumn night apart', () => {
  expect(momentIn('Europe/Berlin', '2027-10-31T00:30:00Z', 'en-GB')).toMatch(/^Sun,? 31 Oct,? 02:30 GMT\+2$/);
  expect(momentIn('Europe/Berlin', '2027-10-31T01:30:00Z', 'en-GB')).toMatch(/^Sun,? 31 Oct,? 02:30 GMT\+1$/);
  expect(momentIn('UTC', '2027-10-31T01:30:05Z', 'en-GB')).toMatch(/^Sun,? 31 Oct,? 01:30:05 UTC$/);
});

test('a zone that the browser does not know is no reason to show nothing', () =>
  expect(momentIn('Moon/Tranquility', '2027-10-31T01:30:00Z', 'en-GB')).toMatch(
    /^Sun,? 31 Oct,? 01:30 UTC$/,
  ));

test('what has happened meanwhile is said in one sentence', () => {
  const before = all(schedule('a', { lastJob: ran('1') }), schedule('b'), schedule('c'));
  expect(differenceOfSchedules(before, before)).toBe('Schedules: nothing has changed.');
  const after = all(
    schedule('a', { lastJob: ran('2') }),
    schedule('b', {
      changedAt: '2026-01-02T00:00:00Z',
      skips: [{ reason: 'OUTAGE', count: 2, lastAt: '2026-01-02T00:00:00Z' }],
    }),
    schedule('d', { lastJob: ran('3') }),
  );
  expect(differenceOfSchedules(before, after)).toBe(
    'Schedules: 1 has run, 2 ticks skipped, 1 new, 1 changed, 1 gone.',
  );
});

test('what is beyond the beginning that is shown is neither new nor gone', () => {
  const before = { schedules: [schedule('b'), schedule('c')], more: true };
  const withNew = { schedules: [schedule('a'), schedule('b')], more: true };
  expect(differenceOfSchedules(before, withNew)).toBe('Schedules: 1 new.');
  expect(goneFrom(before, withNew)).toEqual([]);
  expect(differenceOfSchedules(withNew, before)).toBe('Schedules: 1 gone.');
  expect(goneFrom(withNew, before)).toEqual(['a']);
});

test('the list is asked for soon after one of them is due, and neither all the time nor too seldom', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  expect(asksAgainIn([], now)).toBe(ASKS_AFTER.most);
  expect(asksAgainIn([schedule('a', { nextRuns: ['2026-01-01T00:00:01Z'] })], now)).toBe(ASKS_AFTER.least);
  const soon = [
    schedule('a', { nextRuns: ['2026-01-01T03:00:00Z'] }),
    schedule('b', { nextRuns: ['2026-01-01T00:00:10Z'] }),
  ];
  expect(asksAgainIn(soon, now)).toBe(11_500);
});
