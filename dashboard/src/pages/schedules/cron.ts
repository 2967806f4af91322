// What a cron expression means, in words: for those who do not read them. It follows the rules of the server, which are
// those of Debian's cron with seconds, the last day of a month (`L`), the last Friday (`5L`) and the second Monday (`1#2`).

const WEEKDAYS = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'];
const MONTHS = [
  ...['January', 'February', 'March', 'April', 'May', 'June', 'July'],
  ...['August', 'September', 'October', 'November', 'December'],
];
const NTH = ['first', 'second', 'third', 'fourth', 'fifth'];
const LAST = 'last';
const LAST_WORKDAY = 'last workday';

type Item = number | string;
interface Values {
  /** Numbers in order; what is no number is in words. */
  items: readonly Item[];
  /** Whether the field restricts nothing. */
  any: boolean;
  /** Whether it begins with `*`. */
  starred: boolean;
}

const short = (names: readonly string[]): string[] => names.map((name) => name.slice(0, 3).toUpperCase());

interface Kind {
  from: number;
  to: number;
  names?: readonly string[];
  special?: (text: string) => Item | null;
}

const DAY: Kind = {
  from: 1,
  to: 31,
  special: (text) => (text === 'L' ? LAST : text === 'LW' ? LAST_WORKDAY : null),
};
const MONTH: Kind = { from: 1, to: 12, names: ['', ...short(MONTHS)] };
const DAYS_BY_NUMBER = ['SUN', ...short(WEEKDAYS.slice(0, 6))];
const WEEKDAY: Kind = {
  from: 0,
  to: 7,
  names: DAYS_BY_NUMBER,
  special(text) {
    const [, day = '', nth] = /^(\w+)#([1-5])$/.exec(text) ?? /^([0-7])L$/.exec(text) ?? [];
    const number = numberOf(day, WEEKDAY);
    if (number === null) return null;
    return `the ${nth === undefined ? LAST : NTH[Number(nth) - 1]} ${weekday(number)}`;
  },
};

const weekday = (number: number): string => WEEKDAYS[(number + 6) % 7] ?? '';

function numberOf(text: string, { from, to, names }: Kind): number | null {
  const named = text === '' ? -1 : (names?.indexOf(text) ?? -1);
  if (named >= 0) return named;
  const number = /^\d+$/.test(text) ? Number(text) : -1;
  return number >= from && number <= to ? number : null;
}

function itemsOf(text: string, kind: Kind): Item[] | null {
  if (text === '*') return Array.from({ length: kind.to - kind.from + 1 }, (_, place) => kind.from + place);
  if (text.includes(',')) {
    const parts = text.split(',').map((part) => itemsOf(part, kind));
    return parts.some((part) => part === null) ? null : parts.flatMap((part) => part ?? []);
  }
  const special = kind.special?.(text);
  if (special) return [special];
  if (text.includes('/')) {
    const [term = '', step = ''] = text.split('/', 2);
    const items = itemsOf(term, kind);
    if (items === null || !/^\d+$/.test(step) || Number(step) === 0) return null;
    const [only] = items;
    const steps =
      items.length === 1 && typeof only === 'number'
        ? Array.from({ length: kind.to - only + 1 }, (_, place) => only + place)
        : items;
    return steps.filter((_, place) => place % Number(step) === 0);
  }
  if (text.includes('-')) {
    const [low, high] = text.split('-', 2).map((part) => numberOf(part, kind));
    if (low == null || high == null || low > high) return null;
    return Array.from({ length: high - low + 1 }, (_, place) => low + place);
  }
  const number = numberOf(text, kind);
  return number === null ? null : [number];
}

function valuesOf(text: string, kind: Kind): Values | null {
  const found = itemsOf(text, kind);
  if (found === null) return null;
  // Sunday has two numbers, and a week begins on Monday here.
  const items = [...new Set(found.map((item) => (kind === WEEKDAY && item === 0 ? 7 : item)))];
  const numbers = items.filter((item) => typeof item === 'number').sort((one, other) => one - other);
  const all = kind === WEEKDAY ? 7 : kind.to - kind.from + 1;
  return {
    items: [...numbers, ...items.filter((item) => typeof item === 'string')],
    any: numbers.length === all,
    starred: text.startsWith('*'),
  };
}

