// The frame of all pages: who asks, where one can go, and whether what is shown can be trusted.

import { type ReactNode, Suspense, useEffect, useRef, useState } from 'react';
import { Provider } from 'urql';
import { type Opened, open } from './api/connection';
import { WhoAsksDocument } from './api/generated';
import { useObservable } from './api/observable';
import {
  can,
  canLook,
  canSteerSchedules,
  seesSchedules,
  type Session,
  session,
  signOut,
} from './api/session';
import { ConnectionState, isStale, TrustContext, useTrust } from './ConnectionState';
import { moment } from './format';
import { Dialog } from './parts/Dialog';
import { Failures, lazily, loadTheRest } from './parts/lazily';
import { Now } from './pages/now/Now';
import { go, href, type Route, useRoute } from './route';
import { RenewAccess, SignIn } from './SignIn';
import { useShortcuts } from './shortcuts';
import { ThemeChoice } from './theme';

const Jobs = lazily(() => import('./pages/jobs/Jobs'));
const Job = lazily(() => import('./pages/job/Job'));
const DeadLetters = lazily(() => import('./pages/deadLetters/DeadLetters'));
const EditJob = lazily(() => import('./pages/editJob/EditJob'));
const NewJob = lazily(() => import('./pages/newJob/NewJob'));
const Schedules = lazily(() => import('./pages/schedules/Schedules'));
const DefineSchedule = lazily(() => import('./pages/schedules/DefineSchedule'));

const PAGES = [
  { path: '', name: 'Now', key: 'g n' },
  { path: 'jobs', name: 'Jobs', key: 'g j' },
  { path: 'dead-letters', name: 'Dead letters', key: 'g d' },
  { path: 'schedules', name: 'Schedules', key: 'g s' },
  { path: 'new', name: 'New job', key: 'g c' },
] as const;

function Page({ path, parameters }: Route) {
  if (!canLook())
    return (
      <>
        <h1>There is nothing to see for you</h1>
        <p>
          This key or token shows no jobs: it has neither of the scopes READ and CREATE. Sign out, and sign in
          with another one.
        </p>
      </>
    );
  const [first, second, third] = path.split('/');
  if (first === '') return <Now />;
  if (first === 'jobs' && second && (third === 'edit' || third === 'retry') && can('CONTROL'))
    return <EditJob key={path} id={second} way={third} />;
  if (first === 'jobs' && !third)
    return second ? <Job key={second} id={second} /> : <Jobs parameters={parameters} />;
  if (first === 'dead-letters') return <DeadLetters parameters={parameters} />;
  if (first === 'schedules' && second === 'define' && canSteerSchedules())
    return <DefineSchedule key={parameters.toString()} parameters={parameters} />;
  if (first === 'schedules' && !second && seesSchedules()) return <Schedules />;
  if (first === 'new' && can('CREATE')) return <NewJob key={parameters.toString()} parameters={parameters} />;
  return (
    <>
      <h1>Nothing is here</h1>
      <p>
        This address names no page that there is for you. <a href={href('')}>Go to the first page</a>.
      </p>
    </>
  );
}

export function App() {
  const asks = useObservable(session);
  const [opened, setOpened] = useState<Opened | null>(null);
  // Signing out closes the connection, and signing in opens another one.
  const closed = asks.state === 'signed out';
  const [tries, setTries] = useState(0);
  useEffect(() => {
    if (closed) return;
    let again: ReturnType<typeof setTimeout> | undefined;
    const connection = open(() => {
      again = setTimeout(() => setTries((before) => before + 1), 5000);
    });
    setOpened(connection);
    return () => {
      clearTimeout(again);
      connection.close();
    };
  }, [closed, tries]);

  if (closed) return <SignIn problem={asks.problem} />;
  if (!opened) return null;
  return (
    <Provider value={opened.client}>
      {asks.state === 'asking' ? <Asking opened={opened} /> : <Frame viewer={asks.viewer} opened={opened} />}
    </Provider>
  );
}

/** Asks who asks, until there is an answer: a page that cannot reach its server says so. */
function Asking({ opened }: { opened: Opened }) {
  const [problem, setProblem] = useState('');
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let over = false;
    async function ask(): Promise<void> {
      const { data, error } = await opened.client.query(WhoAsksDocument, {}).toPromise();
      if (over) return;
      if (data) return session.set({ state: 'signed in', viewer: data.viewer });
      setProblem(error?.graphQLErrors[0]?.message ?? 'The server cannot be reached. Trying again…');
      timer = setTimeout(ask, 2000);
    }
    void ask();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [opened]);
  return (
    <main className="asking">
      <p role="status">{problem || 'Connecting…'}</p>
    </main>
  );
}

