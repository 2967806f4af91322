import { useEffect, useRef } from 'react';
import { type ListedJob, useJobList } from '../api/jobList';
import { ENDED } from '../format';
import { Bar, JobLink, StatusBadge } from './job';
import { Problem } from './Problem';
import './FollowedJob.css';

/** One job as it goes on, to its end. `onEnd` is called once with how it has ended. */
export function FollowedJob({ id, onEnd }: { id: string; onEnd?: (job: ListedJob) => void }) {
  const { list, problem } = useJobList('The job followed', { ids: [id] }, null, 1);
  const job = list?.jobs[0];
  const ended = job !== undefined && ENDED.has(job.status);
  const told = useRef(false);
  useEffect(() => {
    if (!ended || told.current) return;
    told.current = true;
    onEnd?.(job);
  }, [ended, job, onEnd]);
  if (problem) return <Problem>{problem}</Problem>;
  return (
    <div className="followed-job">
      <div className="row" role="status">
        <JobLink id={id} />
        {job ? <StatusBadge status={job.status} /> : <span className="hint">…</span>}
        {job && job.attempt > 1 && <span className="hint">attempt {job.attempt}</span>}
        {job?.error && (
          <span className="field-problem">
            {job.error.type}: {job.error.summary}
          </span>
        )}
      </div>
      {job?.status === 'PROCESSING' && (
        <p className="row">
          <Bar progress={job.progress} label={`Progress of job ${id.slice(0, 8)}`} />
          <span className="hint">{job.progressMessage}</span>
        </p>
      )}
    </div>
  );
}
