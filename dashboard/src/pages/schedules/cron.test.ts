import { expect, test } from 'vitest';
import { cronInWords } from './cron';

test.each([
  ['30 2 * * *', 'every day at 02:30'],
  ['0 3 * * MON-FRI', 'on Monday to Friday at 03:00'],
  ['0 3 * * 1-5', 'on Monday to Friday at 03:00'],
  ['0 9,17 * * sat,sun', 'on Saturday and Sunday at 09:00 and 17:00'],
  ['0 0 * * 5-7', 'on Friday to Sunday at 00:00'],
  ['0 0 * * 0', 'on Sunday at 00:00'],
  ['15 30 2 * * *', 'every day at 02:30:15'],
  ['0 0 1 1 *', 'on day 1 of the month in January at 00:00'],
  ['0 0 1,15 * *', 'on day 1 and 15 of the month at 00:00'],
  ['0 6 * JUN-AUG *', 'every day in June to August at 06:00'],
])('%s is due at some times of some days: %s', (cron, words) => expect(cronInWords(cron)).toBe(words));

test.each([
  ['* * * * *', 'every minute'],
  ['*/15 * * * *', 'every 15 minutes'],
  ['*/25 * * * *', 'at minute 0, 25 and 50 of every hour'],
  ['5 * * * *', 'at minute 5 of every hour'],
  ['0 * * * *', 'every hour'],
  ['0 */2 * * *', 'every 2 hours'],
  ['5 */2 * * *', 'at minute 5 of hour 0, 2, 4 … 22'],
  ['0 */5 * * *', 'every day at 00:00, 05:00, 10:00, 15:00 and 20:00'],
  ['*/10 9-17 * * 1-5', 'every 10 minutes from 09:00 to 17:59, on Monday to Friday'],
  ['* 9 * * *', 'every minute of hour 9'],
  ['* * * * * *', 'every second'],
  ['*/10 * * * * *', 'every 10 seconds'],
  ['30 * * * * *', 'at second 30 of every minute'],
  ['* 30 * * * *', 'every second of minute 30 of every hour'],
  ['*/10 */15 * * * *', 'every 10 seconds of minute 0, 15, 30 and 45 of every hour'],
  ['*/30 */4 * * *', 'every 30 minutes of hour 0, 4, 8 … 20'],
  ['0 8-20 * * *', 'every hour from 08:00 to 20:00'],
])('%s is due again and again: %s', (cron, words) => expect(cronInWords(cron)).toBe(words));

test.each([
  ['0 0 L * *', 'on the last day of the month at 00:00'],
  ['0 0 LW * *', 'on the last workday of the month at 00:00'],
  ['0 0 1,L * *', 'on day 1 and the last day of the month at 00:00'],
  ['0 0 * * 5L', 'on the last Friday of the month at 00:00'],
  ['0 0 * * 1#2', 'on the second Monday of the month at 00:00'],
  ['0 0 * * MON#1,5L', 'on the first Monday and the last Friday of the month at 00:00'],
])('%s counts days within a month: %s', (cron, words) => expect(cronInWords(cron)).toBe(words));

test('of two restrictions of the day either will do, and both are needed where one begins with a star', () => {
  expect(cronInWords('0 0 13 * FRI')).toBe('on day 13 of the month and on Friday at 00:00');
  expect(cronInWords('0 0 */2 * MON')).toBe('on day 1, 3, 5 … 31 of the month if that is Monday at 00:00');
});

test.each([
  '',
  '* * * *',
  '60 * * * *',
  '5-1 * * * *',
  '*/0 * * * *',
  'a b c d e',
  '0 0 * * 1#9',
  '0 0 L-1 * *',
])('what is no expression has no words: %s', (cron) => expect(cronInWords(cron)).toBeNull());
