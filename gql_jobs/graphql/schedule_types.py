"""Schedules as clients see them: the type, the queries, and the mutations that define, delete and run them."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, TypeVar

import msgspec
import strawberry
from strawberry.scalars import JSON

from gql_jobs import clock
from gql_jobs.graphql.context import Context, Info
from gql_jobs.graphql.engine.complexity import LARGEST_PAGE
from gql_jobs.graphql.engine.strawberry_internals import compute, computed
from gql_jobs.graphql.inputs import argument_fault, known_type, member_payload, text_payload
from gql_jobs.graphql.job_types import Job, presenter, related_job
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.jobs import model, schedules
from gql_jobs.jobs.errors import Forbidden, InvalidArgument
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.jobs.model import JobPriority, OverlapPolicy
from gql_jobs.jobs.payloads import AcceptedPayload
from gql_jobs.jobs.recurrence import DEFAULT_PREVIEWED, MAX_CRON, MAX_INTERVAL, MAX_PREVIEWED, checked_recurrence
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.requests import InvalidRequest
from gql_jobs.jobs.schedules import (
    MAX_CATCH_UP,
    MAX_SPREAD,
    SCHEDULE,
    SCHEDULE_STATE,
    ScheduleState,
    SkipReason,
    check_schedule_name,
    settled,
)
from gql_jobs.log.schedules import ScheduleDefinition, read_schedule, spec_of

_T = TypeVar("_T")

DEFAULT_SCHEDULES = 100
"""Schedules that are listed where nobody says how many."""
_APPLIED_WITHIN = 1.0
"""Seconds to wait for this process to hear of what it has written."""


@strawberry.type(description="Ticks of a schedule that had no run, for one reason.")
class ScheduleSkips:
    """How many, and when the last one was due."""

    reason: SkipReason = strawberry.field(description="Why.")
    count: int = strawberry.field(
        description=f"How many since the schedule was first defined; of one outage {schedules.MOST_MISSED_COUNTED} at "
        "most."
    )
    last_at: datetime = strawberry.field(description="When the last of them was due.")


@strawberry.type(description="Something that is done again and again: at each of its ticks a job is created.")
class Schedule:
    """A schedule, read from ``source`` when its fields are selected."""

    source: strawberry.Private[schedules.Schedule]
    name: str = computed(description="Its name: 1 to 64 letters of ASCII, digits, `_` or `-`.")
    cron: str | None = computed(description="The cron expression by which it is due; null if it is by an interval.")
    every_seconds: int | None = computed(
        description="It is due every so many seconds, counted from 1970; null if it is by a cron expression."
    )
    time_zone: str = computed(description="The zone in which `cron` is meant, as `Europe/Berlin`.")
    type: str = computed(description="The type of its jobs.")
    priority: JobPriority = computed(description="The priority of its jobs.")
    tags: list[str] = computed(description="The tags of its jobs.")
    overlap: OverlapPolicy = computed(description="What becomes of a tick while a job of an earlier one has not ended.")
    catch_up_seconds: int = computed(
        description="After an outage, ticks that are late by up to so many seconds are made up for; older ones are "
        "skipped."
    )
    spread_seconds: int = computed(
        description="Its ticks are late by up to so many seconds: always by as many, which follow from its name."
    )
    paused: bool = computed(description="Whether it has no ticks until it is upserted without that.")
    created_at: datetime = computed(description="When it was first defined under this name.")
    created_by: str | None = computed(
        description="The subject that has defined it first; null if nobody was authenticated, as for one from code."
    )
    changed_at: datetime = computed(description="When it was changed last.")
    defined_by: str | None = computed(
        description="The program whose code defines it; null for one that clients have defined."
    )

    @strawberry.field(
        description="The payload of its jobs as it was given, without what defaults draw for each job. Secrets are "
        "shown as `[redacted]`."
    )
    def raw_payload(self, info: Info) -> JSON:
        """Return the payload as a JSON value, as that of a job is shown."""
        shown = self.source
        job = model.Job(
            id=shown.incarnation,
            status=model.JobStatus.SCHEDULED,
            submission_seq=0,
            last_seq=0,
            updated_at=shown.since,
            spec=spec_of(shown),
        )
        stored = presenter(info)(job).readable.payload(job)
        info.context.budget.take(read=len(stored))
        return JSON(msgspec.json.decode(stored))

    @strawberry.field(description="When it is due next; empty while it is paused, and if it is never due again.")
    def next_runs(
        self,
        info: Info,
        first: Annotated[
            int | None, strawberry.argument(description=f"How many moments: 1 to {MAX_PREVIEWED}.")
        ] = DEFAULT_PREVIEWED,
    ) -> list[datetime]:
        """Return the moments, those of which the jobs have been made ahead among them.

        :raises InvalidArgument: for a number out of range.
        """
        first = DEFAULT_PREVIEWED if first is None else first
        info.context.budget.take(max(first, 0))
        try:
            return self.source.next_runs(clock.now(), first)
        except InvalidRequest as invalid:
            raise argument_fault(invalid) from None

    @strawberry.field(
        description="The job of its latest tick that came to run; null if there was none, or that has expired."
    )
    async def last_job(self, info: Info) -> Job | None:
        """Return the job from the index, read with as much as is selected of it."""
        state = _state(self.source, info.context)
        shown: Job | None = await related_job(state.last_job, info) if state is not None else None
        return shown

    @strawberry.field(description="How many of its ticks had no run; `skips` says why.")
    def skipped(self, info: Info) -> int:
        """Return the sum of all reasons."""
        state = _state(self.source, info.context)
        return state.skipped if state is not None else 0

    @strawberry.field(description="How many of its ticks had no run, for each reason that there was.")
    def skips(self, info: Info) -> list[ScheduleSkips]:
        """Return the reasons with their counts."""
        state = _state(self.source, info.context)
        skips = state.skips if state is not None else {}
        return [ScheduleSkips(reason=reason, count=one.count, last_at=one.last_at) for reason, one in skips.items()]


compute(
    Schedule,
    name=lambda shown: shown.source.name,
    cron=lambda shown: shown.source.cron,
    every_seconds=lambda shown: shown.source.every_seconds,
    time_zone=lambda shown: shown.source.time_zone,
    type=lambda shown: shown.source.type,
    priority=lambda shown: shown.source.priority,
    tags=lambda shown: list(shown.source.tags),
    overlap=lambda shown: shown.source.overlap,
    catch_up_seconds=lambda shown: shown.source.catch_up_seconds,
    spread_seconds=lambda shown: shown.source.spread_seconds,
    paused=lambda shown: shown.source.paused,
    created_at=lambda shown: shown.source.created_at,
    created_by=lambda shown: shown.source.created_by,
    changed_at=lambda shown: shown.source.since,
    defined_by=lambda shown: shown.source.source,
)


def _state(schedule: schedules.Schedule, context: Context) -> ScheduleState | None:
    """Return what has been made of a schedule, and what has become of it by now."""
    services = context.services()
    state = services.steering.value(SCHEDULE_STATE, schedule.name, ScheduleState)
    if state is None:
        return None
    context.budget.take(1 + len(state.ahead))
    return settled(state, clock.now(), services.index.job).state


def _present(schedule: schedules.Schedule) -> Schedule:
    return Schedule(source=schedule)


# The queries.


def list_schedules(
    info: Info,
    first: Annotated[
        int | None, strawberry.argument(description=f"How many at most: 0 to {LARGEST_PAGE}.")
    ] = DEFAULT_SCHEDULES,
    after: Annotated[
        str | None, strawberry.argument(description="Go on behind the schedule of this name; there need be none.")
    ] = strawberry.UNSET,
) -> list[Schedule]:
    """Return the schedules, sorted by name; none to whoever sees some jobs only.

    :raises InvalidArgument: for a size out of range.
    """
    first = DEFAULT_SCHEDULES if first is None else first
    if not 0 <= first <= LARGEST_PAGE:
        raise InvalidArgument("first", f"first must be between 0 and {LARGEST_PAGE}.")
    context = info.context
    if context.session.visibility.is_partial:
        return []
    steering = context.services().steering
    names = sorted(
        name for name, one in steering.all(SCHEDULE).items() if one.value is not None and name > (after or "")
    )
    found = (steering.value(SCHEDULE, name, schedules.Schedule) for name in names)
    shown = [_present(one) for one in islice((one for one in found if one is not None), first)]
    context.budget.take(len(shown))
    return shown


def find_schedule(
    info: Info, name: Annotated[str, strawberry.argument(description="The schedule's name.")]
) -> Schedule | None:
    """Return one schedule; None if there is none, and to whoever sees some jobs only."""
    if info.context.session.visibility.is_partial:
        return None
    info.context.budget.take(1)
    found = info.context.services().steering.value(SCHEDULE, name, schedules.Schedule)
    return _present(found) if found is not None else None


_CRON = (
    f"Five fields, or six with the seconds first, of at most {MAX_CRON} characters: `0 3 * * MON-FRI`. Either this or "
    "`everySeconds` is needed."
)
_EVERY = f"So many seconds, 1 to {MAX_INTERVAL}, counted from 1970 UTC: of 3600 each full hour."
_ZONE = "The zone of the IANA database in which `cron` is meant, as `Europe/Berlin`; UTC where left out."


def preview_schedule(
    info: Info,
    *,
    cron: Annotated[str | None, strawberry.argument(description=_CRON)] = strawberry.UNSET,
    every_seconds: Annotated[int | None, strawberry.argument(description=_EVERY)] = strawberry.UNSET,
    time_zone: Annotated[str | None, strawberry.argument(description=_ZONE)] = "UTC",
    first: Annotated[
        int | None, strawberry.argument(description=f"How many moments: 1 to {MAX_PREVIEWED}.")
    ] = DEFAULT_PREVIEWED,
    after: Annotated[
        datetime | None, strawberry.argument(description="Those after this moment; after now where left out.")
    ] = strawberry.UNSET,
) -> list[datetime]:
    """Return when such a schedule would be due.

    :raises InvalidArgument: if it could not be a schedule, or for a number out of range.
    """
    first = DEFAULT_PREVIEWED if first is None else first
    now = clock.now()
    try:
        recurrence = checked_recurrence(_given(cron), _given(every_seconds), time_zone or "UTC", now)
        info.context.budget.take(max(first, 0))
        return recurrence.preview(after or now, first)
    except InvalidRequest as invalid:
        raise argument_fault(invalid) from None


def _given(value: _T | None) -> _T | None:
    return None if value is strawberry.UNSET else value


# The mutations.


@strawberry.input
class ScheduleSettings:
    """The fields of all inputs of schedules; each adds its ``payload``."""

    name: str = strawberry.field(
        description="What it is called: 1 to 64 letters of ASCII, digits, `_` or `-`. One of that name is replaced."
    )
    cron: str | None = strawberry.field(default=strawberry.UNSET, description=_CRON)
    every_seconds: int | None = strawberry.field(default=strawberry.UNSET, description=_EVERY)
    time_zone: str | None = strawberry.field(default="UTC", description=_ZONE)
    priority: JobPriority | None = strawberry.field(
        default=JobPriority.NORMAL, description="Which job starts first when workers are busy."
    )
    tags: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="The tags of its jobs: at most 32, of 1 to 255 printable characters each.",
    )
    overlap: OverlapPolicy | None = strawberry.field(
        default=OverlapPolicy.SKIP, description="What becomes of a tick while a job of an earlier one has not ended."
    )
    catch_up_seconds: int | None = strawberry.field(
        default=60,
        description=f"How late a tick may be made up for after an outage: 0 to {MAX_CATCH_UP}. Older ones are skipped.",
    )
    spread_seconds: int | None = strawberry.field(
        default=0,
        description=f"Spread the ticks of many schedules over so many seconds, 0 to {MAX_SPREAD}: each is late by a "
        "part of it that follows from its name.",
    )
    paused: bool | None = strawberry.field(
        default=False, description="Whether it has no ticks until it is upserted without this."
    )


@strawberry.input(
    name="RawScheduleInput",
    description="What is to be done again and again, with a payload that is given as it is stored: for clients that "
    "have the models of the job types.",
)
class RawScheduleInput(ScheduleSettings):
    """The input of ``upsertRawSchedule``."""

    type: str = strawberry.field(description="The name of the job type, as `Job.type` says it.")
    payload: str = strawberry.field(
        description="The payload as a JSON text, with the keys and the values that `payloadSchema` of the type has."
    )


@strawberry.type(description="A schedule that was defined.")
class SchedulePayload:
    """What ``upsertSchedule`` returns."""

    schedule: Schedule = strawberry.field(description="As it is now.")


@strawberry.type(description="The deletion of a schedule.")
class DeleteSchedulePayload:
    """What ``deleteSchedule`` returns."""

    deleted: bool = strawberry.field(description="False if there was no schedule of that name.")


def schedule_mutations(registered: RegisteredTypes, payload_input: Any) -> Sequence[Any]:
    """Return the mutations that define and delete schedules.

    :param payload_input: the @oneOf input of payloads.
    """

    @strawberry.input(
        name="ScheduleInput", description="What is to be done again and again, when, and what becomes of missed ticks."
    )
    class ScheduleInput(ScheduleSettings):
        payload: Any = strawberry.field(
            graphql_type=payload_input, description="What to do: exactly one member, named after the job type."
        )

    async def upsert_schedule(
        info: Info,
        input: Annotated[  # noqa: A002 -- the schema's name
            dict[str, Any], strawberry.argument(description="The schedule.", graphql_type=ScheduleInput)
        ],
    ) -> SchedulePayload:
        _check_operator(info.context)
        job_type, payload = member_payload(input["payload"], registered, "input.payload")
        return await _upsert(input, job_type, payload, info.context)

    async def upsert_raw_schedule(
        info: Info,
        input: Annotated[  # noqa: A002 -- the schema's name
            dict[str, Any], strawberry.argument(description="The schedule.", graphql_type=RawScheduleInput)
        ],
    ) -> SchedulePayload:
        _check_operator(info.context)
        job_type = known_type(input["type"], registered, "input.type")
        payload = text_payload(job_type, input["payload"], "input.payload")
        return await _upsert(input, job_type, payload, info.context)

    return [
        strawberry.mutation(
            upsert_schedule,
            description="Define a schedule, or replace the one of this name. To ask for the same again changes "
            "nothing; a change cancels the jobs that were made ahead, and makes them anew.",
        ),
        strawberry.mutation(
            upsert_raw_schedule,
            description="The same as `upsertSchedule`, of a payload that is given as it is stored.",
        ),
        strawberry.mutation(
            _pause_schedule,
            name="pauseSchedule",
            description="Have a schedule be without ticks, or with `paused: false` have ticks again from now on; its "
            "payload need not be given again. What was made ahead of a schedule that is paused is cancelled.",
        ),
        strawberry.mutation(
            _delete_schedule,
            name="deleteSchedule",
            description="Delete a schedule and cancel its jobs that have not been queued yet.",
        ),
    ]


async def _upsert(
    given: dict[str, Any], job_type: JobType, payload: AcceptedPayload, context: Context
) -> SchedulePayload:
    asked = {name: value for name, value in given.items() if name not in {"type", "payload"}}
    try:
        definition = ScheduleDefinition.of(job_type=job_type, payload=payload, **asked)
        message = await context.services().schedules.upsert(definition, context.session.viewer)
    except InvalidRequest as invalid:
        raise argument_fault(invalid, "input") from None
    return SchedulePayload(schedule=await _written(message, context))


async def _pause_schedule(
    info: Info,
    name: Annotated[str, strawberry.argument(description="The schedule's name.")],
    paused: Annotated[bool | None, strawberry.argument(description="False to have it go on.")] = True,
) -> SchedulePayload:
    context = info.context
    _check_operator(context)
    try:
        name = check_schedule_name(name)
    except InvalidRequest as invalid:
        raise argument_fault(invalid) from None
    is_paused = paused is not False
    message = await context.services().schedules.pause(name, context.session.viewer, paused=is_paused)
    return SchedulePayload(schedule=await _written(message, context))


async def _written(message: SteeringMessage, context: Context) -> Schedule:
    """Return a schedule that was just stored, once this process has heard of it."""
    await context.services().feed.wait_for(message.seq, _APPLIED_WITHIN)
    schedule = read_schedule(message)
    assert schedule is not None
    return _present(schedule)


async def _delete_schedule(
    info: Info, name: Annotated[str, strawberry.argument(description="The schedule's name.")]
) -> DeleteSchedulePayload:
    context = info.context
    _check_operator(context)
    services = context.services()
    try:
        name = check_schedule_name(name)
    except InvalidRequest:
        return DeleteSchedulePayload(deleted=False)
    deleted, seq = await services.schedules.delete(name, context.session.viewer)
    await services.feed.wait_for(seq, _APPLIED_WITHIN)
    return DeleteSchedulePayload(deleted=deleted)


def _check_operator(context: Context) -> None:
    """Refuse a viewer with a tenant or limits.

    :raises Forbidden: because the jobs of a schedule are nobody's in particular.
    """
    if not context.session.viewer.may_operate_all:
        raise Forbidden("Schedules are those of all: whoever has a tenant or limits may not change or run them.")


async def run_one(name: str, context: Context) -> model.Job:
    """Create a job of a schedule at once, and return it as the index has it.

    :raises Forbidden: for a viewer with a tenant or limits.
    :raises InvalidArgument: if there is no such schedule, or its type or payload fits no more.
    """
    _check_operator(context)
    services = context.services()
    context.count_creations(1)
    try:
        created = await services.schedules.run(check_schedule_name(name), context.session.viewer)
    except InvalidRequest as invalid:
        raise argument_fault(invalid) from None
    return await services.feed.read_back(created)
