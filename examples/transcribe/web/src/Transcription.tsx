import { useJob } from '@gql-jobs/client/react';
import type { Video } from './App';
import { jobsApi } from './client';

/** Milliseconds in which the outbox hands a job on, even after a while without a relay. */
const APPEARS_WITHIN = 600_000;

/** A video, how far its transcription is, and what is said in it. */
export function Transcription({ video }: { video: Video }) {
  const { job, progress, result, error, connection, problem, retry } = useJob<'transcription'>(video.job_id, {
    appearsWithin: APPEARS_WITHIN,
  });
  return (
    <section aria-labelledby={`video-${video.id}`}>
      <h2 id={`video-${video.id}`}>{video.name}</h2>
      {problem && <p role="alert">{problem.message}</p>}
      {job?.status === 'DEAD_LETTER' ? (
        <p role="alert">
          {error?.message} <button onClick={retry}>Try again</button>
        </p>
      ) : result ? (
        <>
          <blockquote>{result.text}</blockquote>
          <a href={new URL(result.url, jobsApi).href}>As a text file</a>
        </>
      ) : (
        <p>
          <progress max={100} value={progress} aria-label={`Progress of ${video.name}`} />{' '}
          {job?.progressMessage ?? (job ? job.status.toLowerCase() : 'not begun yet')}
          {connection === 'reconnecting' && ' (the connection is lost)'}
        </p>
      )}
    </section>
  );
}
