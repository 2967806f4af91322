// The sign-in with a key or token, and its renewal before a token ends.

import { stringifyDocument } from '@urql/core';
import type { Client as SocketClient } from 'graphql-ws';
import { type FormEvent, useEffect, useId, useRef, useState } from 'react';
import { serverNow } from './api/clock';
import { ENDPOINT } from './api/connection';
import { RenewAccessDocument, type RenewAccessMutation, WhoAsksDocument } from './api/generated';
import { isKept, session, setCredential, type Viewer } from './api/session';
import { Until, useEachSecond } from './parts/time';
import { Problem } from './parts/Problem';

/** Who asks under a credential; raises Error with the sentence of a refusal. */
async function viewerOf(token: string): Promise<Viewer> {
  let response: Response;
  try {
    response = await fetch(ENDPOINT, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({ query: stringifyDocument(WhoAsksDocument) }),
    });
  } catch {
    throw new Error('The server cannot be reached.');
  }
  const { data, errors } = (await response.json()) as {
    data?: { viewer: Viewer };
    errors?: { message: string }[];
  };
  if (!data?.viewer) throw new Error(errors?.[0]?.message ?? 'The server does not say who this is.');
  return data.viewer;
}

/** A key cannot be sent in a header with other characters. */
const isSendable = (token: string): boolean => /^[\x21-\x7e]+$/.test(token);

function TokenForm({
  button,
  begins,
  onSubmit,
}: {
  button: string;
  /** The id of what says why it is asked for, where the form is all that there is: it takes the focus then. */
  begins?: string;
  onSubmit: (token: string, keep: boolean) => Promise<void>;
}) {
  const [problem, setProblem] = useState('');
  const [busy, setBusy] = useState(false);
  const field = useRef<HTMLInputElement>(null);

  // What had the focus may be gone with the page that was there before.
  useEffect(() => {
    if (begins !== undefined) field.current?.focus();
  }, [begins]);

  async function submit(event: FormEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const token = String(form.get('token')).trim();
    setProblem('');
    if (!isSendable(token))
      return setProblem('A key or token consists of letters, digits and signs, without spaces.');
    setBusy(true);
    try {
      await onSubmit(token, form.get('keep') === 'on');
    } catch (error) {
      setProblem((error as Error).message);
    } finally {
      setBusy(false);
    }
  }

  return (
    <form className="sign-in" onSubmit={(event) => void submit(event)}>
      <label>
        Key or token
        <input
          name="token"
          type="password"
          autoComplete="off"
          spellCheck={false}
          required
          ref={field}
          aria-describedby={begins}
        />
      </label>
      <label className="check">
        <input name="keep" type="checkbox" defaultChecked={isKept()} />
        Keep it when this tab is reloaded
      </label>
      <p className="hint">
        It is kept in this tab alone, and is gone when the tab is closed. Not kept, it is gone with a reload
        as well; kept, a duplicate of the tab has it too, and other scripts of this address could read it, of
        which this page has none.
      </p>
      {problem && <Problem>{problem}</Problem>}
      <button type="submit" className="primary" disabled={busy}>
        {button}
      </button>
    </form>
  );
}

export function SignIn({ problem }: { problem?: string | undefined }) {
  const why = useId();
  useEffect(() => {
    document.title = 'Sign in · gql-jobs';
  }, []);
  return (
    <main className="asking">
      <h1>Sign in to gql-jobs</h1>
      {problem && (
        <p id={why} role="status">
          {problem}
        </p>
      )}
      <TokenForm
        button="Sign in"
        begins={why}
        onSubmit={async (token, keep) => {
          const viewer = await viewerOf(token);
          setCredential(token, keep);
          session.set({ state: 'signed in', viewer });
        }}
      />
    </main>
  );
}

const OFFERED_BEFORE = 300_000;

/** Takes a fresh token before the present one ends, so that what is watched goes on without an interruption. */
export function RenewAccess({ expiresAt, socket }: { expiresAt: string; socket: SocketClient }) {
  useEachSecond();
  // By the server's clock, which is the one that ends it.
  if (Date.parse(expiresAt) - serverNow() > OFFERED_BEFORE) return null;

  async function renew(token: string, keep: boolean): Promise<void> {
    for await (const { data, errors } of socket.iterate<RenewAccessMutation>({
      query: stringifyDocument(RenewAccessDocument),
      variables: { token },
    })) {
      if (errors || !data) throw new Error(errors?.[0]?.message ?? 'It was not taken.');
      setCredential(token, keep);
      session.set({ state: 'signed in', viewer: data.renewAccess.viewer });
    }
  }

  return (
    <section className="renew" aria-label="Your access ends">
      <p>
        Your access ends <Until at={expiresAt} />. With a fresh token everything goes on as it is.
      </p>
      <TokenForm button="Go on with this token" onSubmit={renew} />
    </section>
  );
}
