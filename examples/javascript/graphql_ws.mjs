// graphql-ws: a WebSocket that speaks graphql-transport-ws.
import { createClient } from 'graphql-ws';
import WebSocket from 'ws'; // browsers have their own
import { CREATE, WATCH } from './operations.mjs';
import { Record } from './record.mjs';

const record = await Record.of();
const client = createClient({
  url: record.url.replace('http', 'ws'),
  webSocketImpl: WebSocket,
  retryAttempts: Infinity,
  shouldRetry: () => true, // else a refused connection, as during a restart, would end it for good
  on: { closed: ({ code }) => code === 1000 || console.log(`-- closed with ${code}`) },
});

for await (const { data } of client.iterate({ query: CREATE })) record.begin(data.createJob.job);

const { variables } = record;
for await (const { data, errors } of client.iterate({ query: WATCH, variables })) {
  if (errors) throw errors[0];
  variables.after = data.jobProgress.cursor; // a retry sends the variables again, and goes on from here
  record.note(data.jobProgress);
}
await client.dispose();
await record.compare();
