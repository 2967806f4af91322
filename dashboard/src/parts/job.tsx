// What is shown of a job wherever one is shown.

import type { JobStatus } from '../api/generated';
import { short, STATUS } from '../format';
import { href } from '../route';

/** A state, told apart by its words and its shape as well as by its colour. */
export function StatusBadge({ status }: { status: JobStatus }) {
  return (
    <span className="badge" data-status={status}>
      {STATUS[status]}
    </span>
  );
}

/** How far a job is. The bar is moved by the compositor, so that hundreds of them cost little. */
export function Bar({ progress, label, status }: { progress: number; label: string; status?: JobStatus }) {
  return (
    <span
      className="bar"
      data-status={status}
      role="progressbar"
      aria-label={label}
      aria-valuenow={progress}
      aria-valuemin={0}
      aria-valuemax={100}
    >
      <span style={{ transform: `scaleX(${progress / 100})` }} />
    </span>
  );
}

export function JobLink({ id }: { id: string }) {
  return (
    <a className="id" href={href(`jobs/${id}`)} title={id}>
      {short(id)}
    </a>
  );
}
