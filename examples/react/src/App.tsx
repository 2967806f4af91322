import { useEffect, useState } from 'react';
import { type CreatedJob, createJob, signIn, signOutEverywhere, whoAmI } from './backEnd';
import { Job } from './Job';

export function App() {
  const [user, setUser] = useState<string>();
  const [created, setCreated] = useState<CreatedJob>();
  const [problem, setProblem] = useState<string>();

  useEffect(() => {
    whoAmI().then(({ user }) => setUser(user), () => undefined);
  }, []);

  function attempt(action: () => Promise<void>): void {
    setProblem(undefined);
    action().catch((error: Error) => setProblem(error.message));
  }

  async function enter(form: FormData): Promise<void> {
    setUser((await signIn(String(form.get('user')))).user);
  }

  async function leave(): Promise<void> {
    await signOutEverywhere();
    setUser(undefined);
    setCreated(undefined);
  }

  return (
    <>
      <h1>Reports</h1>
      {problem && <p role="alert">{problem}</p>}
      {user === undefined ? (
        <form action={(form) => attempt(() => enter(form))}>
          <label>
            Your name <input name="user" autoComplete="username" required />
          </label>{' '}
          <button>Sign in</button>
        </form>
      ) : (
        <>
          <p>
            You are {user}.{' '}
            <button onClick={() => attempt(async () => setCreated(await createJob()))}>Make a report</button>{' '}
            <button onClick={() => attempt(leave)}>Sign out everywhere</button>
          </p>
          {created && <Job key={created.id} created={created} />}
        </>
      )}
    </>
  );
}
