// Subscriptions: all of them over one WebSocket, which is there while something is watched and comes back by itself.
//
// A line can be dead without an end (a laptop that slept, a network that changed), so the socket is asked every few seconds
// whether somebody is there, and given up where nobody answers in time. The access that it has is renewed while it is open.

import { type Client, createClient, type ExecutionResult } from 'graphql-ws';
import { type Access, authorization } from './access.js';
import { asJobsError, askedPause, type GraphQLFault, isPassing, JobsError, refusalOf } from './errors.js';
import type { AccessQuery, ClockQuery, RenewAccessMutation } from './generated/operations.js';
import { replacer, reviver } from './json.js';
import { Variable } from './observable.js';
import { ACCESS, CLOCK, RENEW } from './operations.js';
import { backOff, linked, orAborted, wait } from './pause.js';

/** `idle`: nothing is watched, so there is no connection. */
export type Connection = 'idle' | 'connecting' | 'live' | 'reconnecting';

const ASK_EVERY = 10_000;
const ANSWER_WITHIN = 8000;
/** Milliseconds in which a token that was renewed is not taken for one that has ended since. */
const RENEWAL_LASTS = 10_000;
/** Milliseconds after which access is renewed at the soonest, however soon the token ends. */
const SOONEST_RENEWAL = 500;
/** A timer takes no more than 24.8 days. */
const LONGEST_TIMER = 86_400_000;

interface Request {
  query: string;
  variables: Record<string, unknown>;
}

export interface Watching<Data> {
  /** The variables with which it goes on behind a result. */
  resume?: (data: Data) => Record<string, unknown>;
  /** Called when the server refuses it for now, and when it is asked for again. */
  onRefusal?: (isRefused: boolean) => void;
}

export class Socket {
  readonly connection = new Variable<Connection>('idle');
  private client: Client | undefined;
  private opened: WebSocket | undefined;
  private watching = 0;
  private failures = 0;
  /** How often in a row a connection was refused for its token. */
  private refused = 0;
  private token: string | undefined;
  /** When a connection may be tried again. */
  private tryAt = 0;
  private hurry = new AbortController();
  private unopened: ReturnType<typeof setTimeout> | undefined;
  private unanswered: ReturnType<typeof setTimeout> | undefined;
  private renewal: ReturnType<typeof setTimeout> | undefined;
  private renewing: Promise<void> | undefined;

  constructor(
    private readonly url: string,
    private readonly access: Access,
    private readonly implementation: unknown,
  ) {}

  /**
   * The results of a subscription until it is complete, however often the connection is lost meanwhile.
   *
   * Throws JobsError where the server refuses it for good, and the reason of the signal when that is aborted.
   */
  async *subscribe<Data>(
    { query, variables }: Request,
    signal: AbortSignal,
    { resume, onRefusal }: Watching<Data> = {},
  ): AsyncGenerator<Data, void, undefined> {
    // What is sent again by graphql-ws itself has to go on behind the last result, too.
    const request = { query, variables: { ...variables } };
    let failures = 0;
    let renewedAt = Number.NEGATIVE_INFINITY;
    this.watching += 1;
    if (this.connection.value === 'idle') this.connection.set('connecting');
    try {
      for (;;) {
        try {
          await orAborted(this.access.token(), signal);
          await this.paused(signal);
          onRefusal?.(false);
          for await (const { data, errors } of results<Data>(this.socket(), request, signal)) {
            if (errors?.length) throw refusalOf(errors);
            if (!data) continue;
            failures = 0;
            Object.assign(request.variables, resume?.(data));
            yield data;
          }
          return;
        } catch (problem) {
          signal.throwIfAborted();
          let refusal = asJobsError(problem);
          if (refusal.code === 'UNREACHABLE') {
            if (this.isRefused) throw new JobsError('UNAUTHENTICATED', 'This needs a valid key or token.');
            this.failed();
            continue;
          }
          if (refusal.code === 'UNAUTHENTICATED' && this.token && Date.now() - renewedAt > RENEWAL_LASTS) {
            try {
              await orAborted(this.renewed(), signal);
              renewedAt = Date.now();
              continue;
            } catch (reason) {
              signal.throwIfAborted();
              refusal = asJobsError(reason);
            }
          }
          if (!isPassing(refusal)) throw refusal;
          onRefusal?.(true);
          await wait(Math.max(backOff(failures), askedPause(refusal)), signal);
          failures += 1;
        }
      }
    } finally {
      this.watching -= 1;
      if (this.watching === 0 && !this.opened) this.connection.set('idle');
    }
  }

