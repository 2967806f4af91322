import { CombinedError } from '@urql/core';
import { useEffect, useRef, useState } from 'react';
import { line, sentence } from '../../api/connection';
import { useObservable } from '../../api/observable';

export interface Loaded<T> {
  /** Null until it is there. */
  loaded: T | null;
  /** Why it is not there. */
  problem: string | null;
  /** Ask once more. */
  again: () => void;
}

/**
 * What a form is made of, loaded once: it stays as it is while one writes. What did not come because there was no
 * connection is asked for when there is one. `first` is there from the beginning, if it is given.
 */
export function useLoaded<T>(
  load: (stop: AbortSignal) => Promise<T>,
  first: () => T | null = () => null,
): Loaded<T> {
  const [loaded, setLoaded] = useState(first);
  const [problem, setProblem] = useState<string | null>(null);
  const [tries, setTries] = useState(0);
  const isLive = useObservable(line).state === 'open';
  const isMissing = useRef(false);

  useEffect(() => {
    if (isLive && isMissing.current) setTries((before) => before + 1);
  }, [isLive]);

  useEffect(() => {
    if (loaded !== null) return;
    isMissing.current = false;
    setProblem(null);
    const stop = new AbortController();
    load(stop.signal)
      .then((found) => {
        if (!stop.signal.aborted) setLoaded(found);
      })
      .catch((error: Error) => {
        if (stop.signal.aborted) return;
        const refused = error instanceof CombinedError;
        isMissing.current = refused && error.networkError !== undefined;
        setProblem(refused ? sentence(error) : error.message);
      });
    return () => stop.abort();
  }, [tries]);

  return { loaded, problem, again: () => setTries(tries + 1) };
}
