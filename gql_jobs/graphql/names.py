"""Who has which type name in one schema: what every schema holds first, then what job types bring."""

RESERVED = frozenset(
    {
        "Boolean",
        "CancelJobPayload",
        "Cancellation",
        "CancellationOutcome",
        "CreateJobInput",
        "CreateJobPayload",
        "CreateJobsPayload",
        "Date",
        "DateTime",
        "Decimal",
        "ErrorCode",
        "Float",
        "ID",
        "Int",
        "JSON",
        "Job",
        "JobCancelled",
        "JobCompleted",
        "JobConnection",
        "JobDeadLetter",
        "JobEdge",
        "Artifact",
        "JobError",
        "JobEvent",
        "JobFailed",
        "JobFilter",
        "JobOrder",
        "JobOrderField",
        "JobPayloadInput",
        "JobPriority",
        "JobProgress",
        "JobQueued",
        "JobScheduled",
        "JobStarted",
        "JobStatus",
        "JobType",
        "Mutation",
        "PageInfo",
        "Query",
        "Queue",
        "RetryJobPayload",
        "RetryJobsPayload",
        "SortDirection",
        "StatusCount",
        "String",
        "Subscription",
        "Time",
        "UUID",
        "UnknownJob",
        "Worker",
    }
)


class TypeNames:
    """The names of one schema."""

    def __init__(self) -> None:
        self._owners: dict[str, object] = dict.fromkeys(RESERVED)

    def take(self, name: str, owner: object) -> None:
        """Take a name that follows from a job type's own.

        :raises ValueError: if it is taken; the job type needs another name.
        """
        if name in self._owners:
            raise ValueError(f"The GraphQL type {name!r} of a job type is taken; give the job type another name.")
        self._owners[name] = owner

    def claim(self, name: str, owner: object, stem: str) -> str:
        """The name for a nested model or enum: its own, or, if that is taken, prefixed with the type it is part of."""
        for candidate in (name, f"{stem}{name}"):
            if candidate not in self._owners:
                self._owners[candidate] = owner
                return candidate
        raise ValueError(f"The GraphQL type names {name!r} and '{stem}{name}' are both taken; rename {owner!r}.")
