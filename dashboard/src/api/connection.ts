// The one connection of this tab: what it is asked and what it streams, and whether what is shown can be trusted.
//
// Queries and mutations are sent over HTTP, subscriptions over one WebSocket that is always open. A line can be dead
// without an end (a laptop that slept, a network that changed), so the socket is asked every few seconds whether
// somebody is there, and given up where nobody answers in time.

import {
  type AnyVariables,
  Client,
  CombinedError,
  fetchExchange,
  mapExchange,
  subscriptionExchange,
} from '@urql/core';
import { type Client as SocketClient, createClient } from 'graphql-ws';
import { noteServerTime } from './clock';
import { Observable } from './observable';
import { authorization, session, signOut } from './session';

export const ENDPOINT = new URL('graphql', document.baseURI).href;

export type Line =
  /** The first connection is not there yet. */
  | { state: 'connecting'; since: number }
  /** None has come to stand for a while: what is between may not pass sockets. */
  | { state: 'barred'; since: number }
  | { state: 'open'; since: number }
  /** `since` is when it was noticed; what is shown was right before. */
  | { state: 'lost'; since: number };

export const line = new Observable<Line>({ state: 'connecting', since: Date.now() });

/** How often a connection has come to stand: whoever sees another number than before has been away. */
export const connections = new Observable(0);

/** What the server refuses for now, and is asked for again: a sentence for each subscription. */
export const refusals = new Observable<ReadonlyMap<object, string>>(new Map());

function noteRefusal(subscription: object, message: string | null): void {
  if (message === null && !refusals.value.has(subscription)) return;
  const noted = new Map(refusals.value);
  if (message === null) noted.delete(subscription);
  else noted.set(subscription, message);
  refusals.set(noted);
}

/** What has been caught up with after the last loss, one sentence per list that is shown. */
export interface CaughtUp {
  awayMilliseconds: number;
  at: number;
  sentences: string[];
}
export const caughtUp = new Observable<CaughtUp | null>(null);

// Whoever signs in next begins anew, and learns nothing of what somebody else was shown.
session.subscribe(() => {
  if (session.value.state !== 'signed out') return;
  line.set({ state: 'connecting', since: Date.now() });
  caughtUp.set(null);
  refusals.set(new Map());
});

/** Say what a list has caught up with since the connection is back. Said once for each list and connection. */
export function sayCaughtUp(sentence: string): void {
  const { value } = caughtUp;
  if (value && !value.sentences.includes(sentence))
    caughtUp.set({ ...value, sentences: [...value.sentences, sentence] });
}

/** Whether the server has lost NATS: what is shown then stands still although the connection is open. */
export const storeIsAway = new Observable(false);

/** Milliseconds after the return of NATS in which the server has read what had happened. */
const READS_ON_WITHIN = 3000;

/**
 * Say what has happened while the server had lost NATS, soon after it is back, as far as it is shown then.
 *
 * `take` is what is shown when it is lost; `differenceFrom` says how what is shown later differs from that. What is
 * returned ends it.
 */
export function catchUpWithStore<T>(take: () => T | null, differenceFrom: (then: T) => string): () => void {
  let then = storeIsAway.value ? take() : null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const end = storeIsAway.subscribe(() => {
    clearTimeout(timer);
    if (storeIsAway.value) then ??= take();
    else
      timer = setTimeout(() => {
        if (then !== null) sayCaughtUp(differenceFrom(then));
        then = null;
      }, READS_ON_WITHIN);
  });
  return () => {
    end();
    clearTimeout(timer);
  };
}

/** Milliseconds after a return in which a server that has just begun may not have reached NATS yet. */
const BEGINS_WITHIN = 5000;

/** Say that the server reaches NATS again, which it has not since `lostAt`. Of one loss there is one notice. */
export function sayStoreIsBack(lostAt: number, now: number): void {
  const { value } = caughtUp;
  const isSameLoss = value !== null && Math.abs(lostAt - value.at) < BEGINS_WITHIN;
  const began = isSameLoss ? Math.min(lostAt, value.at - value.awayMilliseconds) : lostAt;
  const sentences = ['The server reaches NATS again.', ...(isSameLoss ? value.sentences : [])];
  caughtUp.set({ awayMilliseconds: now - began, at: now, sentences });
}

const ASK_EVERY = 4000;
const ANSWER_WITHIN = 4000;
/** Milliseconds in which a socket has to open: on a line that is dead without an end, none ever does, nor fails. */
const OPEN_WITHIN = 6000;
const STANDS_WITHIN = 8000;
const LONGEST_WAIT = 5000;
/** Codes of refusals after which the same may be asked for again. */
const PASSING = new Set(['QUEUE_UNAVAILABLE', 'RATE_LIMITED', 'SERVER_STOPPING', 'TIMEOUT']);

/** Whether the server says by these refusals that there is no key or token, or that it is not valid any more. */
export const saysAccessEnded = (refused: readonly { extensions?: { code?: unknown } }[]): boolean =>
  refused.some(({ extensions }) => extensions?.code === 'UNAUTHENTICATED');

