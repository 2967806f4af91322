"""Schedules beside the broker: written by the commands of the API, and read from the stream's leader."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from pydantic.alias_generators import to_camel

from gql_jobs import clock
from gql_jobs.client.creation import accepted_of_creation, log_code_of_type
from gql_jobs.client.nats_connection import NatsConnection, client_error
from gql_jobs.client.schedule_options import named_as_options
from gql_jobs.client.snapshots import shown_payload
from gql_jobs.client.transport import AskedRecurrence, AskedSchedule, ScheduleSnapshot
from gql_jobs.jobs.errors import GqlJobsError, InvalidArgument
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPayloads
from gql_jobs.jobs.recurrence import DEFAULT_PREVIEWED, checked_recurrence
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.requests import InvalidRequest, TickPlace
from gql_jobs.jobs.schedules import Schedule, check_schedule_name
from gql_jobs.jobs.secret_fields import REDACTED
from gql_jobs.log.schedules import ScheduleCommands, ScheduleDefinition, read_schedule, spec_of

_T = TypeVar("_T")
_LOOKUPS_AT_ONCE = 20
"""Schedules of which it is looked up at once what has become of them."""


class NatsSchedules:
    """The schedules in the log. Whoever may write there is trusted like an operator, and is named nowhere."""

    def __init__(self, nats: NatsConnection, stored: StoredPayloads) -> None:
        """Ask over ``nats``.

        :param stored: how payloads are stored.
        """
        self._nats = nats
        self._stored = stored

    async def upsert(self, asked: AskedSchedule) -> ScheduleSnapshot:
        """Define a schedule, or replace the one of this name; again after a lost answer, which changes nothing more."""
        with _refused():
            definition = ScheduleDefinition.of(
                asked.name,
                asked.payload.job_type,
                accepted_of_creation(asked.payload),
                cron=asked.recurrence.cron,
                every_seconds=asked.recurrence.every,
                time_zone=asked.recurrence.time_zone,
                priority=asked.priority,
                tags=asked.tags,
                overlap=asked.overlap,
                catch_up_seconds=asked.catch_up,
                spread_seconds=asked.spread,
                paused=asked.paused,
            )
            is_confidential = definition.request(TickPlace(asked.name)).is_secret
            await self._nats.patiently(lambda: self._nats.know_hash_key(is_confidential=is_confidential))
            message = await self._repeatably(lambda commands: commands.upsert(definition))
        return await self._written(message)

    async def pause(self, name: str, *, paused: bool) -> ScheduleSnapshot:
        """Have a schedule be without ticks, or have ticks again; again after a lost answer."""
        with _refused():
            check_schedule_name(name)
        return await self._written(await self._repeatably(lambda commands: commands.pause(name, paused=paused)))

    async def delete(self, name: str) -> bool:
        """Delete a schedule; again after a try that was not acknowledged, which may have deleted it."""
        if not _can_be_one(name):
            return False
        was_there = False

        async def delete(commands: ScheduleCommands) -> bool:
            nonlocal was_there
            was_there = was_there or await commands.find(name) is not None
            deleted, _ = await commands.delete(name)
            return deleted

        return await self._repeatably(delete) or was_there

    async def run(self, name: str) -> str:
        """Create a job of a schedule, and return its id; not again after a lost answer, which might run it twice."""
        load_job_types()
        with _refused():
            check_schedule_name(name)
            request = await self._repeatably(lambda commands: commands.request_to_run(name))
            await self._nats.patiently(lambda: self._nats.know_hash_key(is_confidential=request.is_secret))
            session = await self._nats.session()
            return (await self._nats.patiently(lambda: session.commands.create(request))).id

    async def all(self) -> list[ScheduleSnapshot]:
        """Return all schedules, sorted by name: a few requests for each of them."""
        found = await self._repeatably(lambda commands: commands.all())
        at_once = asyncio.Semaphore(_LOOKUPS_AT_ONCE)

        async def shown(schedule: Schedule) -> ScheduleSnapshot:
            async with at_once:
                return await self._shown(schedule)

        return await asyncio.gather(*map(shown, found))

    async def find(self, name: str) -> ScheduleSnapshot | None:
        """Return a schedule; None if there is none."""
        if not _can_be_one(name):
            return None
        found = await self._repeatably(lambda commands: commands.find(name))
        return await self._shown(found) if found is not None else None

    async def preview(self, asked: AskedRecurrence, first: int | None, after: datetime | None) -> list[datetime]:
        """Return when a schedule would be due, by the time zones of this machine."""
        now = clock.now()
        with _refused():
            recurrence = checked_recurrence(asked.cron, asked.every, asked.time_zone or "UTC", now)
            after = after.replace(tzinfo=UTC) if after is not None and after.tzinfo is None else after
            return recurrence.preview(after or now, DEFAULT_PREVIEWED if first is None else first)

    async def _repeatably(self, ask: Callable[[ScheduleCommands], Awaitable[_T]]) -> _T:
        """Return what is asked of the commands, and ask again where NATS does not answer, also if it may be done."""
        session = await self._nats.session()
        return await self._nats.patiently(lambda: ask(session.schedules), [])

    async def _written(self, message: SteeringMessage) -> ScheduleSnapshot:
        schedule = read_schedule(message)
        assert schedule is not None
        return await self._shown(schedule)

    async def _shown(self, schedule: Schedule) -> ScheduleSnapshot:
        """Return a schedule with what has become of its ticks by now."""
        state = await self._repeatably(lambda commands: commands.outcome(schedule.name))
        return ScheduleSnapshot(
            name=schedule.name,
            type=schedule.type,
            cron=schedule.cron,
            every=schedule.every_seconds,
            time_zone=schedule.time_zone,
            overlap=schedule.overlap,
            catch_up=schedule.catch_up_seconds,
            spread=schedule.spread_seconds,
            paused=schedule.paused,
            priority=schedule.priority,
            tags=schedule.tags,
            payload=self._payload(schedule),
            created_at=schedule.created_at,
            created_by=schedule.created_by,
            changed_at=schedule.since,
            defined_by=schedule.source,
            next_runs=tuple(schedule.next_runs(clock.now(), DEFAULT_PREVIEWED)),
            last_job=state.last_job if state is not None else None,
            skipped=state.skipped if state is not None else 0,
        )

    def _payload(self, schedule: Schedule) -> bytes:
        """Return the JSON of a schedule's payload without secrets, as the API shows it."""
        spec = spec_of(schedule)
        try:
            return shown_payload(spec, self._stored.payload(schedule.incarnation, spec))
        except CodecFailure:
            # It is one of many, and the others can be read.
            return msgspec.json.encode(REDACTED)


def _can_be_one(name: str) -> bool:
    try:
        check_schedule_name(name)
    except InvalidRequest:
        return False
    return True


@contextmanager
def _refused() -> Iterator[None]:
    """Raise what is wrong with a schedule as a client gets it, by the names that options have."""
    try:
        yield
    except InvalidRequest as invalid:
        log_code_of_type(invalid)
        name = to_camel(invalid.field)
        where = name if invalid.index is None else f"{name}.{invalid.index}"
        raise named_as_options(client_error(InvalidArgument(where, invalid.problem.format(name)))) from None
    except (GqlJobsError, CodecFailure) as error:
        raise client_error(error) from error
