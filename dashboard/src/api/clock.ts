// The time by the clock of the server. Ages and waits are counted by it, so that a browser whose clock is wrong shows no
// job that has run for less than nothing.

let ahead = 0;

/** Note what the server's clock said between two moments of this browser's clock, in milliseconds. */
export function noteServerTime(server: string, asked: number, answered: number): void {
  const moment = Date.parse(server);
  if (Number.isFinite(moment)) ahead = moment - (asked + answered) / 2;
}

/** Milliseconds since 1970 by the server's clock, as far as that is known. */
export const serverNow = (): number => Date.now() + ahead;

/** Milliseconds from one moment to another, never less than none; to now where the other is not given. */
export function elapsed(from: string, to?: string | null): number {
  return Math.max(0, (to ? Date.parse(to) : serverNow()) - Date.parse(from));
}
