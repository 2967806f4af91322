"""The secrets of payloads reach the handler and nobody else, by whatever way a job goes."""

import hashlib
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.access.records import ACCESS_BUCKET
from gql_jobs.doctor.examination import as_text, examine
from gql_jobs.jobs.model import Spec
from gql_jobs.jobs.payloads import accept
from gql_jobs.jobs.registry import Registry
from gql_jobs.jobs.requests import JobRequest, request_hash
from gql_jobs.log import codec
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import open_job_log
from gql_jobs.logs import JsonLine, _TextLine
from gql_jobs.settings import Settings
from gql_jobs.web import app, runtime
from gql_jobs_worker.telemetry import show_progress
from tests.api.operations import CREATE, FIND, HISTORY, RETRY, ended
from tests.job_types.secret_jobs import SecretPayload, registered
from tests.running import running_worker
from tests.serving import ServedApi, serving
from tests.workers.stories import dead_letter

PASSWORD = "hunter2 \"quoted\" 'é'\n/?&"  # noqa: S105
TOKENS = ["tok-4711-aaaa", "tok-4711-bbbb"]
MEMBERS = {"secret": "secret", "secret_thread": "secretThread", "secret_process": "secretProcess"}
SHOWN = "\n".join(
    f"... on {name}Job {{ payload {{ account {{ user password }} tokens }} result {{ password address }} }}"
    for name in ("Secret", "SecretThread", "SecretProcess")
)
TYPED = (
    f"query ($id: ID!) {{ job(id: $id) {{ payloadPreview(bytes: 10000) rawPayload rawResult {SHOWN} "
    f"events {{ job {{ payloadPreview rawPayload {SHOWN} }} }} }} "
    "jobs { nodes { payloadPreview(bytes: 10000) } } }"
)
WATCH = f"""subscription ($id: ID!) {{
  jobProgress(id: $id, after: "0") {{ job {{ progressMessage error {{ message }} rawPayload {SHOWN} }} }}
}}"""


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """What the API and its workers know."""
    registry = registered()
    for module in (app, runtime):
        monkeypatch.setattr(module, "load_job_types", lambda *_: registry)
    return registry


@pytest.fixture
async def api(settings: Settings, types: Registry) -> AsyncIterator[ServedApi]:
    """An API that knows these types."""
    assert types
    async with serving(settings) as served:
        yield served


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """All that this process logs, as text and as JSON."""
    stream = io.StringIO()
    handlers = []
    for formatter in (_TextLine(), JsonLine()):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        handlers.append(handler)
        logging.getLogger().addHandler(handler)
    show_progress(True)
    yield stream
    show_progress(False)
    for handler in handlers:
        logging.getLogger().removeHandler(handler)


def _asked(type_name: str, trace: Path, **facts: Any) -> dict[str, Any]:
    account = {"user": "ada", "password": PASSWORD}
    payload = {"account": account, "tokens": TOKENS, "trace": str(trace), **facts}
    return {"payload": {MEMBERS[type_name]: payload}, "maxRetries": 1}


def _holds_no_secret(*texts: str) -> None:
    for text in texts:
        for secret in ("hunter2", "4711"):
            at = text.find(secret)
            assert at == -1, text[max(at - 200, 0) : at + 100]


@pytest.mark.parametrize("type_name", MEMBERS)
@pytest.mark.parametrize("unexpected", [False, True])
async def test_handlers_get_the_secrets_and_no_answer_event_error_log_or_dead_letter_shows_them(  # noqa: PLR0917
    api: ServedApi,
    settings: Settings,
    types: Registry,
    written: io.StringIO,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    type_name: str,
    unexpected: bool,
) -> None:
    trace = tmp_path / "trace"
    said: list[Any] = []
    async with running_worker(settings, registry=types):
        created = await api.ask(CREATE, input=_asked(type_name, trace, unexpected=unexpected))
        job_id = created["createJob"]["job"]["id"]
        async with aclosing(api.events(WATCH, id=job_id)) as events:
            said += [event async for event in events]
        dead = await ended(api, job_id, "DEAD_LETTER")
        assert "[redacted]" in dead["error"]["message"]
        letter = await dead_letter(api.runtime.connection, job_id)
        assert letter["spec"]["payload"]["account"] == {"user": "ada", "password": "[redacted]"}
        assert letter["spec"]["payload"]["tokens"] == ["[redacted]"] * 2
        # A retry is of what was submitted, not of what the dead letter shows.
        await api.ask(RETRY, id=job_id)
        await ended(api, job_id, "DEAD_LETTER")
        said += [created, dead, letter, await api.ask(FIND, id=job_id), await api.ask(HISTORY, id=job_id)]
        found = (await api.ask(TYPED, id=job_id))["job"]
        said += [found, await dead_letter(api.runtime.connection, job_id)]
    account = {"user": "ada", "password": "[redacted]"}
    assert found["payload"] == {"account": account, "tokens": ["[redacted]"] * 2}
    assert found["rawPayload"]["account"] == account
    given = trace.read_text().split()
    assert given == [hashlib.sha256(PASSWORD.encode()).hexdigest()] * 4
    said.append(as_text(await examine(settings, types)))
    _holds_no_secret(json.dumps(said), json.dumps(said, ensure_ascii=False), written.getvalue())
    assert "logging in" in written.getvalue() + capfd.readouterr().err
    _holds_no_secret(capfd.readouterr().err)


