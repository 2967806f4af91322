// What the client asks of the API. An API that has these fields of jobs, but lacks `jobsChanged`, `createJob { viewToken }`, what
// a renewal of access needs, or an operation that steers, serves all the rest.

export const JOB_FIELDS = /* GraphQL */ `
  fragment JobFields on Job {
    __typename
    id
    type
    queue
    status
    priority
    progress
    progressMessage
    attempt
    maxRetries
    workerId
    tags
    createdAt
    updatedAt
    runAt
    key
    concurrencyKey
    schedule
    startBefore
    cancelReason
    startedAt
    finishedAt
    nextAttemptAt
    durationMs
    error {
      message
      type
      attempt
      at
      retryable
    }
  }
`;

export const CREATE = /* GraphQL */ `
  mutation CreateJob($input: CreateJobInput!) {
    createJob(input: $input) {
      deduplicated
      job {
        id
      }
    }
  }
`;

export const CREATE_WITH_TOKEN = /* GraphQL */ `
  mutation CreateJobWithToken($input: CreateJobInput!, $ttlSeconds: Int!, $scopes: [Scope!]!) {
    createJob(input: $input) {
      deduplicated
      job {
        id
      }
      viewToken(ttlSeconds: $ttlSeconds, scopes: $scopes) {
        token
        id
        expiresAt
      }
    }
  }
`;

export const CANCEL = /* GraphQL */ `
  mutation CancelJob($id: ID!) {
    cancelJob(id: $id) {
      job {
        id
      }
    }
  }
`;

export const RETRY = /* GraphQL */ `
  mutation RetryJob($id: ID!) {
    retryJob(id: $id) {
      job {
        id
      }
    }
  }
`;

export const RETRY_WITH = /* GraphQL */ `
  mutation RetryJobWith($id: ID!, $payload: JobPayloadInput!) {
    retryJob(id: $id, payload: $payload) {
      job {
        id
      }
    }
  }
`;

export const UPDATE = /* GraphQL */ `
  mutation UpdateJob($id: ID!, $input: UpdateJobInput!) {
    updateJob(id: $id, input: $input) {
      job {
        ...JobFields
      }
    }
  }
`;

export const DELETE = /* GraphQL */ `
  mutation DeleteJob($id: ID!) {
    deletion: deleteJob(id: $id) {
      deleted
    }
  }
`;

export const JOB = /* GraphQL */ `
  query FindJob($id: ID!) {
    job(id: $id) {
      ...JobFields
    }
  }
`;

export const JOBS = /* GraphQL */ `
  query ListJobs($filter: JobFilter, $orderBy: JobOrder, $first: Int!, $after: String) {
    jobs(filter: $filter, orderBy: $orderBy, first: $first, after: $after) {
      totalCount
      nodes {
        ...JobFields
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
`;

export const WATCH = /* GraphQL */ `
  subscription WatchJob($id: ID!, $after: String) {
    jobProgress(id: $id, after: $after) {
      __typename
      cursor
      at
      job {
        ...JobFields
      }
    }
  }
`;

export const JOBS_CHANGED = /* GraphQL */ `
  subscription WatchJobs($filter: JobFilter, $orderBy: JobOrder, $first: Int!, $maxPerSecond: Float) {
    jobsChanged(filter: $filter, orderBy: $orderBy, first: $first, maxPerSecond: $maxPerSecond) {
      __typename
      totalCount
      more
      ... on JobsSnapshot {
        nodes {
          ...JobFields
        }
      }
      ... on JobEntered {
        job {
          ...JobFields
        }
        before
      }
      ... on JobUpdated {
        job {
          ...JobFields
        }
      }
      ... on JobLeft {
        id
      }
    }
  }
`;

export const PAUSE_QUEUE = /* GraphQL */ `
  mutation PauseQueue($name: String!, $reason: String, $until: DateTime) {
    pauseQueue(name: $name, reason: $reason, until: $until) {
      queue {
        paused {
          at
          by
          reason
          until
        }
      }
    }
  }
`;

export const RESUME_QUEUE = /* GraphQL */ `
  mutation ResumeQueue($name: String!) {
    resumeQueue(name: $name) {
      queue {
        name
      }
    }
  }
`;

export const SET_QUEUE_LIMITS = /* GraphQL */ `
  mutation SetQueueLimits($name: String!, $limits: QueueLimitsInput!) {
    setQueueLimits(name: $name, limits: $limits) {
      ungated
      queue {
        limits {
          concurrency
          concurrencyPerKey
          perSecond
        }
      }
    }
  }
`;

export const SCHEDULE_FIELDS = /* GraphQL */ `
  fragment ScheduleFields on Schedule {
    name
    type
    cron
    everySeconds
    timeZone
    priority
    tags
    overlap
    catchUpSeconds
    spreadSeconds
    paused
    createdAt
    createdBy
    changedAt
    definedBy
    payload: rawPayload
    nextRuns
    lastJob {
      id
      status
    }
    skipped
  }
`;

export const UPSERT_SCHEDULE = /* GraphQL */ `
  mutation UpsertSchedule($input: ScheduleInput!) {
    upsertSchedule(input: $input) {
      schedule {
        ...ScheduleFields
      }
    }
  }
`;

export const PAUSE_SCHEDULE = /* GraphQL */ `
  mutation PauseSchedule($name: String!, $paused: Boolean!) {
    pauseSchedule(name: $name, paused: $paused) {
      schedule {
        ...ScheduleFields
      }
    }
  }
`;

export const DELETE_SCHEDULE = /* GraphQL */ `
  mutation DeleteSchedule($name: String!) {
    deletion: deleteSchedule(name: $name) {
      deleted
    }
  }
`;

export const RUN_SCHEDULE = /* GraphQL */ `
  mutation RunSchedule($name: String!) {
    runSchedule(name: $name) {
      job {
        id
        __typename
      }
    }
  }
`;

export const SCHEDULES = /* GraphQL */ `
  query ListSchedules($first: Int!, $after: String) {
    schedules(first: $first, after: $after) {
      ...ScheduleFields
    }
  }
`;

export const SCHEDULE = /* GraphQL */ `
  query FindSchedule($name: String!) {
    schedule(name: $name) {
      ...ScheduleFields
    }
  }
`;

export const SCHEDULE_PREVIEW = /* GraphQL */ `
  query PreviewSchedule(
    $cron: String
    $everySeconds: Int
    $timeZone: String
    $first: Int
    $after: DateTime
  ) {
    schedulePreview(
      cron: $cron
      everySeconds: $everySeconds
      timeZone: $timeZone
      first: $first
      after: $after
    )
  }
`;

/** When the access that a socket has ends by itself. */
export const ACCESS = /* GraphQL */ `
  query Access {
    viewer {
      expiresAt
    }
  }
`;

/** The time by the server's clock: that of a browser may be wrong. */
export const CLOCK = /* GraphQL */ `
  query Clock {
    serverStatus {
      now
    }
  }
`;

export const RENEW = /* GraphQL */ `
  mutation RenewAccess($token: String!) {
    renewAccess(token: $token) {
      viewer {
        expiresAt
      }
    }
  }
`;
