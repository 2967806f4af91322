import { createClient } from 'graphql-ws';
import { type Access, type CreatedJob, freshAccess, SignedOut } from './backEnd';

export interface JobEvent {
  __typename: string;
  cursor: string;
  at: string;
  job: { status: string; progress: number; progressMessage: string | null };
}

/** `revoked`: somebody has ended the access. `signed out`: the back end gives no token any more. */
export type Watching = 'watching' | 'complete' | 'revoked' | 'signed out' | 'failed';

const WATCH = /* GraphQL */ `
  subscription Watch($id: ID!, $after: String) {
    jobProgress(id: $id, after: $after) {
      __typename
      cursor
      at
      job { status progress progressMessage }
    }
  }
`;
// As a variable: a document with a token in it is refused.
const RENEW = /* GraphQL */ `
  mutation Renew($token: String!) {
    renewAccess(token: $token) { viewer { expiresAt } }
  }
`;

/** Watch a job to its end, and return what stops that. The access is renewed for as long as it takes. */
export function watchJob(
  { id, url, access }: CreatedJob,
  onEvent: (event: JobEvent) => void,
  onChange: (watching: Watching) => void,
): () => void {
  let first: Access | undefined = access;
  let renewal: ReturnType<typeof setTimeout> | undefined;
  let stopped = false;
  const variables: { id: string; after?: string } = { id };

  const client = createClient({
    url: url.replace('http', 'ws'),
    // Asked at each connection: when the server has closed one with 4403, the next begins with a fresh token.
    connectionParams: async () => {
      const { token, secondsLeft } = first ?? (await freshAccess(id));
      first = undefined;
      renewIn(secondsLeft / 2);
      return { authorization: `Bearer ${token}` };
    },
    retryAttempts: Infinity,
    shouldRetry: (error) => !(error instanceof SignedOut),
    on: { closed: () => clearTimeout(renewal) },
  });

  function renewIn(seconds: number): void {
    clearTimeout(renewal);
    if (!stopped) renewal = setTimeout(renew, seconds * 1000);
  }

  /** Go on under a fresh token, over the same socket and without an interruption. */
  async function renew(): Promise<void> {
    try {
      const { token, secondsLeft } = await freshAccess(id);
      if (stopped) return;
      for await (const { errors } of client.iterate({ query: RENEW, variables: { token } })) if (errors) throw errors;
      renewIn(secondsLeft / 2);
    } catch (error) {
      // Where the back end cannot be reached the token may end before it can, and then there is 4403.
      if (error instanceof SignedOut) stop('signed out');
      else renewIn(1);
    }
  }

  function stop(how?: Watching): void {
    if (stopped) return;
    stopped = true;
    clearTimeout(renewal);
    unsubscribe();
    void client.dispose();
    if (how) onChange(how);
  }

  const unsubscribe = client.subscribe<{ jobProgress: JobEvent }>(
    { query: WATCH, variables },
    {
      next: ({ data, errors }) => {
        if (errors || !data) return stop('failed');
        variables.after = data.jobProgress.cursor; // a retry sends the variables again, and goes on from here
        onEvent(data.jobProgress);
      },
      error: (error) => stop(endOf(error)),
      complete: () => stop('complete'),
    },
  );
  return () => stop();
}

/** An array is what the server says of the operation; anything else is the connection. */
function endOf(error: unknown): Watching {
  if (error instanceof SignedOut) return 'signed out';
  const codes = Array.isArray(error) ? error.map(({ extensions }) => extensions?.code) : [];
  return codes.includes('UNAUTHENTICATED') ? 'revoked' : 'failed';
}
