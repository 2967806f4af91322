"""The table of an outbox, and the rows in it: a job that is created in the transaction of the caller.

A row is checked as the server will check it, so that what it would refuse for good fails the transaction instead. The
payload stands in it as plain JSON, secrets in clear, until the relay has moved it.
"""

import uuid
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel
from sqlalchemy import BLANK_SCHEMA, BigInteger, Column, DateTime, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.orm import DeclarativeBase, Mapped
from typing_extensions import Unpack

from gql_jobs import clock
from gql_jobs.client.creation import JobOptions, creation_of, request_of_creation
from gql_jobs.client.errors import refusal
from gql_jobs.client.transport import Creation
from gql_jobs.jobs.errors import GqlJobsError, PayloadTooLarge
from gql_jobs.jobs.model import DependencyPolicy, JobPriority, job_id_for_key
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.unique_keys import UniqueKey

TABLE_NAME = "gql_jobs_outbox"
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
"""The ``due_at`` of a row that nobody has tried to send yet: before that of any other, whatever its clock says."""
MAX_PAYLOAD_BYTES = 917_504
"""Bytes of a payload, at most: what a server takes whose ``max_payload`` is NATS's own, and the embedded one's."""
_MOMENT = DateTime(timezone=True)


def table(metadata: MetaData) -> Table:
    """Add the table of the outbox to the application's metadata, and return it.

    ``create_all`` makes it then, and Alembic's autogenerate sees it. It is found by the search path: it has no schema,
    whatever the metadata's own is.
    """
    made = Table(
        TABLE_NAME,
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("job_id", String(36), nullable=False),
        Column("type", String(63), nullable=False),
        Column("payload", Text, nullable=False),
        Column("options", Text, nullable=False),
        Column("created_at", _MOMENT, nullable=False),
        Column("due_at", _MOMENT, nullable=False, default=AT_ONCE),
        Column("attempts", Integer, nullable=False, default=0),
        Column("attempted_at", _MOMENT),
        Column("set_aside_at", _MOMENT),
        Column("code", String(63)),
        Column("error", Text),
        schema=BLANK_SCHEMA,
        # A relay that comes late would delete the row that has the number now.
        sqlite_autoincrement=True,
    )
    # Without the rows that are set aside, however many of them are kept.
    waits = made.c.set_aside_at.is_(None)
    Index("ix_gql_jobs_outbox_due", made.c.due_at, made.c.id, postgresql_where=waits, sqlite_where=waits)
    return made


class _Mapped(DeclarativeBase):
    """What this package maps, apart from what the application does."""


class OutboxRow(_Mapped):
    """A job to be: written in the transaction of whoever creates it, deleted once the log has it.

    ``payload`` and ``options`` are JSON. ``due_at``: when a relay may send it. ``attempted_at``: since when it may be a
    job already, None while it cannot be. ``set_aside_at``: when it was given up, for what ``code`` and ``error`` say.
    """

    __table__ = table(_Mapped.metadata)

    id: Mapped[int]
    job_id: Mapped[str]
    type: Mapped[str]
    payload: Mapped[str]
    options: Mapped[str]
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]
    attempts: Mapped[int]
    attempted_at: Mapped[datetime | None]
    set_aside_at: Mapped[datetime | None]
    code: Mapped[str | None]
    error: Mapped[str | None]


class RowOptions(Struct, frozen=True, omit_defaults=True):
    """All of a creation but its type and its payload."""

    key: str
    priority: JobPriority = JobPriority.NORMAL
    run_at: datetime | None = None
    max_retries: int | None = None
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    origin: str | None = None
    sent: str | None = None
    job_key: UniqueKey | None = None
    concurrency_key: str | None = None
    start_before: datetime | None = None
    after: tuple[str, ...] = ()
    after_policy: DependencyPolicy = DependencyPolicy.CANCEL

    @classmethod
    def of(cls, creation: Creation) -> "RowOptions":
        """Return the options of a creation."""
        given = {name: getattr(creation, name) for name in cls.__struct_fields__}
        # Where nothing was drawn for it, it is the payload once more.
        is_whole = creation.sent is None or creation.sent == creation.payload
        return cls(**{**given, "sent": None if is_whole else given["sent"].decode()})

    def creation(self, job_type: JobType, payload: bytes) -> Creation:
        """Return the creation that these are the options of."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return Creation(job_type, payload, **{**given, "sent": None if self.sent is None else self.sent.encode()})


class UnitOfWork(Protocol):
    """What of a session is used: a ``Session``, an ``AsyncSession`` and a ``scoped_session`` have it."""

    def add(self, instance: object) -> None:
        """Have an object written with the next flush."""


def create(
    session: UnitOfWork,
    payload: BaseModel,
    *,
    tenant: str | None = None,
    max_bytes: int = MAX_PAYLOAD_BYTES,
    **options: Unpack[JobOptions],
) -> str:
    """Create a job together with what else the session's transaction does, and return the id that it will have.

    The job is there if that commits, and soon after; if it is rolled back, there never is one. Nothing is awaited: the
    row is added to the session, synchronous or not, and written when that is flushed. The rows of one transaction are
    moved in the order in which they were created.

    :param payload: an object of the payload model that ``job_type`` has registered in this process. It stands in the
        table as plain JSON, secrets in clear.
    :param tenant: that of the key by which the relay creates jobs, if it has one: the id follows from it.
    :param max_bytes: of the payload's JSON; as much as the NATS server takes, less 128 KiB.
    :param options: as ``JobOptions`` says. Without an idempotency key the job gets a new one, from which its id
        follows. With a ``Key`` that another job has by the time the relay comes, no job of that id may come to be.
    :raises InvalidPayload: | InvalidArgument: | PayloadTooLarge: if the server would refuse it for good; ``field`` says
        what is at fault.
    :raises LookupError: if the payload's model is that of no registered type, or of several.
    """
    creation = creation_of(payload, options)
    if creation.key is None:
        creation = replace(creation, key=f"outbox {uuid.uuid4()}")
    assert creation.key is not None
    try:
        if len(creation.payload) > max_bytes:
            raise PayloadTooLarge("The payload", len(creation.payload), max_bytes)
        request_of_creation(creation)
    except GqlJobsError as error:
        raise refusal(error.message, error.extensions) from None
    job_id = job_id_for_key(creation.key, tenant)
    session.add(
        OutboxRow(
            job_id=job_id,
            type=creation.job_type.name,
            payload=creation.payload.decode(),
            options=msgspec.json.encode(RowOptions.of(creation)).decode(),
            created_at=clock.now(),
        )
    )
    return job_id