  /** Try again at once if it waits for that, and see whether the other end is still there. */
  wake(): void {
    this.tryAt = 0;
    this.hurry.abort();
    if (this.opened?.readyState !== 1) return;
    this.opened.send('{"type":"ping"}');
    this.asked();
  }

  /** Give the connection up as dead. */
  drop(): void {
    this.client?.terminate();
  }

  close(): void {
    for (const timer of [this.unopened, this.unanswered, this.renewal]) clearTimeout(timer);
    // It rejects where the connection is not there yet.
    void Promise.resolve(this.client?.dispose()).catch(() => undefined);
  }

  private get isRefused(): boolean {
    return this.refused > (this.access.isRenewable ? 1 : 0);
  }

  private asked(): void {
    clearTimeout(this.unanswered);
    this.unanswered = setTimeout(() => this.drop(), ANSWER_WITHIN);
  }

  /** Have everybody wait before the next try. One loss may be said more than once, as by an error and by its close. */
  private failed(): void {
    if (Date.now() < this.tryAt) return;
    this.hurry = new AbortController();
    this.tryAt = Date.now() + backOff(this.failures);
    this.failures += 1;
  }

  private async paused(signal: AbortSignal): Promise<void> {
    const left = this.tryAt - Date.now();
    if (left <= 0) return;
    const ended = linked(signal, this.hurry.signal);
    await wait(left, ended.signal)
      .catch(() => signal.throwIfAborted())
      .finally(ended.release);
  }

  private socket(): Client {
    this.client ??= createClient({
      url: this.url,
      webSocketImpl: this.implementation,
      connectionParams: async () => {
        this.token = await this.access.token();
        return authorization(this.token);
      },
      // A subscription is begun anew here, where its last cursor is known; also when a connection is refused, which
      // graphql-ws would take for the end of everything.
      retryAttempts: 0,
      lazyCloseTimeout: 1000,
      connectionAckWaitTimeout: ANSWER_WITHIN,
      keepAlive: ASK_EVERY,
      jsonMessageReplacer: replacer,
      jsonMessageReviver: reviver,
      on: {
        connecting: () => {
          clearTimeout(this.unopened);
          this.unopened = setTimeout(() => this.drop(), ANSWER_WITHIN);
        },
        opened: (socket) => {
          clearTimeout(this.unopened);
          this.opened = socket as WebSocket;
        },
        connected: () => {
          this.failures = 0;
          this.refused = 0;
          this.connection.set('live');
          if (this.access.isRenewable) void this.planRenewal();
        },
        ping: (isReceived) => {
          if (!isReceived) this.asked();
        },
        pong: (isReceived) => {
          if (isReceived) clearTimeout(this.unanswered);
        },
        error: () => {
          this.refused = 0;
          this.failed();
        },
        closed: (event) => this.closed((event as { code?: number }).code),
      },
    });
    return this.client;
  }

  private closed(code: number | undefined): void {
    this.opened = undefined;
    for (const timer of [this.unopened, this.unanswered, this.renewal]) clearTimeout(timer);
    if (code === 4401 || code === 4403) {
      this.refused += 1;
      this.access.drop(this.token);
    } else this.refused = 0;
    if (this.watching === 0) this.connection.set('idle');
    else {
      this.failed();
      if (this.connection.value !== 'connecting') this.connection.set('reconnecting');
    }
  }

