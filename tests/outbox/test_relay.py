"""Rows of an outbox on their way into the log: once each, whoever is killed or away, and those that cannot go there."""

import asyncio
import json
import logging
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import Field
from sqlalchemy.orm import Session

from gql_jobs import Model, outbox
from gql_jobs.client import Key, errors
from gql_jobs.client.nats_transport import NatsTransport
from gql_jobs.client.transport import CreatedJob, Creation
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.registry import JobType, registry
from gql_jobs.log.commands import JobCommands
from gql_jobs.outbox.database import Moved, OutboxDatabase, PutBack, SetAside
from gql_jobs.outbox.relay import UNKNOWN_OUTCOME, OtherTenant, OutboxAway
from gql_jobs.settings import Settings
from tests.by_hand import stored
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.outbox.conftest import RelayOf, Shop, moving


class TicketPayload(Model):
    """A payload for which something is drawn."""

    seat: str
    number: str = Field(default_factory=lambda: str(uuid.uuid4()))


@pytest.fixture
def ticket() -> Iterator[JobType]:
    """Its type, known for one test."""
    added = registry.add(JobType("ticket", TicketPayload, None, "tests.job_types.probe_handlers:run"))
    yield added
    del registry._types["ticket"]  # noqa: SLF001


LONG_AGO = datetime.now(UTC) - timedelta(days=6)
"""More than half of the retention, less than all of it."""


async def test_rows_become_jobs_in_the_order_of_their_creation_and_are_deleted(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands
) -> None:
    ids = shop.create(*(ProbePayload(steps=number) for number in range(250)), priority="high", tags=["order"])
    left = await relay_of(transport).move_all()
    assert (left.waiting, shop.rows()) == (0, [])
    found = [await commands.find(job_id) for job_id in ids]
    assert [bytes(job.spec.payload) for job in found if job is not None] == [
        b'{"steps":%d}' % number for number in range(250)
    ]
    created = [job.spec.created_at for job in found if job is not None]
    assert created == sorted(set(created))
    assert all(job is not None and job.spec.tags == ("order",) for job in found)


async def test_a_row_is_moved_soon_after_its_transaction_has_committed(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands
) -> None:
    async with moving(relay_of(transport)):
        for _ in range(3):
            (job_id,) = shop.create(ProbePayload())
            await until(partial(commands.find, job_id), "the row is a job")
        await until(lambda: shop.rows() == [], "the rows are deleted")


async def test_a_job_may_be_made_of_another_one_of_the_same_transaction(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands
) -> None:
    with Session(shop.engine) as session, session.begin():
        first = outbox.create(session, ProbePayload(), type="probe")
        second = outbox.create(session, ProbePayload(), type="probe", origin=first)
    await relay_of(transport).move_all()
    job = await commands.find(second)
    assert job is not None
    assert job.spec.origin == first


async def test_two_relays_at_once_move_each_row_once(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, settings: Settings, commands: JobCommands
) -> None:
    ids = shop.create(*[ProbePayload()] * 500)
    other = NatsTransport(settings)
    relays = [relay_of(transport), relay_of(other)]
    await asyncio.gather(*(relay.move_all() for relay in relays))
    await other.close()
    moved = [relay.counts["moved"] for relay in relays]
    assert (sum(moved), [relay.counts["repeated"] for relay in relays]) == (500, [0, 0])
    assert all(moved)
    assert shop.rows() == []
    assert None not in [await commands.find(job_id) for job_id in ids]


async def test_two_rows_with_one_key_that_ask_for_the_same_are_one_job_whatever_was_drawn_for_them(
    ticket: JobType, shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands
) -> None:
    with Session(shop.engine) as session, session.begin():
        ids = {outbox.create(session, TicketPayload(seat="7a"), key="seat-7a") for _ in range(2)}
    drawn = [json.loads(row.payload)["number"] for row in shop.rows()]
    relay = relay_of(transport)
    await relay.move_all()
    assert (shop.rows(), relay.counts["moved"], relay.counts["repeated"]) == ([], 1, 1)
    (job_id,) = ids
    job = await commands.find(job_id)
    assert job is not None
    assert (job.spec.type, json.loads(bytes(job.spec.payload))) == (ticket.name, {"seat": "7a", "number": drawn[0]})
    assert drawn[0] != drawn[1]


class Killed(BaseException):
    """The process ends here."""


class CutOff:
    """A way into the log whose process is killed before or after something was stored."""

    largest_batch, largest_batch_bytes = 100, 1 << 20

    def __init__(self, transport: NatsTransport, *, before: bool) -> None:
        self._transport = transport
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def create(self, creations: Sequence[Creation]) -> list[CreatedJob]:
        if not self._before:
            await self._transport.create(creations)
        raise Killed


