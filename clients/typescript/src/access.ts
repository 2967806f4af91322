// Under which token the client asks. Tokens are kept in memory alone.

import { JobsError } from './errors.js';
import { wait } from './pause.js';

/** Milliseconds in which `getToken` has to answer. */
const ANSWER_WITHIN = 20_000;

/** A token; null or undefined says that nobody is signed in (any more). */
export type Token = string | null | undefined;
export type GetToken = () => Token | Promise<Token>;

export class Access {
  private current: string | undefined;
  private asked: Promise<string> | undefined;

  constructor(
    token: Token,
    private readonly getToken: GetToken | undefined,
  ) {
    this.current = token ?? undefined;
  }

  /** Whether another token can be had when this one ends. */
  get isRenewable(): boolean {
    return this.getToken !== undefined;
  }

  /**
   * The token to ask under now; undefined where none is needed.
   *
   * Rejects with `UNAUTHENTICATED` if nobody is signed in, and with whatever `getToken` fails with.
   */
  async token(): Promise<string | undefined> {
    return this.current ?? (this.getToken ? this.another(undefined) : undefined);
  }

  /** A token that is not the one given, which has ended or soon does. Asked for once, however many want it. */
  async another(than: string | undefined): Promise<string> {
    if (this.current !== undefined && this.current !== than) return this.current;
    this.asked ??= this.ask().finally(() => {
      this.asked = undefined;
    });
    return this.asked;
  }

  /** Do not use this token again. */
  drop(token: string | undefined): void {
    if (this.isRenewable && this.current === token) this.current = undefined;
  }

  private async ask(): Promise<string> {
    const answered = new AbortController();
    const late = wait(ANSWER_WITHIN, answered.signal).then(() => {
      throw new Error('getToken has not answered.');
    });
    const token = await Promise.race([this.getToken?.(), late]).finally(() => {
      late.catch(() => undefined);
      answered.abort();
    });
    if (!token) {
      this.current = undefined;
      throw new JobsError('UNAUTHENTICATED', 'Nobody is signed in.');
    }
    this.current = token;
    return token;
  }
}

/** How a token is sent: as a header, and in the payload of `connection_init`. */
export const authorization = (token: string | undefined): { authorization?: string } =>
  token === undefined ? {} : { authorization: `Bearer ${token}` };
