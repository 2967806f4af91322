"""Schedules by the operations of the API, which keeps what has been made of each."""

from datetime import datetime
from typing import Any, TypeVar

from msgspec import Raw, Struct

from gql_jobs.client.api_connections import ApiConnections
from gql_jobs.client.errors import ClientError, InvalidArgument, InvalidPayload
from gql_jobs.client.schedule_options import named_as_options
from gql_jobs.client.transport import AskedRecurrence, AskedSchedule, ScheduleSnapshot
from gql_jobs.jobs.model import JobPriority, OverlapPolicy

_OF_SCHEDULE = (
    "name type cron everySeconds timeZone priority tags overlap catchUpSeconds spreadSeconds paused createdAt "
    "createdBy changedAt definedBy rawPayload nextRuns lastJob { id } skipped"
)
_T = TypeVar("_T")
_PAGE = 100
_SCHEDULES = f"query Schedules($after: String) {{ schedules(first: {_PAGE}, after: $after) {{ {_OF_SCHEDULE} }} }}"
_ONE = f"query Schedule($name: String!) {{ schedule(name: $name) {{ {_OF_SCHEDULE} }} }}"
_PREVIEW = """query Preview($cron: String, $everySeconds: Int, $timeZone: String, $first: Int, $after: DateTime) {
  schedulePreview(cron: $cron, everySeconds: $everySeconds, timeZone: $timeZone, first: $first, after: $after)
}"""
_UPSERT = f"""mutation Upsert($input: RawScheduleInput!) {{
  upsertRawSchedule(input: $input) {{ schedule {{ {_OF_SCHEDULE} }} }}
}}"""
_PAUSE = f"""mutation PauseSchedule($name: String!, $paused: Boolean!) {{
  pauseSchedule(name: $name, paused: $paused) {{ schedule {{ {_OF_SCHEDULE} }} }}
}}"""
_DELETE = "mutation DeleteSchedule($name: String!) { deleteSchedule(name: $name) { deleted } }"
_RUN = "mutation RunSchedule($name: String!) { runSchedule(name: $name) { job { id } } }"


class JobOfSchedule(Struct, frozen=True):
    """A job, by its id alone."""

    id: str


class ShownSchedule(Struct, frozen=True, kw_only=True, rename="camel"):
    """A schedule as the API shows it."""

    name: str
    type: str
    cron: str | None
    every_seconds: int | None
    time_zone: str
    priority: str
    tags: tuple[str, ...]
    overlap: str
    catch_up_seconds: int
    spread_seconds: int
    paused: bool
    created_at: datetime
    created_by: str | None
    changed_at: datetime
    defined_by: str | None
    raw_payload: Raw
    next_runs: tuple[datetime, ...]
    last_job: JobOfSchedule | None
    skipped: int

    def snapshot(self) -> ScheduleSnapshot:
        """Return it with the names and kinds that clients are given."""
        return ScheduleSnapshot(
            name=self.name,
            type=self.type,
            cron=self.cron,
            every=self.every_seconds,
            time_zone=self.time_zone,
            overlap=OverlapPolicy[self.overlap],
            catch_up=self.catch_up_seconds,
            spread=self.spread_seconds,
            paused=self.paused,
            priority=JobPriority[self.priority],
            tags=self.tags,
            payload=bytes(self.raw_payload),
            created_at=self.created_at,
            created_by=self.created_by,
            changed_at=self.changed_at,
            defined_by=self.defined_by,
            next_runs=self.next_runs,
            last_job=self.last_job.id if self.last_job is not None else None,
            skipped=self.skipped,
        )


class ScheduleAnswer(Struct, frozen=True):
    """What ``upsertRawSchedule`` and ``pauseSchedule`` answer."""

    schedule: ShownSchedule


class ScheduleDeletion(Struct, frozen=True):
    """What ``deleteSchedule`` answers."""

    deleted: bool


class ScheduleRun(Struct, frozen=True):
    """What ``runSchedule`` answers."""

    job: JobOfSchedule


class ScheduleCalls:
    """The operations of one API that are about schedules."""

    def __init__(self, api: ApiConnections) -> None:
        self._api = api

    async def upsert(self, asked: AskedSchedule) -> ScheduleSnapshot:
        """Define a schedule, or replace the one of this name; again after a lost answer, which changes nothing more."""
        payload, recurrence = asked.payload, asked.recurrence
        fields = {
            "name": asked.name,
            "type": payload.job_type.name,
            # Without what factories of defaults drew: that is drawn for each job.
            "payload": (payload.sent or payload.payload).decode(),
            "cron": recurrence.cron,
            "everySeconds": recurrence.every,
            "timeZone": recurrence.time_zone,
            "overlap": asked.overlap.name if asked.overlap is not None else None,
            "catchUpSeconds": asked.catch_up,
            "spreadSeconds": asked.spread,
            "paused": asked.paused,
            "priority": asked.priority.name if asked.priority is not None else None,
            "tags": list(asked.tags) if asked.tags is not None else None,
        }
        return (await self._ask(_UPSERT, {"input": _given(fields)}, ScheduleAnswer)).schedule.snapshot()

    async def pause(self, name: str, *, paused: bool) -> ScheduleSnapshot:
        """Have a schedule be without ticks, or have ticks again; again after a lost answer."""
        return (await self._ask(_PAUSE, {"name": name, "paused": paused}, ScheduleAnswer)).schedule.snapshot()

    async def delete(self, name: str) -> bool:
        """Delete a schedule; again after a lost answer, which may have been that it was there."""
        doubts: list[ClientError] = []
        return (await self._ask(_DELETE, {"name": name}, ScheduleDeletion, doubts=doubts)).deleted or bool(doubts)

    async def run(self, name: str) -> str:
        """Create a job of a schedule, and return its id; not again after a lost answer, which might run it twice."""
        return (await self._ask(_RUN, {"name": name}, ScheduleRun, repeatable=False)).job.id

    async def all(self) -> list[ScheduleSnapshot]:
        """Return all schedules, sorted by name."""
        found: list[ScheduleSnapshot] = []
        while True:
            after = found[-1].name if found else None
            page = await self._ask(_SCHEDULES, {"after": after}, list[ShownSchedule])
            found += [one.snapshot() for one in page]
            if len(page) < _PAGE:
                return found

    async def find(self, name: str) -> ScheduleSnapshot | None:
        """Return a schedule; None if there is none."""
        found = await self._api.ask_for(_ONE, {"name": name}, ShownSchedule)
        return found.snapshot() if found is not None else None

    async def preview(self, asked: AskedRecurrence, first: int | None, after: datetime | None) -> list[datetime]:
        """Return when a schedule would be due."""
        fields = {
            "cron": asked.cron,
            "everySeconds": asked.every,
            "timeZone": asked.time_zone,
            "first": first,
            "after": after,
        }
        return await self._ask(_PREVIEW, _given(fields), list[datetime])

    async def _ask(self, document: str, variables: dict[str, Any], kind: type[_T], **how: Any) -> _T:
        """Return what is answered, and raise errors with the names that options have."""
        try:
            return await self._api.ask(document, variables, kind, **how)
        except (InvalidArgument, InvalidPayload) as error:
            raise named_as_options(error) from None


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if value is not None}
