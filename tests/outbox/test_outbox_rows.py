"""Jobs that are created in a transaction: what is written, what is refused, and the id that is known before."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import MetaData, create_engine, inspect, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from gql_jobs import Model, outbox
from gql_jobs.client import errors
from gql_jobs.jobs.model import job_id_for_key
from gql_jobs.jobs.registry import JobType, registry
from tests.job_types.probe_jobs import ProbePayload
from tests.outbox.conftest import Shop


class LoginPayload(Model):
    """A payload with a secret."""

    user: str
    password: SecretStr
    tries: int = 3


@pytest.fixture
def login() -> Iterator[JobType]:
    """Its type, known for one test."""
    added = registry.add(JobType("login", LoginPayload, None, "tests.job_types.probe_handlers:run"))
    yield added
    del registry._types["login"]  # noqa: SLF001


def test_the_id_is_told_before_the_transaction_commits_and_the_row_has_it(shop: Shop) -> None:
    with Session(shop.engine) as session:
        job_id = outbox.create(session, ProbePayload(steps=3), type="probe", key="order-42")
        assert job_id == job_id_for_key("order-42")
        assert shop.rows() == []
        session.commit()
    (row,) = shop.rows()
    assert (row.job_id, row.type, row.payload, json.loads(row.options)) == (
        job_id,
        "probe",
        '{"steps":3}',
        {"key": "order-42"},
    )


def test_without_a_key_each_job_has_an_id_of_its_own(shop: Shop) -> None:
    ids = shop.create(*[ProbePayload()] * 3)
    assert [row.job_id for row in shop.rows()] == ids
    assert ids == [job_id_for_key(json.loads(row.options)["key"]) for row in shop.rows()]
    assert len(set(ids)) == 3


def test_the_id_is_that_of_the_tenant_of_the_relay_s_key(shop: Shop) -> None:
    assert shop.create(ProbePayload(), key="k", tenant="acme") == [job_id_for_key("k", "acme")]


def test_what_is_rolled_back_leaves_no_row_also_to_a_savepoint(shop: Shop) -> None:
    with Session(shop.engine) as session:
        outbox.create(session, ProbePayload(), type="probe")
        session.rollback()
        kept = outbox.create(session, ProbePayload(), type="probe")
        with session.begin_nested() as savepoint:
            outbox.create(session, ProbePayload(), type="probe")
            savepoint.rollback()
        session.commit()
    assert [row.job_id for row in shop.rows()] == [kept]


def test_the_options_are_those_of_a_client(shop: Shop) -> None:
    run_at = datetime.now(UTC) + timedelta(hours=1)
    options = {"max_retries": 2, "timeout": 5.0, "origin": job_id_for_key("o")}
    shop.create(ProbePayload(), key="k", priority="HIGH", run_at=run_at, tags=["a", "b"], **options)
    (row,) = shop.rows()
    stored = json.loads(row.options)
    assert datetime.fromisoformat(stored.pop("run_at")) == run_at
    assert stored == {"key": "k", "priority": "high", "tags": ["a", "b"], **options}


def test_a_scoped_session_takes_jobs_too(shop: Shop) -> None:
    session = scoped_session(sessionmaker(shop.engine))
    job_id = outbox.create(session, ProbePayload(), type="probe")
    session.commit()
    session.remove()
    assert [row.job_id for row in shop.rows()] == [job_id]


async def test_an_asynchronous_session_takes_jobs_without_an_await(shop: Shop) -> None:
    url = shop.url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+psycopg:")
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session, session.begin():
        job_id = outbox.create(session, ProbePayload(), type="probe")
    await engine.dispose()
    assert [row.job_id for row in shop.rows()] == [job_id]


@pytest.mark.parametrize(
    ("options", "refusal", "field"),
    [
        ({"tags": ["a"] * 33}, errors.InvalidArgument, "tags"),
        ({"tags": ["a", "\n"]}, errors.InvalidArgument, "tags.1"),
        ({"key": ""}, errors.InvalidArgument, "key"),
        ({"timeout": 0}, errors.InvalidArgument, "timeout"),
        ({"max_retries": -1}, errors.InvalidArgument, "max_retries"),
        ({"priority": "urgent"}, errors.InvalidArgument, "priority"),
        ({"run_at": datetime(2999, 1, 1, tzinfo=UTC)}, errors.InvalidArgument, "run_at"),
        ({"max_bytes": 11}, errors.PayloadTooLarge, None),
    ],
)
def test_what_the_server_would_refuse_fails_in_the_transaction(
    options: dict[str, Any], refusal: type[errors.ClientError], field: str | None
) -> None:
    with Session() as session:
        with pytest.raises(refusal) as refused:
            outbox.create(session, ProbePayload(steps=300), type="probe", **options)
        assert (refused.value.field, list(session.new)) == (field, [])


def test_a_payload_that_its_model_does_not_take_fails_in_the_transaction_with_its_field() -> None:
    payload = ProbePayload()
    payload.steps = "many"  # type: ignore[assignment]
    with Session() as session, pytest.raises(errors.InvalidPayload) as refused:
        outbox.create(session, payload, type="probe")
    assert refused.value.field == "payload.steps"


def test_a_payload_of_no_registered_type_and_one_of_several_are_refused_in_a_sentence() -> None:
    with Session() as session:
        with pytest.raises(LookupError, match="no registered job type"):
            outbox.create(session, LoginPayload(user="ada", password=SecretStr("x")))
        with pytest.raises(LookupError, match="several job types"):
            outbox.create(session, ProbePayload())


def test_a_secret_stands_in_the_row_in_clear(login: JobType, shop: Shop) -> None:
    with Session(shop.engine) as session, session.begin():
        outbox.create(session, LoginPayload(user="ada", password=SecretStr("open sesame")))
    (row,) = shop.rows()
    assert (row.type, json.loads(row.payload)) == (login.name, {"user": "ada", "password": "open sesame"})


@pytest.mark.parametrize("schema", [None, "shop"])
def test_the_table_is_made_with_the_application_s_own_and_its_index_holds_only_what_waits(
    schema: str | None, tmp_path: Path
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    metadata = MetaData(schema=schema)
    assert outbox.table(metadata) is metadata.tables["gql_jobs_outbox"]
    metadata.create_all(engine)
    with Session(engine) as session:
        outbox.create(session, ProbePayload(), type="probe")
        session.commit()
    (index,) = inspect(engine).get_indexes("gql_jobs_outbox")
    assert index["column_names"] == ["due_at", "id"]
    with engine.connect() as connection:
        (made,) = connection.scalars(text("SELECT sql FROM sqlite_master WHERE type = 'index'"))
    assert made.endswith("WHERE set_aside_at IS NULL")
    engine.dispose()
