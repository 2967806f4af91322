// EventSource: server-sent events. It comes back by itself, and goes on behind the last event it saw (Last-Event-ID).
import { EventSource } from 'eventsource'; // browsers have their own
import { ask, CREATE, WATCH } from './operations.mjs';
import { Record } from './record.mjs';

const record = await Record.of();
record.begin((await ask(record.url, CREATE)).createJob.job);

const asked = new URLSearchParams({ query: WATCH, variables: JSON.stringify(record.variables) });
const events = new EventSource(`${record.url}?${asked}`);
events.addEventListener('next', ({ data }) => record.note(JSON.parse(data).data.jobProgress));
events.addEventListener('error', () => console.log('-- lost: EventSource reconnects'));
await new Promise((ended) => events.addEventListener('complete', ended));
events.close();
await record.compare();
