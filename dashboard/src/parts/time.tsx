// Moments and ages. Ages are counted by the server's clock and go on while they are shown.

import { useMemo } from 'react';
import { elapsed, serverNow } from '../api/clock';
import { Observable, useObservable } from '../api/observable';
import { age, moment, span } from '../format';

const second = new Observable(0);
setInterval(() => {
  if (document.visibilityState === 'visible') second.set(second.value + 1);
}, 1000);
document.addEventListener('visibilitychange', () => second.set(second.value + 1));

/** Have the component rendered again each second, and at once when the tab is shown again. */
export const useEachSecond = (): number => useObservable(second);

/** A moment as the reader's clock names it; the title has it in full. */
export function Moment({ at, milliseconds = false }: { at: string; milliseconds?: boolean }) {
  return (
    <time dateTime={at} title={at}>
      {moment(at, milliseconds)}
    </time>
  );
}

/** How long ago a moment was, or for how long something went on where `to` is given. */
export function Age({ from, to, suffix = '' }: { from: string; to?: string | null; suffix?: string }) {
  useEachSecond();
  // Lists have hundreds of these, and a moment takes longer to write than an age.
  const title = useMemo(() => moment(from, true), [from]);
  return (
    <time dateTime={from} title={title}>
      {to ? span(elapsed(from, to)) : age(elapsed(from))}
      {suffix}
    </time>
  );
}

/** How long it is until a moment; `now` once it has come. */
export function Until({ at }: { at: string }) {
  useEachSecond();
  const left = Date.parse(at) - serverNow();
  return (
    <time dateTime={at} title={moment(at, true)}>
      {left > 0 ? `in ${age(left + 999)}` : 'now'}
    </time>
  );
}
