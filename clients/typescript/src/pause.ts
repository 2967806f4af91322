// How long to wait before the next try.

const FIRST = 1000;
const LONGEST = 15_000;

/** Milliseconds to wait after so many failures in a row: twice as long each time, bounded, and never the same for two. */
export const backOff = (failures: number): number =>
  Math.min(LONGEST, FIRST * 2 ** failures) * (0.5 + Math.random() / 2);

/** Wait so many milliseconds. Rejects with the reason of the signal if that is aborted meanwhile. */
export async function wait(milliseconds: number, signal?: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  await orAborted(over, signal).finally(() => clearTimeout(timer));
}

export interface Linked extends AbortController {
  /** Leave nothing on the signals that it is linked to. */
  release(): void;
}

/**
 * A controller that is aborted as soon as one of these signals is.
 *
 * `AbortSignal.any` would leave something on a signal that lasts, as that of a client, with every request.
 */
export function linked(...signals: (AbortSignal | undefined)[]): Linked {
  const controller = new AbortController();
  const ends = signals.map((signal) => {
    const aborted = () => controller.abort(signal?.reason);
    if (signal?.aborted) aborted();
    signal?.addEventListener('abort', aborted);
    return () => signal?.removeEventListener('abort', aborted);
  });
  const release = () => {
    for (const end of ends) end();
  };
  return Object.assign(controller, { release });
}

/** What comes of a promise, or the reason of the signal if that is aborted before. */
export async function orAborted<Value>(
  promise: Promise<Value>,
  signal: AbortSignal | undefined,
): Promise<Value> {
  const { signal: own, release } = linked(signal);
  try {
    own.throwIfAborted();
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => own.addEventListener('abort', () => reject(own.reason))),
    ]);
  } finally {
    release();
  }
}