const joined = (parts: readonly string[], word = 'and'): string =>
  parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} ${word} ${parts.at(-1)}`;

/** By how much each of some numbers is greater than the one before, where that is always the same; else null. */
function stepOf(items: readonly Item[]): number | null {
  const [first, second] = items;
  if (typeof first !== 'number' || typeof second !== 'number') return null;
  const step = second - first;
  return items.every((item, place) => item === first + place * step) ? step : null;
}

/** Numbers in words: `1, 15 and 30`, of a row of many `5 to 10`, or `1, 3, 5 … 31`. */
function listed(items: readonly Item[], name: (item: Item) => string = String): string {
  const step = items.length > 2 ? stepOf(items) : null;
  const first = items.slice(0, 3).map(name);
  const last = name(items.at(-1) ?? '');
  if (step === 1) return `${first[0]} to ${last}`;
  if (step !== null && items.length > 5) return `${first.join(', ')} … ${last}`;
  return joined(items.map(name));
}

const two = (number: Item): string => String(number).padStart(2, '0');

/** How many parts of so many a field stands for, where it begins with the first and divides them evenly; else null. */
function evenly({ items }: Values, of: number): number | null {
  const step = stepOf(items);
  return items[0] === 0 && step !== null && of % step === 0 && items.length === of / step ? step : null;
}

const every = (step: number, unit: string): string =>
  step === 1 ? `every ${unit}` : `every ${step} ${unit}s`;

/** More moments of a day than these are not named one by one. */
const MOST_TIMES = 6;

function timesOf(second: Values, minute: Values, hour: Values): { moments: string | null; words: string } {
  const isWhole = second.items.length === 1 && second.items[0] === 0;
  const number = second.items.length * minute.items.length * hour.items.length;
  if (number <= MOST_TIMES) {
    const moments = hour.items.flatMap((h) =>
      minute.items.flatMap((m) =>
        second.items.map((s) => `${two(h)}:${two(m)}${isWhole ? '' : `:${two(s)}`}`),
      ),
    );
    return { moments: joined(moments), words: '' };
  }
  const levels = [
    { unit: 'second', of: 60, values: second },
    { unit: 'minute', of: 60, values: minute },
    { unit: 'hour', of: 24, values: hour },
  ];
  // What is zero at the beginning goes without saying.
  const isHourly = isWhole && minute.items.length === 1 && minute.items[0] === 0;
  const [first, ...others] = levels.slice(isHourly ? 2 : isWhole ? 1 : 0);
  if (!first) return { moments: null, words: '' };
  const step = evenly(first.values, first.of);
  let words = step === null ? `at ${first.unit} ${listed(first.values.items)}` : every(step, first.unit);
  if (isHourly && step === null && stepOf(hour.items) === 1)
    words = `every hour from ${two(hour.items[0] ?? 0)}:00 to ${two(hour.items.at(-1) ?? 0)}:00`;
  let goesOn = step !== null;
  for (const { unit, values } of others) {
    if (values.any) {
      if (!goesOn) words += ` of every ${unit}`;
      goesOn = true;
    } else {
      words +=
        unit === 'hour' && goesOn && stepOf(values.items) === 1
          ? ` from ${two(values.items[0] ?? 0)}:00 to ${two(values.items.at(-1) ?? 0)}:59`
          : ` of ${unit} ${listed(values.items)}`;
      goesOn = false;
    }
  }
  return { moments: null, words };
}

function daysOf(day: Values, week: Values): string {
  const byWeek = week.items.map((item) => (typeof item === 'number' ? weekday(item) : item));
  const weekWords =
    week.items.some((item) => typeof item === 'string') || week.items.length < 3
      ? joined(byWeek)
      : listed(week.items, (item) => weekday(Number(item)));
  const ofMonth = week.items.some((item) => typeof item === 'string') ? ' of the month' : '';
  const numbers = day.items.filter((item) => typeof item === 'number');
  const parts = [
    ...(numbers.length ? [`day ${listed(numbers)}`] : []),
    ...day.items
      .filter((item) => typeof item === 'string')
      .map((item) => `the ${item === LAST ? 'last day' : item}`),
  ];
  const dayWords = `${joined(parts)} of the month`;
  if (day.any && week.any) return '';
  if (day.any) return `on ${weekWords}${ofMonth}`;
  if (week.any) return `on ${dayWords}`;
  // As in Debian's cron: either will do, unless one of the two begins with a star.
  return day.starred || week.starred
    ? `on ${dayWords} if that is ${joined(byWeek, 'or')}${ofMonth}`
    : `on ${dayWords} and on ${weekWords}${ofMonth}`;
}

/** What an expression means, as `every day at 02:30`; null for one that cannot be said. */
export function cronInWords(cron: string): string | null {
  const parts = cron.toUpperCase().split(/\s+/).filter(Boolean);
  if (parts.length === 5) parts.unshift('0');
  if (parts.length !== 6) return null;
  const kinds: Kind[] = [{ from: 0, to: 59 }, { from: 0, to: 59 }, { from: 0, to: 23 }, DAY, MONTH, WEEKDAY];
  const fields = kinds.map((kind, place) => valuesOf(parts[place] ?? '', kind));
  const [second, minute, hour, day, month, week] = fields;
  if (!second || !minute || !hour || !day || !month || !week) return null;
  const { moments, words } = timesOf(second, minute, hour);
  const days = daysOf(day, week);
  const months = month.any ? '' : `in ${listed(month.items, (item) => MONTHS[Number(item) - 1] ?? '')}`;
  if (moments !== null) return [days || 'every day', months, `at ${moments}`].filter(Boolean).join(' ');
  return [words, [days, months].filter(Boolean).join(' ')].filter(Boolean).join(', ');
}