let underWay = new AbortController();
let wasLost = false;
line.subscribe(() => {
  const isLost = line.value.state === 'lost';
  if (isLost === wasLost) return;
  wasLost = isLost;
  // What was asked over a line that is dead is never answered, and nothing else would end it: whoever asks again would
  // be given the same answer to wait for.
  const before = underWay;
  underWay = new AbortController();
  setTimeout(
    () => before.abort(new Error('The connection was lost before the answer was there.')),
    ANSWER_WITHIN,
  );
});

/** `fetch`, which gives up where the connection is lost, or comes back, and the answer is not there soon after. */
const reach: typeof fetch = (input, { signal, ...init } = {}) =>
  fetch(input, { ...init, signal: AbortSignal.any([underWay.signal, ...(signal ? [signal] : [])]) });

let hurry: (() => void) | undefined;

/** Wait before the next try, shorter if the network or the user comes back meanwhile. */
function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    hurry = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

interface Watched {
  client: SocketClient;
  /** Ask at once whether the other end is there, and give the socket up where nobody answers in time. */
  ask(): void;
  /** Close it; what comes of it any more says nothing of the connection. */
  close(): void;
}

function makeSocket(onGivenUp: () => void): Watched {
  let unanswered: ReturnType<typeof setTimeout> | undefined;
  let unopened: ReturnType<typeof setTimeout> | undefined;
  let socket: WebSocket | undefined;
  let isClosed = false;
  function lost(event: unknown): void {
    if (isClosed) return;
    const { code } = event as { code?: number };
    if (line.value.state === 'open') line.set({ state: 'lost', since: Date.now() });
    // 4401 and 4403 are what the server closes with when a key or token is wrong, or has ended. It gives a word as its
    // reason, and whoever is signed out already was told a better one.
    if ((code === 4401 || code === 4403) && session.value.state !== 'signed out')
      signOut(
        session.value.state === 'signed in'
          ? 'The key or token has ended, or was revoked.'
          : 'This needs a valid key or token.',
      );
  }
  function asked(): void {
    clearTimeout(unanswered);
    unanswered = setTimeout(() => client.terminate(), ANSWER_WITHIN);
  }
  const client = createClient({
    url: ENDPOINT.replace(/^http/, 'ws'),
    lazy: false,
    onNonLazyError(error) {
      lost(error);
      if (!isClosed && session.value.state !== 'signed out') onGivenUp();
    },
    connectionParams: authorization,
    connectionAckWaitTimeout: 8000,
    keepAlive: ASK_EVERY,
    retryAttempts: Number.POSITIVE_INFINITY,
    shouldRetry: () => true,
    retryWait: (tries) => wait(Math.min(LONGEST_WAIT, 250 * 2 ** tries) * (0.75 + Math.random() / 2)),
    on: {
      connecting: () => {
        clearTimeout(unopened);
        unopened = setTimeout(() => client.terminate(), OPEN_WITHIN);
      },
      opened: () => clearTimeout(unopened),
      ping: (received) => {
        if (!received) asked();
      },
      pong: (received) => {
        if (received) clearTimeout(unanswered);
      },
      connected: (opened) => {
        if (isClosed) return;
        socket = opened as WebSocket;
        const before = line.value;
        if (before.state === 'lost')
          caughtUp.set({ awayMilliseconds: Date.now() - before.since, at: Date.now(), sentences: [] });
        connections.set(connections.value + 1);
        line.set({ state: 'open', since: Date.now() });
      },
      closed: (event) => {
        clearTimeout(unopened);
        clearTimeout(unanswered);
        socket = undefined;
        lost(event);
      },
    },
  });
  return {
    client,
    ask() {
      if (socket?.readyState !== WebSocket.OPEN) return;
      socket.send('{"type":"ping"}');
      asked();
    },
    close() {
      isClosed = true;
      clearTimeout(unopened);
      clearTimeout(unanswered);
      // It rejects where the connection was refused, which is known already.
      void Promise.resolve(client.dispose()).catch(() => undefined);
    },
  };
}

/** How a subscription on the socket goes on over refusals that pass; the socket's own losses are bridged below it. */
function subscribeOn(
  socket: SocketClient,
  onEndedAccess: (message?: string) => void,
  { query, variables }: { query: string; variables: Record<string, unknown> },
  sink: { next(value: unknown): void; error(problem: unknown): void; complete(): void },
): () => void {
  let stop = () => {};
  let ended = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  // One that takes `after` goes on behind the last event that it has seen: a retry sends the variables anew.
  const own = { ...variables };
  const resumes = /\$after\b/.test(query);

  function start(tries: number): void {
    stop = socket.subscribe<Record<string, { cursor?: string }>>(
      { query, variables: own },
      {
        next(value) {
          const cursor = Object.values(value.data ?? {})[0]?.cursor;
          if (resumes && cursor !== undefined) own.after = cursor;
          tries = 0;
          noteRefusal(own, null);
          sink.next(value);
        },
        error(problem) {
          const refused = Array.isArray(problem)
            ? (problem as { message: string; extensions?: { code?: string } }[])
            : [];
          const codes = refused.map(({ extensions }) => String(extensions?.code));
          if (saysAccessEnded(refused)) onEndedAccess(refused[0]?.message);
          if (!codes.some((code) => PASSING.has(code))) return sink.error(problem);
          if (ended) return;
          // The first refusal may be over at once, as when a process ends and the next one answers.
          if (tries > 0) noteRefusal(own, refused[0]?.message ?? '');
          timer = setTimeout(() => start(tries + 1), Math.min(LONGEST_WAIT, 500 * 2 ** tries));
        },
        complete: () => sink.complete(),
      },
    );
  }

  start(0);
  return () => {
    ended = true;
    clearTimeout(timer);
    noteRefusal(own, null);
    stop();
  };
}

