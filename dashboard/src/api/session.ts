// Who asks: the key or token that a user has given, and where it is kept.
//
// It is kept in the memory of this tab, or in its sessionStorage if the user chose that, so that a reload keeps it; both
// end with the tab. Neither localStorage nor a cookie is used: other tabs and later visitors would have the key as well.

import type { Scope } from './generated';
import { Observable } from './observable';

const KEPT = 'gql-jobs:credential';

export interface Viewer {
  subject: string;
  scopes: Scope[];
  tenant: string | null;
  /** What narrows it to some jobs; null for nothing. */
  limitedTo: object | null;
  /** When the key or token ends by itself. */
  expiresAt: string | null;
}

export type Session =
  /** Not known yet whether a credential is needed. */
  | { state: 'asking' }
  /** One is needed; `problem` says why the last one does not do. */
  | { state: 'signed out'; problem?: string }
  | { state: 'signed in'; viewer: Viewer };

export const session = new Observable<Session>({ state: 'asking' });

let credential: string | null = kept();

function kept(): string | null {
  try {
    return sessionStorage.getItem(KEPT);
  } catch {
    return null; // a browser may refuse storage
  }
}

/** The header that says who asks; nothing if nobody has signed in. */
export function authorization(): { authorization?: string } {
  return credential === null ? {} : { authorization: `Bearer ${credential}` };
}

/** Ask under this key or token from now on, and keep it over a reload of this tab if that is wanted. */
export function setCredential(token: string | null, keep: boolean): void {
  credential = token;
  try {
    if (token !== null && keep) sessionStorage.setItem(KEPT, token);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // It is in memory all the same.
  }
}

/** Whether the credential outlasts a reload. */
export const isKept = (): boolean => kept() !== null;

/** Forget the credential, and ask for another one. */
export function signOut(problem?: string): void {
  setCredential(null, false);
  session.set(problem === undefined ? { state: 'signed out' } : { state: 'signed out', problem });
}

/** Whether the viewer may do what needs this scope. What nobody may do is not shown. */
export function can(scope: Scope): boolean {
  const { value } = session;
  return value.state === 'signed in' && value.viewer.scopes.includes(scope);
}

/** Whether the viewer sees the jobs of all, and not some of them by a tenant or by limits. */
export function seesAll(): boolean {
  const { value } = session;
  return value.state === 'signed in' && value.viewer.tenant === null && value.viewer.limitedTo === null;
}

/** Whether the viewer may steer queues: a queue has the jobs of all. */
export const canSteerQueues = (): boolean => can('OPERATE') && seesAll();

/** Whether there can be any job that the viewer sees: all, or those that it has created. */
export const canLook = (): boolean => can('READ') || can('CREATE');

/** Whether the viewer sees schedules, which are those of all. */
export const seesSchedules = (): boolean => can('READ') && seesAll();

/** Whether the viewer may define, run, pause and delete schedules: their jobs go to any queue. */
export const canSteerSchedules = (): boolean => seesSchedules() && canSteerQueues();