@pytest.mark.parametrize("type_name", MEMBERS)
async def test_a_result_shows_no_secret_that_its_handler_has_returned(
    api: ServedApi, settings: Settings, types: Registry, tmp_path: Path, type_name: str
) -> None:
    async with running_worker(settings, registry=types):
        created = await api.ask(CREATE, input=_asked(type_name, tmp_path / "trace", fails=False))
        job_id = created["createJob"]["job"]["id"]
        await ended(api, job_id, "COMPLETED")
    found = (await api.ask(TYPED, id=job_id))["job"]
    assert found["result"] == found["rawResult"] == {"password": "[redacted]", "address": ""}
    async with open_job_log(api.runtime.connection) as job_log:
        stored = await job_log.last(codec.event_subjects(job_id))
    assert stored is not None
    _holds_no_secret(stored.data.decode())


@pytest.mark.parametrize(
    "payload",
    [
        {"account": {"user": "ada", "password": 47110815}, "tokens": [], "trace": "t"},
        {"account": {"user": "ada", "password": [PASSWORD]}, "tokens": TOKENS, "trace": "t"},
        {"account": PASSWORD, "tokens": TOKENS, "trace": "t"},
        {"account": {"user": "ada", "password": PASSWORD}, "tokens": TOKENS},
        {"account": {"user": "ada", "password": PASSWORD}, "tokens": [[TOKENS]], "trace": "t"},
        {"account": {"user": "ada", "password": PASSWORD, "other": 1}, "tokens": "tok-4711", "trace": "t"},
        {"account": {"user": "ada", "password": "[redacted]"}, "tokens": TOKENS, "trace": "t"},
    ],
)
async def test_no_refusal_of_a_payload_quotes_a_value_of_it(
    api: ServedApi, written: io.StringIO, payload: dict[str, Any]
) -> None:
    refused = await api.refusal(CREATE, input={"payload": {"secret": payload}})
    assert refused["extensions"]["code"] == "INVALID_PAYLOAD"
    told = json.dumps([fault["message"] for fault in refused["extensions"]["fields"]])
    _holds_no_secret(told, written.getvalue())
    literal = json.dumps({"secret": payload}).replace('"secret":', "secret:")
    for name in ("account", "user", "password", "tokens", "trace", "other"):
        literal = literal.replace(f'"{name}":', f"{name}:")
    refused = await api.refusal(f"mutation {{ createJob(input: {{ payload: {literal} }}) {{ job {{ id }} }} }}")
    assert refused["extensions"]["code"] == "INVALID_PAYLOAD"
    _holds_no_secret(json.dumps([fault["message"] for fault in refused["extensions"]["fields"]]), refused["message"])


async def _stored_spec(api: ServedApi, job_id: str) -> Spec:
    """What is stored of a job in NATS."""
    async with open_job_log(api.runtime.connection) as job_log:
        stored = await job_log.last(codec.submission_subjects(job_id))
    assert stored is not None
    message = stored.read()
    assert message is not None
    spec: Spec = message.body.spec
    return spec


def _repeated(password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    payload = {"account": {"user": "ada", "password": password}, "tokens": TOKENS, "trace": "t"}
    return {"payload": {"secret": payload}, "idempotencyKey": "k", **more}


async def _is_repetition(api: ServedApi, job_id: str) -> bool:
    """Whether the same request is the same job, and another one a conflict."""
    again = (await api.ask(CREATE, input=_repeated()))["createJob"]
    refused = await api.refusal(CREATE, input=_repeated("another"))
    assert refused["extensions"]["code"] == "IDEMPOTENCY_CONFLICT"
    same: bool = again["job"]["id"] == job_id
    return again["deduplicated"] and same


async def test_a_creation_with_secrets_is_repeated_over_processes_by_hashes_that_nobody_can_try_out(
    api: ServedApi, settings: Settings, types: Registry, tmp_path: Path
) -> None:
    job_id = (await api.ask(CREATE, input=_repeated()))["createJob"]["job"]["id"]
    spec = await _stored_spec(api, job_id)
    key = await api.runtime.access.hash_key()
    for stored in (spec.payload_hash, spec.request_hash):
        assert stored is not None
        assert stored.startswith(f"hmac:{key.id}:")
    assert spec.request_hash == key.sealed(request_hash("secret", bytes(spec.payload)))
    assert await _is_repetition(api, job_id)
    assert types
    async with serving(settings.model_copy(update={"data_dir": tmp_path / "other"})) as other:
        assert await other.runtime.access.hash_key() == key
        assert await _is_repetition(other, job_id)


async def test_a_job_of_an_older_release_is_still_known_by_its_plain_hash(api: ServedApi, types: Registry) -> None:
    payload = _repeated()["payload"]["secret"]
    job_type = types.get("secret")
    assert job_type is not None
    async with open_job_log(api.runtime.connection) as job_log:
        older = JobCommands(job_log, api.runtime.settings)
        request = JobRequest.of(job_type, accept(SecretPayload, payload), idempotency_key="k")
        job_id = (await older.create(request)).id
    assert len((await _stored_spec(api, job_id)).payload_hash) == 64
    assert await _is_repetition(api, job_id)


async def test_a_repetition_is_known_by_its_payload_once_the_key_of_the_hashes_is_lost(
    api: ServedApi, settings: Settings, tmp_path: Path
) -> None:
    job_id = (await api.ask(CREATE, input=_repeated()))["createJob"]["job"]["id"]
    await api.runtime.connection.api(f"STREAM.DELETE.KV_{ACCESS_BUCKET}")
    async with serving(settings.model_copy(update={"data_dir": tmp_path / "other"})) as other:
        stored = (await _stored_spec(api, job_id)).payload_hash
        assert (await other.runtime.access.hash_key()).id not in stored
        assert await _is_repetition(other, job_id)
