// graphql-ws: a WebSocket that speaks graphql-transport-ws.
import { createClient } from 'graphql-ws';
import WebSocket from 'ws'; // browsers have their own
import { CREATE, WATCH } from './operations.mjs';
import { Record } from './record.mjs';
import { resumed } from './resume.mjs';

const record = await Record.of();
const client = createClient({
  url: record.url.replace('http', 'ws'),
  webSocketImpl: WebSocket,
  retryAttempts: 0, // it would subscribe again with the same variables, and see everything twice
});

for await (const { data } of client.iterate({ query: CREATE })) record.begin(data.createJob.job);

await resumed(record, async (variables) => {
  for await (const { data, errors } of client.iterate({ query: WATCH, variables })) {
    if (errors) throw errors[0];
    record.note(data.jobProgress);
  }
});
await client.dispose();
await record.compare();
