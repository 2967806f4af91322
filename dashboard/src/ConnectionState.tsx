// Whether what is shown can be trusted, said in one line at the top of each page.

import { createContext, useContext, useEffect, useRef } from 'react';
import { useSubscription } from 'urql';
import { noteServerTime } from './api/clock';
import { caughtUp, line, refusals, sayStoreIsBack, storeIsAway } from './api/connection';
import { ServerStatusDocument } from './api/generated';
import { useObservable } from './api/observable';
import { moment, span } from './format';

export type Trust =
  | { state: 'connecting' | 'open' }
  /** The server answers, and has no live connection. */
  | { state: 'barred' }
  /** There is no connection. */
  | { state: 'lost'; since: number }
  /** The server is there, and cannot reach NATS, in which all jobs are. */
  | { state: 'store lost'; since: number };

/** Whether what is shown is right, and else since when it may not be. */
export function useTrust(): Trust {
  const connection = useObservable(line);
  const [{ data }] = useSubscription({ query: ServerStatusDocument });
  const status = data?.serverStatusChanged;
  const lostAt = useRef<number | null>(null);
  useEffect(() => {
    if (!status) return;
    noteServerTime(status.now, Date.now(), Date.now());
    if (!status.storeReachable) lostAt.current ??= Date.now();
    else if (lostAt.current !== null) {
      sayStoreIsBack(lostAt.current, Date.now());
      lostAt.current = null;
    }
    storeIsAway.set(!status.storeReachable);
  }, [status]);
  if (connection.state === 'open' && status && !status.storeReachable)
    return { state: 'store lost', since: Date.parse(status.since) };
  return connection;
}

/** Whether what is shown may be out of date. */
export const isStale = ({ state }: Trust): boolean =>
  state === 'lost' || state === 'store lost' || state === 'barred';

/** What `useTrust` says, for what is shown in front of the line at the top. */
export const TrustContext = createContext<Trust>({ state: 'connecting' });

function sentenceOf(trust: Trust): string {
  switch (trust.state) {
    case 'open':
      return 'Live';
    case 'connecting':
      return 'Connecting…';
    case 'barred':
      return 'There is no live connection: the server answers, but no WebSocket to it opens. What is between, such as a proxy, may not pass them. Trying again…';
    case 'lost':
      return `Connection lost at ${moment(trust.since)}. What is marked may be out of date. Trying again…`;
    case 'store lost':
      return `The server has not reached NATS since ${moment(trust.since)}. What is marked may be out of date, and nothing can be changed.`;
  }
}

/** Says, in front of the line at the top, that what is shown may be out of date, and nothing else. */
export function Doubt() {
  const trust = useContext(TrustContext);
  return <div role="status">{isStale(trust) && <p className="problem">{sentenceOf(trust)}</p>}</div>;
}

export function ConnectionState({ trust }: { trust: Trust }) {
  const back = useObservable(caughtUp);
  const [refusal] = useObservable(refusals).values();
  return (
    <>
      <span className="connection" data-state={trust.state} role="status">
        {sentenceOf(trust)}
      </span>
      {trust.state === 'open' && refusal !== undefined && (
        <span className="connection" data-state="refused" role="status">
          Part of this page is not live: {refusal} Trying again…
        </span>
      )}
      {trust.state === 'open' && back && (
        <div className="caught-up" role="status">
          <p>
            <strong>
              Back at {moment(back.at)}, after {span(back.awayMilliseconds)}.
            </strong>{' '}
            {back.sentences.join(' ')}
          </p>
          <button type="button" className="quiet" onClick={() => caughtUp.set(null)} aria-label="Dismiss">
            ✕
          </button>
        </div>
      )}
    </>
  );
}