@pytest.mark.parametrize("before", [True, False])
async def test_what_a_killed_relay_had_claimed_is_sent_again_and_is_one_job_each(
    before: bool, shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands
) -> None:
    ids = shop.create(*[ProbePayload()] * 3)
    with pytest.raises(Killed):
        await relay_of(CutOff(transport, before=before)).move_all()
    relay = relay_of(transport)
    left = await relay.move_all()
    assert left.waiting == 3, "another relay may be sending them still"
    shop.change(due_at=datetime.now(UTC))
    assert (await relay.move_all()).waiting == 0
    # The first of them goes alone.
    assert (relay.counts["moved"], relay.counts["repeated"]) == ((3, 0) if before else (2, 1))
    assert None not in [await commands.find(job_id) for job_id in ids]


async def test_while_nats_is_away_rows_wait_and_count_as_never_sent(
    shop: Shop, relay_of: RelayOf, settings: Settings, transport: NatsTransport, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = NatsTransport(settings.model_copy(update={"nats_url": "nats://127.0.0.1:1"}), patience=0.05)
    ids = shop.create(ProbePayload(), ProbePayload())
    relay = relay_of(nowhere)
    with pytest.raises(OutboxAway):
        await relay.move_all()
    async with moving(relay):
        await until(lambda: relay.away is not None, "the relay says so")
        await until(lambda: shop.rows()[0].attempts > 2, "it tries again")
    await nowhere.close()
    assert [row.job_id for row in shop.rows()] == ids
    assert [(row.attempted_at, row.set_aside_at) for row in shop.rows()] == [(None, None)] * 2
    assert [record.getMessage() for record in caplog.records if "wait" in record.getMessage()] != []
    relay = relay_of(transport)
    await relay.move_all()
    assert relay.counts["moved"] == 2


async def test_a_row_that_is_refused_for_good_is_set_aside_with_its_error_and_the_others_go_on(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands, caplog: pytest.LogCaptureFixture
) -> None:
    before = shop.create(ProbePayload(), key="taken")
    await relay_of(transport).move_all()
    shop.create(ProbePayload(steps=1), key="taken")
    (unreadable,) = shop.create(ProbePayload())
    shop.change(payload='{"steps":"many"}')
    after = shop.create(ProbePayload(), ProbePayload())
    relay = relay_of(transport)
    left = await relay.move_all()
    assert (left.waiting, left.set_aside) == (0, 2)
    conflict, invalid = shop.rows()
    assert (conflict.job_id, invalid.job_id) == (before[0], unreadable)
    assert (invalid.code, invalid.set_aside_at is not None) == ("INVALID_PAYLOAD", True)
    assert invalid.error is not None
    assert "steps" in invalid.error
    assert None not in [await commands.find(job_id) for job_id in after]
    assert await commands.find(unreadable) is None
    reported = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert {getattr(record, "job_id", None) for record in reported} == {before[0], unreadable}
    assert relay.counts == {"moved": 2, "repeated": 0, "set_aside": 2}


async def test_a_row_that_is_set_aside_is_sent_again_when_it_is_asked_for(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, database: OutboxDatabase, commands: JobCommands
) -> None:
    (job_id,) = shop.create(ProbePayload())
    shop.change(payload='{"steps":"many"}')
    await relay_of(transport).move_all()
    (told,) = database.set_aside_rows(10)
    assert (told.job_id, told.type, told.code) == (job_id, "probe", "INVALID_PAYLOAD")
    shop.change(payload='{"steps":3}')
    assert database.send_again([told.id, told.id + 1]) == 1
    await relay_of(transport).move_all()
    assert await commands.find(job_id) is not None
    assert shop.rows() == []


async def test_a_row_whose_options_cannot_be_read_is_set_aside(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport
) -> None:
    shop.create(ProbePayload())
    shop.change(options="{}")
    await relay_of(transport).move_all()
    (row,) = shop.rows()
    assert (row.code, row.error is not None) == ("INVALID_ARGUMENT", True)


async def test_a_row_of_a_type_that_is_not_registered_here_stays_for_another_relay(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, caplog: pytest.LogCaptureFixture
) -> None:
    shop.create(ProbePayload())
    shop.change(type="unheard_of")
    known = shop.create(ProbePayload())
    relay = relay_of(transport)
    left = await relay.move_all()
    assert (left.waiting, left.set_aside, relay.counts["moved"], len(known)) == (1, 0, 1, 1)
    (row,) = shop.rows()
    assert (row.attempted_at, row.set_aside_at) == (None, None)
    assert "--import the module" in caplog.text


async def test_an_old_row_that_may_be_a_job_is_looked_up_and_gone_if_the_log_has_it(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands
) -> None:
    ids = shop.create(ProbePayload())
    with pytest.raises(Killed):
        await relay_of(CutOff(transport, before=False)).move_all()
    # Not sent: as another payload it would be refused.
    shop.change(attempted_at=LONG_AGO, due_at=LONG_AGO, payload='{"steps":9}')
    relay = relay_of(transport)
    await relay.move_all()
    assert (shop.rows(), relay.counts["repeated"]) == ([], 1)
    assert await commands.find(ids[0]) is not None


async def test_an_old_row_that_may_have_been_a_job_is_not_sent_again_and_reported_if_there_is_none(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands, caplog: pytest.LogCaptureFixture
) -> None:
    (job_id,) = shop.create(ProbePayload())
    shop.change(attempted_at=LONG_AGO)
    await relay_of(transport).move_all()
    (row,) = shop.rows()
    assert row.code == UNKNOWN_OUTCOME
    assert row.error is not None
    assert f"{LONG_AGO:%Y-%m-%d %H:%M:%S}" in row.error
    assert await commands.find(job_id) is None
    assert UNKNOWN_OUTCOME in caplog.text


async def test_a_row_that_was_never_sent_is_sent_however_old_it_is(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands
) -> None:
    (job_id,) = shop.create(ProbePayload())
    shop.change(created_at=LONG_AGO - timedelta(days=600))
    await relay_of(transport).move_all()
    assert await commands.find(job_id) is not None
    assert shop.rows() == []


class Answering:
    """A server that answers every creation with one error."""

    largest_batch, largest_batch_bytes = 100, 1 << 20

    def __init__(self, error: errors.ClientError) -> None:
        self.error = error
        self.asked = 0

    async def create(self, creations: Sequence[Creation]) -> list[CreatedJob]:
        assert creations
        self.asked += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "is_doubtful"),
    [
        (errors.Unreachable("Nobody is there."), False),
        (errors.Unreachable("The connection was cut.", uncertain=True), True),
        (errors.QueueFull("The queue is full."), False),
        (errors.QueueUnavailable("NATS did not answer."), False),
        (errors.QueueUnavailable("NATS did not answer.", {"jobId": "…"}), True),
        (errors.Unauthenticated("This needs a key."), False),
        (errors.RateLimited("Too often.", {"retryAfter": 1}), False),
    ],
)
async def test_what_is_no_row_s_fault_stops_the_relay_and_only_what_may_be_stored_counts_as_sent(
    error: errors.ClientError, is_doubtful: bool, shop: Shop, relay_of: RelayOf
) -> None:
    shop.create(*[ProbePayload()] * 3)
    server = Answering(error)
    with pytest.raises(OutboxAway, match=error.message):
        await relay_of(server).move_all()  # type: ignore[arg-type]
    assert server.asked == 1
    # The first one goes alone, as long as nothing is known of the tenant of the key.
    assert [row.attempted_at is not None for row in shop.rows()] == [is_doubtful, False, False]
    assert all(row.due_at < LONG_AGO for row in map(_in_utc, shop.rows())), "they are due at once"


