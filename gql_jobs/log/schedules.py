"""The commands about schedules: define, delete and run them, and make the jobs of their ticks.

A schedule and what has been made of it are steering messages. What is ahead of a schedule that is changed or deleted is
cancelled here, and by the holder of the gate once more, in case a process ends in between: each step can be repeated.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct
from pydantic_core import from_json

from gql_jobs import clock
from gql_jobs.jobs.built_payloads import accept_built, built_payload
from gql_jobs.jobs.coded_schedules import CodedSchedules
from gql_jobs.jobs.errors import GqlJobsError, InvalidArgument, InvalidState, NotFound, QueueUnavailable
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.jobs.model import JobPriority, JobStatus, OverlapPolicy, Spec
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPart, StoredPayloads
from gql_jobs.jobs.payloads import AcceptedPayload, ModelMismatch, accept
from gql_jobs.jobs.recurrence import Recurrence, checked_recurrence
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.jobs.requests import InvalidRequest, JobRequest, TickPlace, request_hash
from gql_jobs.jobs.schedules import (
    HELD,
    MAX_CATCH_UP,
    MAX_SPREAD,
    SCHEDULE,
    SCHEDULE_STATE,
    Schedule,
    ScheduleState,
    check_schedule_name,
    check_seconds,
    settled,
    state_of,
)
from gql_jobs.jobs.viewer import ANYBODY, Viewer
from gql_jobs.log.commands import Created, JobCommands, storable
from gql_jobs.log.job_log import JobLog, Superseded, folded
from gql_jobs.log.retention import expired_event
from gql_jobs.log.steering import SteeringLog, as_value

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_TRIES = 10
"""How often a step is decided again because others have written."""
_SAID_BY_CODE = ("recurrence", "priority", "tags", "overlap", "catch_up_seconds", "spread_seconds", "paused")
"""What code says of a schedule besides its name, its type and its payload."""


class UnknownSchedule(NotFound):
    """No schedule has this name."""

    def __init__(self, name: str) -> None:
        GqlJobsError.__init__(self, f"There is no schedule {name!r}.", schedule=name)


class ScheduleDefinition(Struct, frozen=True, kw_only=True):
    """What a client or a program asks for, within its limits; ``payload`` has been read by the model of its type."""

    name: str
    job_type: JobType
    payload: AcceptedPayload
    recurrence: Recurrence
    priority: JobPriority = JobPriority.NORMAL
    tags: tuple[str, ...] = ()
    overlap: OverlapPolicy = OverlapPolicy.SKIP
    catch_up_seconds: int = 60
    spread_seconds: int = 0
    paused: bool = False
    source: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        job_type: JobType,
        payload: AcceptedPayload,
        *,
        cron: str | None = None,
        every_seconds: int | None = None,
        time_zone: str | None = None,
        priority: JobPriority | None = None,
        tags: Sequence[str] | None = None,
        overlap: OverlapPolicy | None = None,
        catch_up_seconds: int | None = None,
        spread_seconds: int | None = None,
        paused: bool | None = None,
    ) -> "ScheduleDefinition":
        """Return what a client asks for; what is None is as by default.

        :raises InvalidRequest: for a value outside its limits, but for tags, which the request of a job checks.
        """
        check_schedule_name(name)
        recurrence = checked_recurrence(cron, every_seconds, time_zone or "UTC", clock.now())
        if catch_up_seconds is not None:
            check_seconds("catch_up_seconds", catch_up_seconds, MAX_CATCH_UP)
        if spread_seconds is not None:
            check_seconds("spread_seconds", spread_seconds, MAX_SPREAD)
        given: dict[str, Any] = {
            "priority": priority,
            "tags": tuple(tags) if tags is not None else None,
            "overlap": overlap,
            "catch_up_seconds": catch_up_seconds,
            "spread_seconds": spread_seconds,
            "paused": paused,
        }
        told = {field: value for field, value in given.items() if value is not None}
        return cls(name=name, job_type=job_type, payload=payload, recurrence=recurrence, **told)

    def request(self, tick: TickPlace, run_at: datetime | None = None) -> JobRequest:
        """Return the creation of one of its jobs.

        :raises InvalidRequest: for tags outside their limits.
        """
        return JobRequest.of(
            self.job_type, self.payload, priority=self.priority, run_at=run_at, tags=self.tags, tick=tick
        )


class StoredState(NamedTuple):
    """What has been made of a schedule, and the sequence of the message that says so; 0 if there is none."""

    state: ScheduleState | None
    seq: int


class ScheduleCommands:
    """The commands of one process about schedules."""

    def __init__(self, job_log: JobLog, commands: JobCommands, registry: Registry, stored: StoredPayloads) -> None:
        """Write to ``job_log``.

        :param commands: create and cancel the jobs.
        :param registry: the types whose jobs can be made here.
        :param stored: how payloads are stored.
        """
        self._log = job_log
        self._steering = SteeringLog(job_log)
        self._commands = commands
        self._registry = registry
        self._stored = stored

    async def upsert(self, definition: ScheduleDefinition, viewer: Viewer = ANYBODY) -> SteeringMessage:
        """Store a schedule, unless there is just this one; return its message.

        If it replaces another one, what was ahead of that is cancelled; jobs that are due by then are left alone.

        :param viewer: who asks for it.
        :raises InvalidRequest: for tags outside their limits.
        :raises PayloadTooLarge: | CodecFailure: nothing was stored.
        :raises QueueUnavailable: if the server does not answer; it may have been stored then.
        :raises QueueFull: if the server has no room.
        """
        now = await self._log.server_time()
        new = self._stored_form(definition, viewer, now)
        digest = request_hash(new.type, definition.payload.sent)
        is_kept = False

        def decide(present: SteeringMessage | None) -> Raw | SteeringMessage | None:
            nonlocal is_kept
            known = read_schedule(present)
            if known is None or present is None:
                is_kept = False
                return as_value(new)
            is_kept = new.asks_for_the_same(known) and self._has_payload(known, digest)
            if new.source is not None:
                # What clients have changed since stays, as long as the code says what it did.
                is_said = (known.source, known.coded) == (new.source, new.coded)
                is_kept = is_said or (is_kept and known.source == new.source)
            if is_kept:
                return present
            kept = {"created_at": known.created_at, "created_by": known.created_by}
            if new.source is None:
                kept |= {"source": known.source, "coded": known.coded}
            return as_value(msgspec.structs.replace(new, **kept))

        message = await self._steering.change(SCHEDULE, definition.name, decide, actor=viewer.actor)
        assert message is not None
        if not is_kept and (stored := read_schedule(message)) is not None:
            await self.retire(definition.name, stored)
        return message

    async def pause(self, name: str, viewer: Viewer = ANYBODY, *, paused: bool) -> SteeringMessage:
        """Have a schedule be without ticks, or have ticks again from now on; return its message.

        :param viewer: who asks for it.
        :raises UnknownSchedule: if there is none.
        :raises QueueUnavailable: if the server does not answer, or its payload cannot be decoded here.
        """
        now, incarnation = await self._log.server_time(), str(uuid.uuid4())

        def decide(present: SteeringMessage | None) -> Raw | SteeringMessage | None:
            known = read_schedule(present)
            if known is None or present is None:
                raise UnknownSchedule(name)
            if known.paused == paused:
                return present
            return as_value(self._renewed(known, incarnation, now, paused=paused))

        message = await self._steering.change(SCHEDULE, name, decide, actor=viewer.actor)
        if message is None or (stored := read_schedule(message)) is None:
            raise UnknownSchedule(name)
        await self.retire(name, stored)
        return message

    def _renewed(self, known: Schedule, incarnation: str, now: datetime, *, paused: bool) -> Schedule:
        """Return a schedule as another incarnation, to which its payload is encoded anew."""
        changes = {"incarnation": incarnation, "since": now, "paused": paused}
        if not known.encoded:
            return msgspec.structs.replace(known, **changes)
        try:
            plain = bytes(self.payload(known))
            made = Raw(self._stored.encode(incarnation, spec_of(known), StoredPart.PAYLOAD, plain))
        except CodecFailure as failure:
            raise _undecodable(known) from failure
        return msgspec.structs.replace(known, payload=made, **changes)

    def _stored_form(self, definition: ScheduleDefinition, viewer: Viewer, now: datetime) -> Schedule:
        incarnation = str(uuid.uuid4())
        request = definition.request(TickPlace(definition.name))
        digest = request_hash(definition.job_type.name, definition.payload.sent)
        plain = Spec(
            type=definition.job_type.name,
            payload=Raw(definition.payload.sent),
            payload_hash=digest,
            queue=definition.job_type.queue,
            priority=request.priority,
            max_retries=0,
            timeout=1,
            created_at=now,
            secrets=definition.payload.secrets,
        )
        spec = storable(request, incarnation, plain, self._stored, self._log.max_payload)
        return Schedule(
            name=definition.name,
            incarnation=incarnation,
            since=now,
            type=spec.type,
            payload=spec.payload,
            payload_hash=spec.payload_hash,
            cron=definition.recurrence.cron,
            every_seconds=definition.recurrence.every_seconds,
            time_zone=definition.recurrence.time_zone,
            priority=request.priority,
            tags=request.tags,
            overlap=definition.overlap,
            catch_up_seconds=definition.catch_up_seconds,
            spread_seconds=definition.spread_seconds,
            paused=definition.paused,
            created_at=now,
            created_by=viewer.actor,
            secrets=spec.secrets,
            encoded=spec.encoded,
            source=definition.source,
            coded=self._coded(definition, digest) if definition.source is not None else None,
        )

    def _coded(self, definition: ScheduleDefinition, digest: str) -> str:
        """Return a digest of all that code says of a schedule."""
        said = [digest, *(getattr(definition, name) for name in _SAID_BY_CODE)]
        made = hashlib.sha256(msgspec.json.encode(said)).hexdigest()
        return made if self._stored.hash_key is None else self._stored.hash_key.sealed(made)

    async def synchronise(self, coded: CodedSchedules) -> None:
        """Store the schedules that code defines, and delete those that it has defined and does not any more.

        One that cannot be stored is logged: the others are, and the process serves.

        :raises QueueUnavailable: if the server does not answer.
        """
        for one in coded:
            try:
                job_type = self._registry.of_payload(type(one.payload), one.type)
                payload = accept_built(job_type.payload, built_payload(one.payload))
                shared = {name: getattr(one, name) for name in _SAID_BY_CODE}
                await self.upsert(
                    ScheduleDefinition(name=one.name, job_type=job_type, payload=payload, source=one.module, **shared)
                )
            except QueueUnavailable:
                raise
            except (LookupError, ModelMismatch, InvalidRequest, CodecFailure, GqlJobsError) as error:
                log.error("the schedule %s of %s was not stored: %s", one.name, one.module, error)  # noqa: TRY400
        for known in map(read_schedule, await self._steering.all(SCHEDULE)):
            if known is not None and known.source is not None and coded.is_dropped(known.name, known.source):
                log.info("the schedule %s is deleted: %s does not define it any more", known.name, known.source)
                await self.delete(known.name)

    def _has_payload(self, schedule: Schedule, digest: str) -> bool:
        """Return whether a stored schedule has the payload of this hash."""
        made = self._stored.alike(digest, schedule.payload_hash)
        if made is not None:
            return made == schedule.payload_hash
        # The key of its hash is not known any more.
        try:
            return request_hash(schedule.type, bytes(self.payload(schedule))) == digest
        except CodecFailure:
            return False

    def payload(self, schedule: Schedule) -> Raw:
        """Return the JSON of a schedule's payload, with its secrets.

        :raises CodecFailure: if it is encoded and cannot be decoded here.
        """
        return self._stored.payload(schedule.incarnation, spec_of(schedule))

    async def delete(self, name: str, viewer: Viewer = ANYBODY) -> tuple[bool, int]:
        """Delete a schedule, cancel what is ahead of it, and forget what has been made of it.

        :returns: whether there was one, and the sequence of the last message about it.
        :raises QueueUnavailable: if the server does not answer; it may have been deleted then.
        """
        was_there = False

        def decide(present: SteeringMessage | None) -> None:
            nonlocal was_there
            was_there = was_there or (present is not None and present.value is not None)

        message = await self._steering.change(SCHEDULE, name, decide, actor=viewer.actor)
        await self.retire(name, None)
        return was_there, message.seq if message is not None else 0

    async def run(self, name: str, viewer: Viewer = ANYBODY) -> Created:
        """Create a job of a schedule at once, outside of its ticks.

        :param viewer: who creates it.
        :raises UnknownSchedule: if there is none.
        :raises GqlJobsError: as ``request`` and a creation do.
        """
        return await self._commands.create(await self.request_to_run(name, viewer), viewer)

    async def request_to_run(self, name: str, viewer: Viewer = ANYBODY) -> JobRequest:
        """Return the creation of a job of a schedule outside of its ticks.

        :param viewer: who creates it.
        :raises UnknownSchedule: if there is none.
        :raises GqlJobsError: as ``request`` does.
        """
        schedule = await self.find(name)
        if schedule is None:
            raise UnknownSchedule(name)
        return self.request(schedule, TickPlace(name, created_by=viewer.actor))

    def request(self, schedule: Schedule, tick: TickPlace, due: datetime | None = None) -> JobRequest:
        """Return the creation of a job of a schedule.

        Defaults of its payload are drawn anew for each job.

        :raises InvalidArgument: if its type is not known here, or the payload does not fit the type any more.
        :raises QueueUnavailable: if its payload cannot be decoded here.
        """
        job_type = self._registry.get(schedule.type)
        if job_type is None:
            message = f"The schedule {schedule.name} has the type {schedule.type}, which is not known here."
            raise InvalidArgument("name", message)
        try:
            payload = accept(job_type.payload, from_json(bytes(self.payload(schedule))))
        except CodecFailure as failure:
            raise _undecodable(schedule) from failure
        except ModelMismatch:
            message = f"The payload of the schedule {schedule.name} does not fit its type any more; give it anew."
            raise InvalidArgument("name", message) from None
        return JobRequest.of(job_type, payload, priority=schedule.priority, run_at=due, tags=schedule.tags, tick=tick)

    async def make(self, schedule: Schedule, state: ScheduleState, tick: datetime) -> None:
        """Create the job of a tick, unless it has been.

        :raises GqlJobsError: as ``request`` and a creation do.
        """
        due = state.due(tick)
        # A clock that is moved passes over moments that no outage has kept from anybody.
        too_late = None if clock.advances is not None else due + schedule.catch_up
        place = TickPlace(schedule.name, state.job_id(tick), schedule.overlap, schedule.created_by, too_late)
        try:
            await self._commands.create(self.request(schedule, place, due))
        except NotFound:
            # It was made, has ended, and has expired.
            return

    # What there is, as the leader has it.

    async def find(self, name: str) -> Schedule | None:
        """Return a schedule; None if there is none.

        :raises QueueUnavailable: if the leader does not answer.
        """
        return read_schedule(await self._steering.read(SCHEDULE, name))

    async def all(self) -> list[Schedule]:
        """Return all schedules, sorted by name.

        :raises QueueUnavailable: if the leader does not answer.
        """
        found = map(read_schedule, await self._steering.all(SCHEDULE))
        return sorted((one for one in found if one is not None), key=lambda one: one.name)

    async def outcome(self, name: str) -> ScheduleState | None:
        """Return what has been made of a schedule, and what has become of that by now; None if nothing was made.

        Its ``last_job`` is one that there still is.

        :raises QueueUnavailable: if the leader does not answer.
        """
        state = (await self.state(name)).state
        if state is None:
            return None
        state = await self._settled(state, clock.now())
        if state.last_job is None or await self._commands.find(state.last_job) is not None:
            return state
        return msgspec.structs.replace(state, last_job=None)

    async def _settled(self, state: ScheduleState, now: datetime) -> ScheduleState:
        """Return a state with what has become of the ticks that are due, as their jobs tell."""
        due = [state.job_id(tick) for tick in state.ahead if state.due(tick) <= now]
        jobs = dict(zip(due, await asyncio.gather(*map(self._commands.find, due)), strict=True))
        return settled(state, now, jobs.get).state

    async def retire(self, name: str, schedule: Schedule | None) -> StoredState:
        """Cancel what is ahead of what had the name before; have the state be that of ``schedule``.

        :param schedule: what has the name now; None if nothing has. The state is forgotten then, but for when the last
            job was due that had started: whoever defines it anew at that moment must not make the tick once more.
        :returns: the state as it is then.
        :raises QueueUnavailable: if the server does not answer, or others keep writing.
        """
        for _ in range(_TRIES):
            present = await self._steering.read(SCHEDULE_STATE, name)
            state = read_state(present)
            if present is None or state is None:
                return StoredState(None, present.seq if present is not None else 0)
            if schedule is not None and state.incarnation == schedule.incarnation:
                return StoredState(state, present.seq)
            started = await self._cancel_ahead(name, state, schedule)
            if schedule is not None:
                # Nobody looks any more for what has become of what was due by then.
                new = state_of(schedule, await self._settled(state, schedule.since), started)
            elif started is None and state.started is None:
                new = None
            else:
                new = msgspec.structs.replace(state, ahead=(), started=started or state.started)
            if new == state:
                return StoredState(state, present.seq)
            value = as_value(new) if new is not None else None
            try:
                return StoredState(new, await self._steering.write(SCHEDULE_STATE, name, value, present.seq))
            except Superseded:
                continue
        raise QueueUnavailable(f"What is ahead of the schedule {name} keeps changing; try again.")

    async def state(self, name: str) -> StoredState:
        """Return what has been made of a schedule, as the leader has it.

        :raises QueueUnavailable: if the leader does not answer.
        """
        present = await self._steering.read(SCHEDULE_STATE, name)
        return StoredState(read_state(present), present.seq if present is not None else 0)

    async def write_state(self, name: str, state: ScheduleState | None, expected_seq: int) -> int:
        """Store what has been made of a schedule, in place of the message with this sequence; return the new one.

        :param state: None to forget it.
        :raises Superseded: if others have written since.
        :raises QueueUnavailable: if the server does not answer; it may have been stored then.
        """
        value = as_value(state) if state is not None else None
        return await self._steering.write(SCHEDULE_STATE, name, value, expected_seq)

    async def was_made(self, job_id: str) -> bool:
        """Return whether the stream has anything of the job of a tick.

        :raises QueueUnavailable: if the leader does not answer.
        """
        return bool(await self._log.history(job_id))

    async def _cancel_ahead(self, name: str, state: ScheduleState, schedule: Schedule | None) -> datetime | None:
        """Cancel the jobs that were made ahead and have not been queued.

        :param schedule: what has the name now: what was due by its beginning is left alone.
        :returns: when the last of those was due that could not be cancelled.
        """
        reason = f"The schedule {name} was {'deleted' if schedule is None else 'changed'}."
        started = None
        for tick in state.ahead:
            due = state.due(tick)
            if schedule is not None and due <= schedule.since:
                continue
            if not await self._cancel(state.job_id(tick), reason) and (started is None or due > started):
                started = due
        return started

    async def _cancel(self, job_id: str, reason: str) -> bool:
        """Cancel a job that has not been queued, or see to it that it is never made; return whether it never runs."""
        for _ in range(_TRIES):
            history = await self._log.history(job_id)
            job = folded(history)
            if job is None and history:
                return True
            try:
                if job is None:
                    # Somebody who was interrupted may be about to make it, and meets this then.
                    await self._log.append(expired_event(job_id, 0, 0))
                    return True
                if job.status not in HELD:
                    return job.status is JobStatus.CANCELLED
                await self._commands.cancel(job_id, moved_by=job.moved_at, reason=reason)
            except (Superseded, InvalidState):
                continue
            return True
        raise QueueUnavailable(f"Job {job_id} keeps changing; try again.")


def _undecodable(schedule: Schedule) -> QueueUnavailable:
    return QueueUnavailable(f"The payload of the schedule {schedule.name} cannot be decoded here.")


def read_schedule(message: SteeringMessage | None) -> Schedule | None:
    """Return the schedule that a steering message holds; None if it is removed or cannot be read."""
    return _read(message, _decode_schedule)


def read_state(message: SteeringMessage | None) -> ScheduleState | None:
    """Return the state that a steering message holds; None if it is removed or cannot be read."""
    return _read(message, _decode_state)


_decode_schedule = msgspec.json.Decoder(Schedule).decode
_decode_state = msgspec.json.Decoder(ScheduleState).decode


def _read(message: SteeringMessage | None, decode: Callable[[Raw], _T]) -> _T | None:
    if message is None or message.value is None:
        return None
    try:
        return decode(message.value)
    except msgspec.MsgspecError:
        return None


def spec_of(schedule: Schedule) -> Spec:
    """Return a spec with what is stored of a schedule's payload, to be decoded and shown as that of a job is."""
    return Spec(
        type=schedule.type,
        payload=schedule.payload,
        payload_hash=schedule.payload_hash,
        queue="",
        priority=schedule.priority,
        max_retries=0,
        timeout=1,
        created_at=schedule.created_at,
        secrets=schedule.secrets,
        encoded=schedule.encoded,
    )