/** `onEndedAccess` is called with the sentence of the server when it says that the credential has ended. */
function makeClient(socket: SocketClient, onEndedAccess: (message?: string) => void): Client {
  return new Client({
    url: ENDPOINT,
    preferGetMethod: false,
    fetch: reach,
    requestPolicy: 'network-only',
    fetchOptions: () => ({ headers: authorization() as Record<string, string> }),
    exchanges: [
      mapExchange({
        onError(error) {
          if (saysAccessEnded(error.graphQLErrors)) onEndedAccess(error.graphQLErrors[0]?.message);
        },
      }),
      // What a subscription was refused with comes wrapped in an error of the network, which has no codes.
      mapExchange({
        onResult: (result) =>
          result.error?.networkError instanceof CombinedError
            ? { ...result, error: result.error.networkError }
            : result,
      }),
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: ({ query = '', variables }) => ({
          subscribe: (sink) => ({
            unsubscribe: subscribeOn(
              socket,
              onEndedAccess,
              { query, variables: { ...(variables as AnyVariables) } },
              {
                next: (value) => sink.next(value as Parameters<typeof sink.next>[0]),
                error: (problem) => sink.error(asError(problem)),
                complete: () => sink.complete(),
              },
            ),
          }),
        }),
      }),
    ],
  });
}

/** What the server said of an operation is an array; anything else is the connection. */
const asError = (problem: unknown): CombinedError =>
  Array.isArray(problem)
    ? new CombinedError({ graphQLErrors: problem })
    : new CombinedError({
        networkError: problem instanceof Error ? problem : new Error('The connection is lost.'),
      });

export interface Opened {
  client: Client;
  socket: SocketClient;
  close(): void;
}

/**
 * Open the connection, as whoever has signed in. It comes back by itself until it is closed.
 *
 * `onGivenUp` is called when the socket has ended in a way after which its client does not try again, as when something
 * else than the API answers for a while; only another connection can go on then.
 */
export function open(onGivenUp: () => void): Opened {
  if (line.value.state !== 'lost') line.set({ state: 'connecting', since: Date.now() });
  const { client: socket, ask, close } = makeSocket(onGivenUp);
  let isClosed = false;
  const client = makeClient(socket, (message) => {
    // An answer that comes after that was to somebody who has signed out.
    if (!isClosed) signOut(message);
  });
  const patience = setTimeout(() => {
    if (line.value.state === 'connecting') line.set({ state: 'barred', since: line.value.since });
  }, STANDS_WITHIN);
  const offline = () => socket.terminate();
  const online = () => hurry?.();
  const shown = () => {
    if (document.visibilityState !== 'visible') return;
    // A machine that slept has sockets that nobody holds at the other end.
    hurry?.();
    ask();
  };
  addEventListener('offline', offline);
  addEventListener('online', online);
  document.addEventListener('visibilitychange', shown);
  return {
    client,
    socket,
    close() {
      clearTimeout(patience);
      removeEventListener('offline', offline);
      removeEventListener('online', online);
      document.removeEventListener('visibilitychange', shown);
      isClosed = true;
      close();
    },
  };
}

/** What a POST to the API answers, as text. The time that the server names is noted on the way. */
export async function post(body: string, signal?: AbortSignal): Promise<string> {
  const asked = Date.now();
  const response = await reach(ENDPOINT, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      Accept: 'application/graphql-response+json, application/json',
      ...authorization(),
    },
    body,
    ...(signal && { signal }),
  });
  const text = await response.text();
  const date = response.headers.get('Date');
  if (date) noteServerTime(date, asked, Date.now());
  return text;
}

/**
 * The sentence with which a refusal or a failure is shown. Of a change, `isChange`, whose answer did not come nobody
 * knows here whether it was made.
 */
export function sentence(error: CombinedError, isChange = false): string {
  const [refusal] = error.graphQLErrors;
  if (refusal) return refusal.message;
  const why =
    line.value.state === 'lost'
      ? 'There is no connection to the server.'
      : 'The server could not be reached, or has not answered.';
  return isChange
    ? `${why} It is not known here whether this was done: see what is shown when the connection is back, before you do it again.`
    : why;
}
