// The page's back end. It alone has the API key: it creates jobs for the user who is signed in, gets the page a token
// for just these, renews that, and ends it when the user signs out. It keeps everything in memory.
import { randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname } from 'node:path';

const { JOBS_KEY_FILE, JOBS_URL = 'http://localhost:8000/graphql', PORT = '3000' } = process.env;
/** Where browsers reach the API. */
const PUBLIC_URL = process.env.JOBS_PUBLIC_URL ?? JOBS_URL;
const TOKEN_SECONDS = Number(process.env.VIEW_TOKEN_SECONDS ?? 900);
if (!JOBS_KEY_FILE) throw new Error('JOBS_KEY_FILE has to name the file with the key that `gql-jobs keys create` printed.');
const key = (await readFile(JOBS_KEY_FILE, 'utf8')).trim();

const CREATE = /* GraphQL */ `
  mutation Create($tag: String!, $seconds: Int!) {
    createJob(
      input: {
        payload: {
          reportGeneration: {
            reportType: MONTHLY_SALES
            format: XLSX
            dateRange: { start: "2021-01-01", end: "2024-12-31" }
          }
        }
        tags: [$tag]
      }
    ) {
      job { id }
      viewToken(ttlSeconds: $seconds) { id token expiresAt }
    }
  }
`;
// Job and tag: a token for somebody else's job shows nothing, so there is no need to look up here whose it is.
const RENEW = /* GraphQL */ `
  mutation Renew($job: ID!, $tag: String!, $seconds: Int!) {
    createViewToken(input: { limitedTo: { ids: [$job], tags: [$tag] }, ttlSeconds: $seconds }) {
      viewToken { id token expiresAt }
    }
  }
`;
const REVOKE = /* GraphQL */ `
  mutation Revoke($id: ID!) {
    revokeToken(id: $id) { revoked }
  }
`;

async function ask(query, variables) {
  const response = await fetch(JOBS_URL, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${key}` },
    body: JSON.stringify({ query, variables }),
    signal: AbortSignal.timeout(10_000),
  });
  const { data, errors } = await response.json();
  if (errors) throw new Error(`${errors[0].extensions?.code}: ${errors[0].message}`);
  return data;
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** User by session. */
const sessions = new Map();
/** By user, when each view token ends that was made for them, by its id. */
const issued = new Map();

const tagOf = (user) => `user:${user}`;

/** What the page is given of a new token. The time that is left, because the browser's clock may be wrong. */
async function grant(session, user, { id, token, expiresAt }) {
  const tokens = issued.get(user) ?? new Map();
  for (const [old, end] of tokens) if (end < Date.now()) tokens.delete(old);
  issued.set(user, tokens.set(id, Date.parse(expiresAt)));
  if (!sessions.has(session)) {
    await ask(REVOKE, { id }); // signed out meanwhile
    throw new Refused(401, 'You are signed out.');
  }
  return { token, secondsLeft: (Date.parse(expiresAt) - Date.now()) / 1000 };
}

const routes = {
  'GET /api/session': ({ user }) => ({ user }),

  // Without a password: put your own way of signing in here.
  'POST /api/session': ({ body, response }) => {
    if (!/^[a-z]{1,20}$/.test(body.user)) throw new Refused(400, 'A name has 1 to 20 small letters.');
    const session = randomUUID();
    sessions.set(session, body.user);
    response.setHeader('Set-Cookie', `session=${session}; HttpOnly; Secure; SameSite=Strict; Path=/`);
    return { user: body.user };
  },

  // Everywhere: every session of the user, and every token.
  'DELETE /api/session': async ({ user }) => {
    for (const [session, owner] of sessions) if (owner === user) sessions.delete(session);
    const tokens = issued.get(user) ?? new Map();
    issued.delete(user);
    await Promise.all([...tokens.keys()].map((id) => ask(REVOKE, { id })));
    return {};
  },

  'POST /api/jobs': async ({ session, user }) => {
    const { createJob } = await ask(CREATE, { tag: tagOf(user), seconds: TOKEN_SECONDS });
    return { id: createJob.job.id, url: PUBLIC_URL, access: await grant(session, user, createJob.viewToken) };
  },

  'POST /api/view-tokens': async ({ session, user, body }) => {
    const { createViewToken } = await ask(RENEW, { job: body.job, tag: tagOf(user), seconds: TOKEN_SECONDS });
    return grant(session, user, createViewToken.viewToken);
  },
};

// What `npm run build` made.
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css' };
const files = new Map();
const folder = new URL('dist/', import.meta.url);
for (const name of await readdir(folder, { recursive: true })) {
  const type = TYPES[extname(name)];
  if (type) files.set(`/${name}`, { type, content: await readFile(new URL(name, folder)) });
}
files.set('/', files.get('/index.html'));
// Scripts of others cannot run in the page, and what runs there can talk to nobody but these two.
const api = new URL(PUBLIC_URL);
const connectable = `'self' ${api.origin} ${api.origin.replace('http', 'ws')}`;
const headers = {
  'Content-Security-Policy': `default-src 'self'; connect-src ${connectable}; frame-ancestors 'none'; base-uri 'none'`,
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
};

async function bodyOf(request) {
  if (request.method !== 'POST') return {};
  // Forms of other sites cannot send this type.
  if (request.headers['content-type'] !== 'application/json') throw new Refused(415, 'Send application/json.');
  let text = '';
  for await (const part of request.setEncoding('utf8')) {
    text += part;
    if (text.length > 10_000) throw new Refused(413, 'That is too long.');
  }
  try {
    return Object(JSON.parse(text));
  } catch {
    throw new Refused(400, 'That is no JSON.');
  }
}

async function answer(request, response) {
  const route = `${request.method} ${request.url}`;
  const session = /(?:^|; )session=([\w-]+)/.exec(request.headers.cookie ?? '')?.[1];
  const user = sessions.get(session);
  if (!Object.hasOwn(routes, route)) throw new Refused(404, 'There is nothing here.');
  if (!user && route !== 'POST /api/session') throw new Refused(401, 'You are signed out.');
  return routes[route]({ session, user, body: await bodyOf(request), response });
}

const server = createServer(async (request, response) => {
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  const file = request.method === 'GET' && files.get(request.url);
  if (file) return response.setHeader('Content-Type', file.type).end(file.content);
  let result;
  try {
    result = await answer(request, response);
  } catch (error) {
    if (!(error instanceof Refused)) console.error(error);
    response.statusCode = error.status ?? 502;
    result = { message: error.status ? error.message : 'The job server did not do it.' };
  }
  response.setHeader('Content-Type', 'application/json').setHeader('Cache-Control', 'no-store');
  response.end(JSON.stringify(result));
});
server.listen(Number(PORT), '127.0.0.1', () => console.log(`Page http://localhost:${server.address().port}`));
