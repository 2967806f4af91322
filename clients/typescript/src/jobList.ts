// A list of jobs that is kept up to date: a snapshot, then changes in groups. After the last of a group the list is what the
// query `jobs` answers at the same place of the history.

import type { WatchJobsSubscription } from './generated/operations.js';
import type { Job } from './jobTypes.js';

/** A job in a list. What came of it is not part of that: look at the job. */
export type ListedJob = Omit<Job, 'result'>;

export interface JobList {
  readonly jobs: readonly ListedJob[];
  /** How many jobs match, those that are not listed included. */
  readonly totalCount: number;
}

export type JobsChange = WatchJobsSubscription['jobsChanged'];

/** The list after a change. The list given is left as it is. */
export function applied({ jobs }: JobList, change: JobsChange): JobList {
  const { totalCount } = change;
  switch (change.__typename) {
    case 'JobsSnapshot':
      return { jobs: change.nodes, totalCount };
    case 'JobLeft':
      return { jobs: jobs.filter(({ id }) => id !== change.id), totalCount };
    case 'JobUpdated':
      return { jobs: jobs.map((job) => (job.id === change.job.id ? change.job : job)), totalCount };
    case 'JobEntered': {
      const others = jobs.filter(({ id }) => id !== change.job.id);
      const place = others.findIndex(({ id }) => id === change.before);
      return { jobs: others.toSpliced(place < 0 ? others.length : place, 0, change.job), totalCount };
    }
  }
}

/** The list after each whole group of changes. */
export async function* listsOf(
  changes: AsyncIterable<WatchJobsSubscription>,
): AsyncGenerator<JobList, void, undefined> {
  let list: JobList = { jobs: [], totalCount: 0 };
  for await (const { jobsChanged } of changes) {
    list = applied(list, jobsChanged);
    if (!jobsChanged.more) yield list;
  }
}
