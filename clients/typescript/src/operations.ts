// What the client asks of the API. All of it is in every release of the API but for `jobsChanged`, `createJob { viewToken }`,
// and what a renewal of access needs.

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