  /** One result of an operation on the socket, which is not asked for again. */
  private async once<Data>(query: string, variables: Record<string, unknown> = {}): Promise<Data> {
    const { signal } = new AbortController();
    for await (const { data, errors } of results<Data>(this.socket(), { query, variables }, signal)) {
      if (errors?.length) throw refusalOf(errors);
      if (data) return data;
    }
    throw new JobsError('BAD_RESPONSE', 'The server has not answered this.');
  }

  private async planRenewal(): Promise<void> {
    const socket = this.opened;
    try {
      const { viewer } = await this.once<AccessQuery>(ACCESS);
      if (viewer.expiresAt && socket === this.opened) await this.renewBefore(viewer.expiresAt);
    } catch {
      // When the token ends the server closes the connection, and the next one has another token.
    }
  }

  private async renewBefore(end: string): Promise<void> {
    const socket = this.opened;
    const now = await this.once<ClockQuery>(CLOCK).then(
      ({ serverStatus }) => Date.parse(serverStatus.now),
      () => Date.now(),
    );
    if (socket === this.opened) this.renewIn((Date.parse(end) - now) / 2);
  }

  private renewIn(milliseconds: number, failures = 0): void {
    clearTimeout(this.renewal);
    if (!this.opened) return;
    const again = (reason: unknown) => {
      if (isPassing(asJobsError(reason))) this.renewIn(backOff(failures), failures + 1);
    };
    const soon = Math.max(SOONEST_RENEWAL, Math.min(LONGEST_TIMER, milliseconds));
    this.renewal = setTimeout(() => this.renewed().catch(again), soon);
  }

  /** Go on under another token, on the socket that is open. */
  private renewed(): Promise<void> {
    this.renewing ??= this.renew().finally(() => {
      this.renewing = undefined;
    });
    return this.renewing;
  }

  private async renew(): Promise<void> {
    if (!this.access.isRenewable)
      throw new JobsError('UNAUTHENTICATED', 'The key or token has ended, or was revoked.');
    const token = await this.access.another(this.token);
    if (!this.opened) return;
    try {
      const { renewAccess } = await this.once<RenewAccessMutation>(RENEW, { token });
      this.token = token;
      if (renewAccess.viewer.expiresAt) await this.renewBefore(renewAccess.viewer.expiresAt);
    } catch (problem) {
      const refusal = asJobsError(problem);
      if (refusal.code === 'UNAUTHENTICATED') this.access.drop(token);
      if (refusal.code !== 'FORBIDDEN') throw refusal;
      // It is somebody else's: a new connection is theirs.
      this.drop();
    }
  }
}

type Result<Data> = ExecutionResult<Data, unknown> & { errors?: readonly GraphQLFault[] };

/** What comes of one operation on the socket. Throws what graphql-ws ends it with, or the reason of the signal. */
async function* results<Data>(
  client: Client,
  request: Request,
  signal: AbortSignal,
): AsyncGenerator<Result<Data>, void, undefined> {
  const come: Result<Data>[] = [];
  let end: { problem?: unknown } | undefined;
  let wake = () => {};
  const ended = (how: { problem?: unknown }) => {
    end ??= how;
    wake();
  };
  const aborted = () => ended({ problem: signal.reason });
  signal.addEventListener('abort', aborted);
  const stop = client.subscribe<Data>(request, {
    next: (result) => {
      come.push(result as Result<Data>);
      wake();
    },
    error: (problem) => ended({ problem: Array.isArray(problem) ? refusalOf(problem) : problem }),
    complete: () => ended({}),
  });
  try {
    for (;;) {
      for (let result = come.shift(); result && !signal.aborted; result = come.shift()) yield result;
      if (end && 'problem' in end) throw end.problem;
      if (end) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    signal.removeEventListener('abort', aborted);
    stop();
  }
}