async def test_a_job_that_is_made_of_one_whose_row_another_relay_has_waits_for_that(
    shop: Shop, relay_of: RelayOf, database: OutboxDatabase, transport: NatsTransport, commands: JobCommands
) -> None:
    first = shop.create(ProbePayload())[0]
    (claimed,) = database.claim(1, 60)
    second = shop.create(ProbePayload(), origin=first)[0]
    relay = relay_of(transport)
    left = await relay.move_all()
    assert (left.waiting, left.set_aside) == (2, 0)
    database.settle([PutBack(claimed)])
    await relay.move_all()
    shop.change(due_at=LONG_AGO)
    await relay.move_all()
    job = await commands.find(second)
    assert job is not None
    assert job.spec.origin == first


@pytest.mark.parametrize(
    ("error", "is_doubtful"),
    [
        (errors.Forbidden("This key may not create jobs of this type."), False),
        (errors.ValidationFailed("There is no such input."), False),
        (errors.InvalidArgument("There is no job type.", {"argument": "inputs.0.type"}), False),
        (errors.InvalidArgument("There is no job 'x'.", {"argument": "inputs.0.origin"}), False),
        (errors.InternalError("Something went wrong."), True),
    ],
)
async def test_what_may_be_mended_elsewhere_delays_each_row_until_it_is_too_old(
    error: errors.ClientError, is_doubtful: bool, shop: Shop, relay_of: RelayOf
) -> None:
    shop.create(ProbePayload(), ProbePayload())
    relay = relay_of(Answering(error))  # type: ignore[arg-type]
    left = await relay.move_all()
    assert (left.waiting, left.set_aside) == (2, 0)
    assert [row.attempted_at is not None for row in shop.rows()] == [is_doubtful] * 2
    assert all(row.due_at > datetime.now(UTC) for row in map(_in_utc, shop.rows()))
    shop.change(created_at=LONG_AGO, due_at=LONG_AGO)
    assert (await relay.move_all()).set_aside == 2
    assert {row.code for row in shop.rows()} == {error.code}


