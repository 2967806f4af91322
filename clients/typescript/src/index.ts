export type { GetToken, Token } from './access.js';
export {
  type CreateOptions,
  createJobsClient,
  type JobEvent,
  type JobHandle,
  type JobPage,
  type JobsClient,
  type JobsClientOptions,
  type ListOptions,
  type PageOptions,
  type Stream,
  type WatchListOptions,
  type WatchOptions,
} from './client.js';
export { type ClientErrorCode, type ErrorCode, type FieldFault, JobsError } from './errors.js';
export type {
  JobFilter,
  JobKeyInput,
  JobOrder,
  JobPriority,
  JobStatus,
  Scope,
} from './generated/operations.js';
export type { JobList, ListedJob } from './jobList.js';
export type { Job, JobState, JobTypeTable, Register, RegisteredJobs, UntypedJobs } from './jobTypes.js';
export type { Observable } from './observable.js';
export type { Connection } from './socket.js';
