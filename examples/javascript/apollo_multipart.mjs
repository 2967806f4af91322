// Apollo Client: multipart subscriptions over HTTP, without a WebSocket.
import { ApolloClient, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { CREATE, WATCH } from './operations.mjs';
import { Record } from './record.mjs';
import { resumed } from './resume.mjs';

const record = await Record.of();
const client = new ApolloClient({ link: new HttpLink({ uri: record.url }), cache: new InMemoryCache() });

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
await record.compare();
