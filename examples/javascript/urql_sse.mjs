// urql: subscriptions as server-sent events, over fetch.
import { Client, fetchExchange } from '@urql/core';
import { toAsyncIterable } from 'wonka';
import { CREATE, WATCH } from './operations.mjs';
import { Record } from './record.mjs';
import { resumed } from './resume.mjs';

const record = await Record.of();
const client = new Client({ url: record.url, exchanges: [fetchExchange], fetchSubscriptions: true });

record.begin((await client.mutation(CREATE, {}).toPromise()).data.createJob.job);

await resumed(record, async (variables) => {
  for await (const { data, error, hasNext } of toAsyncIterable(client.subscription(WATCH, variables))) {
    if (error) throw error;
    if (hasNext) record.note(data.jobProgress); // in the end, urql repeats the last result
  }
});
await record.compare();
