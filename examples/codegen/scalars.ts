// What the scalars of the schema are in TypeScript: types of their own, so that none is taken for another.
declare const kind: unique symbol;
type Named<Name> = string & { readonly [kind]: Name };

/** The id of a job or a worker. */
export type Id = Named<'Id'>;

/** A moment, such as 2027-01-31T12:00:00Z. */
export type DateTime = Named<'DateTime'>;

/** A day, such as 2027-01-31. */
export type CalendarDate = Named<'CalendarDate'>;

/** A whole number of up to 64 bits, as text: JavaScript would lose digits of it. */
export type BigIntText = Named<'BigInt'>;

/** A length of time, such as PT1H30M. */
export type Duration = Named<'Duration'>;

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export const bigIntText = (number: bigint) => number.toString() as BigIntText;
export const dateTime = (moment: Date) => moment.toISOString() as DateTime;
export const calendarDate = (day: Date) => day.toISOString().slice(0, 10) as CalendarDate;
