export type { GetToken, Token } from './access.js';
export {
  type CreateOptions,
  createJobsClient,
  type JobPage,
  type JobsClient,
  type JobsClientOptions,
  type ListOptions,
  type PageOptions,
  type WatchListOptions,
} from './client.js';
export { type ClientErrorCode, type ErrorCode, type FieldFault, JobsError } from './errors.js';
export type {
  DependencyPolicy,
  JobFilter,
  JobKeyInput,
  JobOrder,
  JobPriority,
  JobStatus,
  KeyPolicy,
  OverlapPolicy,
  QueueLimitsInput,
  Scope,
} from './generated/operations.js';
export type { Abortable } from './http.js';
export type {
  JobChanges,
  JobEvent,
  JobHandle,
  RetryOptions,
  Stream,
  WatchOptions,
} from './jobHandle.js';
export type { JobList, ListedJob } from './jobList.js';
export type { Job, JobState, JobTypeTable, Register, RegisteredJobs, UntypedJobs } from './jobTypes.js';
export type { Observable } from './observable.js';
export type { PauseOptions, QueueLimits, QueuePause } from './queues.js';
export type { PreviewOptions, Schedule, ScheduleOptions } from './schedules.js';
export type { Connection } from './socket.js';
