import { useEffect, useState } from 'react';
import { type CreatedJob, freshAccess } from './backEnd';
import { type JobEvent, type Watching, watchJob } from './watchJob';

const SENTENCES: Record<Watching, string> = {
  watching: 'You see it live.',
  complete: 'It has ended.',
  revoked: 'Your access has been ended: you see no more of this job.',
  'signed out': 'You are signed out: you see no more of this job.',
  failed: 'It cannot be watched any more.',
};

export function Job({ created }: { created: CreatedJob }) {
  const [events, setEvents] = useState<JobEvent[]>([]);
  const [watching, setWatching] = useState<Watching>('watching');

  useEffect(() => {
    setEvents([]);
    setWatching('watching');
    return watchJob(created, (event) => setEvents((seen) => [...seen, event]), setWatching);
  }, [created]);

  const job = events.at(-1)?.job;
  return (
    <section>
      <h2>Your report</h2>
      <progress max={100} value={job?.progress ?? 0} />
      <p role="status">{SENTENCES[watching]}</p>
      {job?.status === 'COMPLETED' && <button onClick={() => void save(created)}>Save it</button>}
      <ol>
        {events.map(({ __typename, cursor, at, job: { progressMessage } }) => (
          <li key={cursor} data-cursor={cursor} data-type={__typename}>
            <time dateTime={at}>{new Date(at).toLocaleTimeString()}</time> {__typename} {progressMessage}
          </li>
        ))}
      </ol>
    </section>
  );
}

/** The address of a file is signed for a few minutes, so it is asked for when it is needed. The browser saves it. */
async function save({ id, url }: CreatedJob): Promise<void> {
  const { token } = await freshAccess(id);
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` },
    body: JSON.stringify({
      query: 'query Files($id: ID!) { job(id: $id) { artifacts { url } } }',
      variables: { id },
    }),
  });
  const { data } = await response.json();
  location.assign(new URL(data.job.artifacts[0].url, url));
}
