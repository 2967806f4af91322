// urql: subscriptions on a WebSocket of graphql-ws, everything else over HTTP.
import { Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient } from 'graphql-ws';
import { toAsyncIterable } from 'wonka';
import WebSocket from 'ws'; // browsers have their own
import { CREATE, WATCH } from './operations.mjs';
import { Record } from './record.mjs';
import { resumed } from './resume.mjs';

const record = await Record.of();
const socket = createClient({
  url: record.url.replace('http', 'ws'),
  webSocketImpl: WebSocket,
  // It would subscribe again with the variables of the first time, and see everything twice. Without `after`:
  // retryAttempts: Infinity, shouldRetry: () => true; else a connection that is refused would end it for good.
  retryAttempts: 0,
});
const forwardSubscription = ({ query, variables }) => ({
  subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
});
const client = new Client({
  url: record.url,
  exchanges: [subscriptionExchange({ forwardSubscription }), fetchExchange],
});

record.begin((await client.mutation(CREATE, {}).toPromise()).data.createJob.job);

await resumed(record, async (variables) => {
  for await (const { data, error, hasNext } of toAsyncIterable(client.subscription(WATCH, variables))) {
    if (error) throw error;
    if (hasNext) record.note(data.jobProgress); // in the end, urql repeats the last result
  }
});
await socket.dispose();
await record.compare();