function Frame({
  viewer,
  opened,
}: {
  viewer: Extract<Session, { state: 'signed in' }>['viewer'];
  opened: Opened;
}) {
  const route = useRoute();
  const trust = useTrust();
  const [help, setHelp] = useState(false);
  const main = useRef<HTMLElement>(null);
  const pages = PAGES.filter(
    ({ path }) => canLook() && (path !== 'new' || can('CREATE')) && (path !== 'schedules' || seesSchedules()),
  );
  useShortcuts({
    '?': () => setHelp(true),
    ...Object.fromEntries(pages.map(({ path, key }) => [key, () => go(href(path))])),
  });

  useEffect(() => void loadTheRest(), []);

  const arrived = useRef(route.path);
  useEffect(() => {
    document.title = `${titleOf(route.path)} · gql-jobs`;
    if (arrived.current === route.path) return;
    arrived.current = route.path;
    // As after the load of a page: a screen reader begins at its top, and so does the scroll.
    main.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [route.path]);

  return (
    <TrustContext value={trust}>
      <button type="button" className="skip" onClick={() => main.current?.focus()}>
        Skip to the content
      </button>
      <header className="frame">
        <nav aria-label="Pages">
          <a className="brand" href={href('')}>
            gql-jobs
          </a>
          {pages.map(({ path, name }) => (
            <a
              key={path}
              href={href(path)}
              aria-current={route.path.split('/')[0] === path ? 'page' : undefined}
            >
              {name}
            </a>
          ))}
        </nav>
        <div className="frame-tools">
          <ConnectionState trust={trust} />
          {'graphiql' in document.documentElement.dataset && <a href="graphql">GraphiQL</a>}
          <ThemeChoice />
          <button type="button" className="quiet" onClick={() => setHelp(true)}>
            Help <kbd>?</kbd>
          </button>
          {viewer.subject !== 'anonymous' && (
            <span
              className="viewer"
              title={viewer.expiresAt ? `until ${moment(viewer.expiresAt)}` : undefined}
            >
              {viewer.subject}{' '}
              <button type="button" className="quiet" onClick={leave}>
                Sign out
              </button>
            </span>
          )}
        </div>
      </header>
      {viewer.expiresAt && <RenewAccess expiresAt={viewer.expiresAt} socket={opened.socket} />}
      <main id="main" ref={main} tabIndex={-1} data-stale={isStale(trust) || undefined}>
        <Failures key={route.path}>
          <Suspense fallback={<p role="status">Loading…</p>}>
            <Page {...route} />
          </Suspense>
        </Failures>
      </main>
      {help && <Help onClose={() => setHelp(false)} pages={pages} />}
    </TrustContext>
  );
}

/** Sign out, and leave nothing of what was looked at in the address either. */
function leave(): void {
  go(href(''), true);
  signOut();
}

function titleOf(path: string): string {
  const [first, second, third] = path.split('/');
  if (first === 'jobs' && second)
    return `${third ? `${third.charAt(0).toUpperCase()}${third.slice(1)} job` : 'Job'} ${second.slice(0, 8)}`;
  return PAGES.find((page) => page.path === first)?.name ?? 'Nothing';
}

function Help({ onClose, pages }: { onClose: () => void; pages: readonly { name: string; key: string }[] }) {
  return (
    <Dialog title="Help" onClose={onClose}>
      <p>Everything here can be reached with Tab and Enter. These keys are shorter, outside of fields:</p>
      <dl className="keys">
        <Key keys="?">this help</Key>
        {pages.map(({ name, key }) => (
          <Key key={key} keys={key}>
            the page “{name}”
          </Key>
        ))}
        <Key keys="/">in “Jobs”: to the filters</Key>
        <Key keys="n">in “Jobs”: show the new ones</Key>
        <Key keys="j k">in “Jobs”: to the next row, and back</Key>
        <Key keys="x Enter">select the row, and open its job</Key>
        <Key keys="Esc">close a dialog</Key>
      </dl>
      <p>
        What you see is pushed by the server. When the connection is lost, the line at the top says so and
        since when, and everything that may be out of date is marked until it is back.
      </p>
    </Dialog>
  );
}

function Key({ keys, children }: { keys: string; children: ReactNode }) {
  return (
    <div>
      <dt>
        {keys.split(' ').map((one) => (
          <kbd key={one}>{one}</kbd>
        ))}
      </dt>
      <dd>{children}</dd>
    </div>
  );
}
