"""The operations of the public GraphQL API that the commands send: every one that ``client.ApiClient`` asks."""

_FIELDS = """
fragment Fields on Job {
  id type queue status priority progress progressMessage attempt retryCount maxRetries workerId
  error { message type attempt at retryable } tags tenant createdBy
  createdAt updatedAt runAt startedAt finishedAt nextAttemptAt durationMs
}"""
_OF_EVENT = """
    __typename cursor at actor job { ...Fields }
    ... on JobScheduled { runAt }
    ... on JobStarted { workerId attempt supersedes }
    ... on JobProgress { progress message }
    ... on JobFailed { error { message type attempt at retryable } nextAttemptAt }
    ... on JobCompleted { durationMs }
    ... on JobDeadLetter { error { message type attempt at retryable } }"""
JOB = f"""query Job($id: ID!) {{
  job(id: $id) {{ ...Fields waiting {{ reason detail until ahead }}
    rawPayload rawResult origin {{ id }} parent {{ id }} children(first: 500) {{ id status }}
    artifacts {{ name url contentType sizeBytes sha256 }} }}
}}{_FIELDS}"""
PROGRESS = f"""subscription Progress($id: ID!, $after: String) {{
  jobProgress(id: $id, after: $after) {{{_OF_EVENT}
    ... on JobCompleted {{ job {{ rawResult }} }}
  }}
}}{_FIELDS}"""
EVENTS = f"""subscription Events($filter: JobFilter, $after: String) {{
  jobEvents(filter: $filter, after: $after) {{{_OF_EVENT}
  }}
}}{_FIELDS}"""
JOBS = f"""query Jobs($filter: JobFilter, $first: Int, $after: String) {{
  jobs(filter: $filter, first: $first, after: $after) {{
    edges {{ cursor node {{ ...Fields }} }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}{_FIELDS}"""
ORIGINAL = """query Original($id: ID!) {
  job(id: $id) { id type priority tags maxRetries timeoutSeconds rawPayload }
}"""
_TYPE = "kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } }"
INPUT_TYPES = f"""query InputTypes {{
  __schema {{ types {{ name inputFields {{ name type {{ {_TYPE} }} }} enumValues {{ name }} }} }}
}}"""
TYPES = "query Types { jobTypes { name payloadSchema } }"
CREATE = f"""mutation Create($input: CreateJobInput!) {{
  createJob(input: $input) {{ deduplicated job {{ ...Fields }} }}
}}{_FIELDS}"""
RETRY = f"mutation Retry($id: ID!) {{ retryJob(id: $id) {{ job {{ ...Fields }} }} }}{_FIELDS}"
RETRY_WITH = f"""mutation Retry($id: ID!, $payload: String) {{
  retryJob(id: $id, rawPayload: $payload) {{ job {{ ...Fields }} }}
}}{_FIELDS}"""
UPDATE = f"""mutation Update($id: ID!, $input: UpdateJobInput!) {{
  updateJob(id: $id, input: $input) {{ job {{ ...Fields }} }}
}}{_FIELDS}"""
CANCEL = f"mutation Cancel($id: ID!) {{ cancelJob(id: $id) {{ job {{ ...Fields }} }} }}{_FIELDS}"
DELETE = "mutation Delete($id: ID!) { deleteJob(id: $id) { deleted } }"
_OF_QUEUE = "name counts { status count } oldestQueuedAt workers unservedTypes paused { at by reason until }"
_LIMITED = "limits { concurrency concurrencyPerKey perSecond }"
QUEUES = f"query Queues {{ queues {{ {_OF_QUEUE} {_LIMITED} }} }}"
SET_LIMITS = f"""mutation SetLimits($name: String!, $limits: QueueLimitsInput!) {{
  setQueueLimits(name: $name, limits: $limits) {{ ungated queue {{ {_OF_QUEUE} {_LIMITED} }} }}
}}"""
PAUSE_QUEUE = f"""mutation PauseQueue($name: String!, $reason: String, $until: DateTime) {{
  pauseQueue(name: $name, reason: $reason, until: $until) {{ queue {{ {_OF_QUEUE} {_LIMITED} }} }}
}}"""
RESUME_QUEUE = (
    f"mutation ResumeQueue($name: String!) {{ resumeQueue(name: $name) {{ queue {{ {_OF_QUEUE} {_LIMITED} }} }} }}"
)
_OF_SCHEDULE = (
    "name type cron everySeconds timeZone priority tags overlap catchUpSeconds spreadSeconds paused definedBy"
    " rawPayload nextRuns(first: 5) lastJob { id status } skipped skips { reason count lastAt }"
)
SCHEDULE_PAGE = f"query Schedules($after: String) {{ schedules(first: 100, after: $after) {{ {_OF_SCHEDULE} }} }}"
ONE_SCHEDULE = f"query Schedule($name: String!) {{ schedule(name: $name) {{ {_OF_SCHEDULE} }} }}"
SCHEDULE_PREVIEW = """query SchedulePreview(
  $cron: String, $everySeconds: Int, $timeZone: String, $first: Int, $after: DateTime
) {
  schedulePreview(cron: $cron, everySeconds: $everySeconds, timeZone: $timeZone, first: $first, after: $after)
}"""
UPSERT_SCHEDULE = f"""mutation UpsertRawSchedule($input: RawScheduleInput!) {{
  upsertRawSchedule(input: $input) {{ schedule {{ {_OF_SCHEDULE} }} }}
}}"""
PAUSE_SCHEDULE = f"""mutation PauseSchedule($name: String!, $paused: Boolean!) {{
  pauseSchedule(name: $name, paused: $paused) {{ schedule {{ {_OF_SCHEDULE} }} }}
}}"""
DELETE_SCHEDULE = "mutation DeleteSchedule($name: String!) { deleteSchedule(name: $name) { deleted } }"
RUN_SCHEDULE = f"mutation RunSchedule($name: String!) {{ runSchedule(name: $name) {{ job {{ ...Fields }} }} }}{_FIELDS}"
WORKERS = """query Workers {
  workers { id hostname queues jobTypes concurrency running startedAt lastSeenAt unable { jobType reason } }
}"""
DEAD_LETTER_GROUPS = f"""query DeadLetterGroups($filter: JobFilter, $first: Int) {{
  deadLetterGroups(filter: $filter, first: $first) {{
    key type errorType message count firstAt lastAt sample {{ ...Fields }}
  }}
}}{_FIELDS}"""
PLAN_BULK = f"""mutation PlanBulk($action: BulkAction!, $filter: JobFilter, $group: String) {{
  planBulk(action: $action, filter: $filter, deadLetterGroup: $group) {{ token count sample {{ ...Fields }} }}
}}{_FIELDS}"""
_OF_RUN = "id action state planned done skipped failed startedAt finishedAt"
RUN_BULK = f"""mutation RunBulk($token: String!, $first: Int, $maxPerSecond: Float) {{
  runBulk(token: $token, first: $first, maxPerSecond: $maxPerSecond) {{ {_OF_RUN} }}
}}"""
STOP_BULK = f"mutation StopBulk($id: ID!) {{ stopBulk(id: $id) {{ {_OF_RUN} }} }}"
BULK_RUN = f"query BulkRun($id: ID!) {{ bulkRun(id: $id) {{ {_OF_RUN} }} }}"
BULK_PROGRESS = f"subscription BulkProgress($id: ID!) {{ bulkProgress(id: $id) {{ {_OF_RUN} }} }}"