async def test_a_job_that_has_another_id_than_its_row_stops_the_relay_before_there_is_a_second_one(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, connection: Connection
) -> None:
    shop.create(*[ProbePayload()] * 3, tenant="acme")
    with pytest.raises(OtherTenant, match="key of the tenant"):
        await relay_of(transport).move_all()
    assert len(shop.rows()) == 3
    assert len(await stored(connection)) == 1


async def test_what_nobody_has_expected_delays_the_row_and_not_the_others(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = transport.create

    async def failing(creations: Sequence[Creation]) -> list[CreatedJob]:
        if any(creation.priority == "low" for creation in creations):
            raise ZeroDivisionError
        return await create(creations)

    monkeypatch.setattr(transport, "create", failing)
    shop.create(ProbePayload())
    (odd,) = shop.create(ProbePayload(), priority="low")
    shop.create(ProbePayload())
    relay = relay_of(transport)
    left = await relay.move_all()
    assert (left.waiting, left.set_aside, relay.counts["moved"]) == (1, 0, 2)
    assert [row.job_id for row in shop.rows()] == [odd]


def test_a_relay_that_comes_late_changes_nothing_of_a_row_that_another_one_has(
    shop: Shop, database: OutboxDatabase
) -> None:
    shop.create(ProbePayload(), ProbePayload())
    late = database.claim(10, 60)
    shop.change(due_at=LONG_AGO)
    again = database.claim(10, 60)
    assert [row.attempts for row in again] == [2, 2]
    assert [row.doubtful_since for row in late] == [None, None]
    assert None not in [row.doubtful_since for row in again]
    before = [(row.due_at, row.attempted_at) for row in shop.rows()]
    database.settle([PutBack(late[0], is_doubtful=False), SetAside(late[1], "INVALID_PAYLOAD", "No.")])
    assert [(row.due_at, row.attempted_at) for row in shop.rows()] == before
    assert [row.set_aside_at for row in shop.rows()] == [None, None]
    database.settle([Moved(late[0])])
    assert [row.id for row in shop.rows()] == [late[1].id]
    shop.create(ProbePayload())
    database.settle([Moved(late[0]), Moved(late[1])])
    assert [row.id > late[1].id for row in shop.rows()] == [True], "the number of a deleted row is not used again"


def _in_utc(row: Any) -> Any:
    row.due_at = row.due_at.replace(tzinfo=UTC) if row.due_at.tzinfo is None else row.due_at
    return row


async def test_rows_run_after_others_and_find_the_job_that_has_their_key(
    shop: Shop, relay_of: RelayOf, transport: NatsTransport, commands: JobCommands
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    first = shop.create(ProbePayload(steps=1), key=Key("one at a time"), run_at=later)[0]
    after = shop.create(ProbePayload(), after=[first], start_before=later, concurrency_key="c")[0]
    replacing = shop.create(ProbePayload(steps=2), key=Key("one at a time", "replace"), run_at=later)[0]
    rejecting = shop.create(ProbePayload(), key=Key("one at a time", "reject"))[0]
    relay = relay_of(transport)
    left = await relay.move_all()
    assert (left.waiting, left.set_aside, relay.counts["moved"], relay.counts["repeated"]) == (1, 0, 2, 1)
    assert [row.job_id for row in shop.rows()] == [rejecting]
    job, behind = await commands.find(first), await commands.find(after)
    assert job is not None
    assert bytes(job.spec.payload) == b'{"steps":2}'
    assert behind is not None
    assert (behind.spec.after, behind.spec.start_before, behind.spec.concurrency_key) == ((first,), later, "c")
    assert await commands.find(replacing) is None
    await commands.cancel(first)
    shop.change(due_at=LONG_AGO)
    assert (await relay.move_all()).waiting == 0
    assert await commands.find(rejecting) is not None
