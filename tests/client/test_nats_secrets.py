"""What is confidential stays so when a client writes it into the log: encoded, and under hashes that tell nothing."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gql_jobs.client import errors
from gql_jobs.client.async_client import AsyncClient
from gql_jobs.client.transport import AskedRecurrence, AskedSchedule, Creation
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.payload_codec import CodecContext
from gql_jobs.jobs.payloads import accept
from gql_jobs.jobs.requests import JobRequest, request_hash
from gql_jobs.log import codec
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import stored
from tests.client.nats_clients import PROBE_TYPE, client_of, created_one
from tests.job_types.probe_jobs import ProbePayload
from tests.job_types.secret_jobs import registered
from tests.job_types.typed_jobs import MessagePayload
from tests.running import JOB_TYPES, running_worker

PLAIN = "nobody may read this"
SECRET_TYPE = next(iter(registered()))
PASSWORD = "do not tell"  # noqa: S105


class _Reversing:
    """A codec that keeps nothing from anybody who knows it."""

    def encode(self, data: bytes, context: CodecContext) -> bytes:
        return f"{context.job_id} {context.kind}".encode() + data[::-1]

    def decode(self, data: bytes, context: CodecContext) -> bytes:
        beginning = f"{context.job_id} {context.kind}".encode()
        assert data.startswith(beginning)
        return data.removeprefix(beginning)[::-1]


this = _Reversing()


@pytest.fixture
def encrypted(settings: Settings) -> Settings:
    """Settings with that codec."""
    return settings.model_copy(update={"codec": f"{__name__}:this"})


def _secret(key: str | None = None, password: str = PASSWORD, **options: Any) -> Creation:
    payload = {"account": {"user": "ada", "password": password}, "tokens": [], "trace": ""}
    return Creation(SECRET_TYPE, json.dumps(payload).encode(), key, **options)


async def test_payloads_and_results_are_encoded_as_the_api_has_them_and_read_by_whoever_has_the_codec(
    encrypted: Settings, settings: Settings
) -> None:
    async with open_runtime(encrypted, JOB_TYPES) as runtime, client_of(encrypted) as client:
        async with running_worker(encrypted):
            job_id = await created_one(client, "k", saves=PLAIN, fail_attempts=1)
            ended = await client.ended(job_id)
        assert ended.result is not None
        assert json.loads(ended.result)["saved"] == PLAIN
        assert not any(PLAIN.encode() in message.data for message in await stored(runtime.connection))
        job = runtime.index.job(job_id)
        assert job is not None
        assert PLAIN.encode() in bytes(runtime.commands._stored.payload(job.id, job.spec))  # noqa: SLF001
        assert await created_one(client, "k", saves=PLAIN, fail_attempts=1) == job_id
        probe = accept(PROBE_TYPE.payload, {"saves": PLAIN, "failAttempts": 1})
        again = await runtime.commands.create(JobRequest.of(PROBE_TYPE, probe, idempotency_key="k"))
        assert (again.id, again.deduplicated) == (job_id, True)
        async with client_of(settings) as stranger:
            with pytest.raises(errors.InternalError, match="no codec is set here"):
                await stranger.ended(job_id)
            assert [event.job.status async for event in stranger.events(job_id, None)] == [JobStatus.COMPLETED]


async def test_schedules_are_encoded_and_run_by_whoever_has_the_codec_and_shown_redacted_to_others(
    encrypted: Settings, settings: Settings
) -> None:
    async with open_runtime(encrypted, JOB_TYPES) as runtime, client_of(encrypted) as transport:
        client = AsyncClient(transport=transport)
        payload = ProbePayload(saves=PLAIN)
        made = await client.upsert_schedule("hourly", payload, type="probe", every=3600)
        assert json.loads(made.payload) == {"saves": PLAIN}
        assert (await client.upsert_schedule("hourly", payload, type="probe", every=3600)).changed_at == made.changed_at
        assert json.loads((await client.pause_schedule("hourly")).payload) == {"saves": PLAIN}
        job = await client.run_schedule("hourly")
        assert json.loads((await job.state()).payload or b"") == {"saves": PLAIN}
        assert not any(PLAIN.encode() in message.data for message in await stored(runtime.connection))
        async with client_of(settings, patience=0.3) as without:
            stranger = AsyncClient(transport=without)
            assert [json.loads(one.payload) for one in await stranger.schedules()] == ["[redacted]"]
            with pytest.raises(errors.QueueUnavailable, match="cannot be decoded here"):
                await stranger.run_schedule("hourly")


async def test_a_confidential_creation_has_the_hashes_of_the_api_and_is_the_same_job_in_either(
    settings: Settings, runtime: Runtime, connection: Connection
) -> None:
    async with client_of(settings) as client:
        (made,) = await client.create([_secret("k", run_at=datetime.now(UTC) + timedelta(hours=1))])
        (message,) = [one for one in await stored(connection) if codec.job_of_subject(one.subject) == made.id]
        spec = json.loads(message.data)["spec"]
        assert await runtime.access.hash_key() == client._stored.hash_key  # noqa: SLF001
        assert spec["requestHash"].startswith("hmac:")
        assert request_hash(SECRET_TYPE.name, _secret().payload) not in json.dumps(spec)
        assert spec["secrets"] == ["/account/password"]
        (again,) = await client.create([_secret("k")])
        assert again.deduplicated
        with pytest.raises(errors.IdempotencyConflict):
            await client.create([_secret("k", password="another")])  # noqa: S106
        with pytest.raises(errors.InvalidPayload) as refused:
            await client.create([_secret("other", password="[redacted]")])  # noqa: S106
        assert refused.value.field == "payload.account.password"


@pytest.mark.usefixtures("typed")
async def test_schedules_and_their_jobs_have_the_hashes_of_the_api(settings: Settings, runtime: Runtime) -> None:
    secret = MessagePayload.model_validate({"to": "ada", "password": PASSWORD})
    async with client_of(settings) as transport:
        await AsyncClient(transport=transport).upsert_schedule("hourly", secret, cron="0 0 1 1 *")
    async with client_of(settings) as transport:
        job = await AsyncClient(transport=transport).run_schedule("hourly")
    texts = [json.loads(message.data) for message in await stored(runtime.connection)]
    hashes = [text["spec"]["payloadHash"] for text in texts if text.get("spec", {}).get("schedule") == "hourly"]
    hashes += [text["value"]["payloadHash"] for text in texts if "cron" in str(text.get("value", {}))]
    assert (await runtime.commands.find(job.id)) is not None
    assert [one.startswith("hmac:") for one in hashes] == [True, True]


async def test_without_the_key_of_hashes_nothing_confidential_is_stored(
    settings: Settings, connection: Connection
) -> None:
    async with client_of(settings, patience=0.3) as client:
        with pytest.raises(errors.QueueUnavailable, match="made by API processes"):
            await client.create([_secret()])
        hourly = AskedSchedule(name="hourly", payload=_secret(), recurrence=AskedRecurrence(every=3600))
        with pytest.raises(errors.QueueUnavailable, match="made by API processes"):
            await client.schedules.upsert(hourly)
        assert await stored(connection) == []
        assert await created_one(client)


async def test_the_payload_of_a_job_that_was_found_has_no_secrets(settings: Settings, runtime: Runtime) -> None:
    assert runtime.connection.connected
    async with client_of(settings) as client:
        (made,) = await client.create([_secret()])
        found = await client.find(made.id)
    assert found is not None
    assert json.loads(found.payload or b"")["account"] == {"user": "ada", "password": "[redacted]"}
