// What the page asks of its own back end, which knows the user by a cookie.

/** A token, and for how many seconds it is good. */
export interface Access {
  token: string;
  secondsLeft: number;
}

export interface CreatedJob {
  id: string;
  /** Where the API is. */
  url: string;
  access: Access;
}

export class SignedOut extends Error {}

async function ask<T>(method: string, path: string, body?: object): Promise<T> {
  const response = await fetch(path, {
    method,
    ...(body && { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }),
  });
  const answer = await response.json();
  if (response.status === 401) throw new SignedOut(answer.message);
  if (!response.ok) throw new Error(answer.message);
  return answer;
}

export const whoAmI = () => ask<{ user: string }>('GET', '/api/session');
export const signIn = (user: string) => ask<{ user: string }>('POST', '/api/session', { user });
export const signOutEverywhere = () => ask<object>('DELETE', '/api/session');
export const createJob = () => ask<CreatedJob>('POST', '/api/jobs', {});
export const freshAccess = (job: string) => ask<Access>('POST', '/api/view-tokens', { job });
