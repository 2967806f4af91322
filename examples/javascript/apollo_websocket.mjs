// Apollo Client: subscriptions on a WebSocket of graphql-ws, everything else over HTTP.
import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { createClient } from 'graphql-ws';
import { OperationTypeNode } from 'graphql';
import WebSocket from 'ws'; // browsers have their own
import { CREATE, WATCH } from './operations.mjs';
import { Record } from './record.mjs';
import { resumed } from './resume.mjs';

globalThis.WebSocket ??= WebSocket; // before Node 22, Apollo would not find it
const record = await Record.of();
const socket = createClient({
  url: record.url.replace('http', 'ws'),
  webSocketImpl: WebSocket,
  // It would subscribe again with the variables of the first time, and see everything twice. Without `after`:
  // retryAttempts: Infinity, shouldRetry: () => true; else a connection that is refused would end it for good.
  retryAttempts: 0,
});
const link = ApolloLink.split(
  ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
  new GraphQLWsLink(socket),
  new HttpLink({ uri: record.url }),
);
const client = new ApolloClient({ link, cache: new InMemoryCache() });

record.begin((await client.mutate({ mutation: gql(CREATE) })).data.createJob.job);

await resumed(
  record,
  (variables) =>
    new Promise((ended, lost) => {
      client.subscribe({ query: gql(WATCH), variables, fetchPolicy: 'no-cache' }).subscribe({
        next: ({ data, error }) => (error ? lost(error) : record.note(data.jobProgress)),
        error: lost,
        complete: ended,
      });
    }),
);
await socket.dispose();
await record.compare();
