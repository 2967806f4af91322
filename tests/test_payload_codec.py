"""A codec: what is stored of jobs is what it has made of it, and nothing that it does loses a job or breaks a page."""

import base64
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from gql_jobs.cli import cli
from gql_jobs.jetstream.stored_messages import messages_of
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.payload_codec import CodecContext, StoredPart, load_codec
from gql_jobs.log import codec
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, CREATE, FIND, RETRY, create, ended, find
from tests.deadline import until
from tests.running import ROOT, running_worker
from tests.serving import ServedApi, serving

DOCUMENT = (ROOT / "docs" / "encryption.md").read_text()
RECIPE = re.findall(r"```python\n# my_app/encryption.py\n(.*?)```", DOCUMENT, re.DOTALL)
MODULE = "encryption_of_the_docs"
PLAIN = "nobody may read this"
PAYLOADS = "{ jobs { nodes { __typename id rawPayload rawResult } } }"


def _key(name: str) -> str:
    return f"{name}:{base64.b64encode(secrets.token_bytes(32)).decode()}"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example of the docs as it stands there."""
    monkeypatch.setenv("MY_APP_KEYS", _key("2026a"))
    (text,) = RECIPE
    module = ModuleType(MODULE)
    exec(text, module.__dict__)  # noqa: S102  # the example is what is tested
    monkeypatch.setitem(sys.modules, MODULE, module)
    return module


@pytest.fixture
def encrypted(settings: Settings, recipe: ModuleType) -> Settings:
    """Settings with that codec."""
    assert recipe.codec
    return settings.model_copy(update={"codec": f"{MODULE}:codec"})


@pytest.fixture
async def api(encrypted: Settings) -> AsyncIterator[ServedApi]:
    """An API with the codec."""
    async with serving(encrypted) as served:
        yield served


async def _stored(api: ServedApi) -> list[bytes]:
    """All that lies in NATS and in the index."""
    connection = api.runtime.connection
    found = [message.data async for message in messages_of(connection, codec.JOBS_STREAM, ">")]
    found += [message.data async for message in messages_of(connection, codec.DEAD_LETTERS_STREAM, ">")]
    files = [path for path in api.runtime.settings.data_dir.rglob("index*") if path.is_file()]
    assert files
    return found + [path.read_bytes() for path in files]


def _holds_plain(stored: list[bytes]) -> bool:
    return any(PLAIN.encode() in one or base64.b64encode(PLAIN.encode())[4:-8] in one for one in stored)


@pytest.mark.parametrize("type_name", ["probe", "probeCpu"])
async def test_nats_and_the_index_hold_nothing_of_payload_result_and_checkpoint_in_clear(
    api: ServedApi, encrypted: Settings, type_name: str
) -> None:
    asked = {"saves": {"kept": PLAIN}, "failAttempts": 1, "steps": 1}
    async with running_worker(encrypted):
        job_id = (await create(api, asked, type_name))["id"]
        job = await ended(api, job_id, "COMPLETED")
    assert job["attempt"] == 2
    assert job["rawPayload"]["saves"] == {"kept": PLAIN}
    # What the first attempt has saved was read by the second.
    assert job["rawResult"]["saved"] == {"kept": PLAIN}
    shown = (await api.ask(PAYLOADS))["jobs"]["nodes"]
    assert [(node["__typename"] == "UnknownJob", node["rawPayload"]["saves"]) for node in shown] == [
        (False, {"kept": PLAIN})
    ]
    assert not _holds_plain(await _stored(api))


async def test_a_dead_letter_is_encoded_and_its_retry_runs(api: ServedApi, encrypted: Settings, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running_worker(encrypted):
        asked = {"permanent": True, "saves": PLAIN, "trace": str(tmp_path / "trace")}
        job_id = (await create(api, asked))["id"]
        await ended(api, job_id, "DEAD_LETTER")
        await api.ask(RETRY, id=job_id)
        await ended(api, job_id, "DEAD_LETTER")
        later = (await create(api, {"gate": str(gate), "saves": PLAIN}))["id"]
        await api.ask(CANCEL, id=later)
        gate.touch()
    assert len((tmp_path / "trace").read_text().split()) == 4
    assert not _holds_plain(await _stored(api))


async def test_jobs_of_before_stay_readable_and_so_do_those_of_an_older_key(
    settings: Settings, encrypted: Settings, recipe: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings) as before:
        plain = (await create(before, {"saves": PLAIN}))["id"]
    async with serving(encrypted) as api:
        older = (await create(api, {"saves": PLAIN}, idempotencyKey="k"))["id"]
    both = recipe.AesGcm(f"{_key('2026b')} {os.environ['MY_APP_KEYS']}")
    monkeypatch.setattr(recipe, "codec", both)
    async with serving(encrypted) as api, running_worker(encrypted):
        newer = (await create(api, {"saves": PLAIN}))["id"]
        for job_id in (plain, older, newer):
            job = await ended(api, job_id, "COMPLETED")
            assert job["rawResult"]["saved"] == job["rawPayload"]["saves"] == PLAIN
        again = await api.ask(CREATE, input=_asked({"saves": PLAIN}, idempotencyKey="k"))
        assert (again["createJob"]["deduplicated"], again["createJob"]["job"]["id"]) == (True, older)
        other = await api.refusal(CREATE, input=_asked({"saves": "other"}, idempotencyKey="k"))
        assert other["extensions"]["code"] == "IDEMPOTENCY_CONFLICT"


def _asked(payload: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"payload": {"probe": payload}, **more}


def test_what_is_stored_with_one_job_is_nothing_in_another_and_no_result_is_a_payload(recipe: ModuleType) -> None:
    context = CodecContext("a", "probe", None, StoredPart.PAYLOAD)
    made = recipe.codec.encode(b"{}", context)
    assert recipe.codec.decode(made, context) == b"{}"
    assert made != recipe.codec.encode(b"{}", context)
    for other in ({"job_id": "b"}, {"kind": StoredPart.RESULT}):
        with pytest.raises(Exception, match=r"^$"):
            recipe.codec.decode(made, msgspec.structs.replace(context, **other))


class Moody:
    """A codec that fails as a test says."""

    encodes: Any = None
    decodes: Any = None

    def encode(self, data: bytes, _: CodecContext) -> Any:
        if self.encodes is not None:
            return _answer(self.encodes, data)
        return data[::-1]

    def decode(self, data: bytes, _: CodecContext) -> Any:
        if self.decodes is not None:
            return _answer(self.decodes, data)
        return data[::-1]


def _answer(mood: Any, data: bytes) -> Any:
    if isinstance(mood, type) and issubclass(mood, BaseException):
        raise mood(data.decode())
    return mood


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> Moody:
    """That codec, under a name for the settings."""
    module = ModuleType("moody_codec")
    codec_ = Moody()
    module.__dict__["codec"] = codec_
    monkeypatch.setitem(sys.modules, "moody_codec", module)
    return codec_


@pytest.mark.parametrize("mood", [ValueError, "text", None.__class__])
async def test_a_codec_that_fails_to_encode_stores_nothing_and_says_nothing_of_the_payload(
    settings: Settings, moody: Moody, caplog: pytest.LogCaptureFixture, mood: Any
) -> None:
    async with serving(settings.model_copy(update={"codec": "moody_codec:codec"})) as api:
        moody.encodes = mood
        refused = await api.refusal(CREATE, input=_asked({"saves": PLAIN}))
        assert refused["extensions"]["code"] == "INTERNAL"
        assert (await api.ask(PAYLOADS))["jobs"]["nodes"] == []
        assert not _holds_plain(await _stored(api))
    assert PLAIN not in caplog.text + str(refused)


@pytest.mark.parametrize("mood", [ValueError, "text", b"no JSON", b"[]"])
async def test_what_a_codec_cannot_decode_breaks_no_page_and_is_left_to_a_worker_that_can(
    settings: Settings, moody: Moody, caplog: pytest.LogCaptureFixture, mood: Any
) -> None:
    settings = settings.model_copy(update={"codec": "moody_codec:codec"})
    async with serving(settings) as api:
        job_id = (await create(api, {"saves": PLAIN}))["id"]
        moody.decodes = mood
        async with running_worker(settings):
            other = await api.ask(PAYLOADS)
            assert [(n["__typename"], n["rawPayload"]) for n in other["jobs"]["nodes"]] == [
                ("UnknownJob", "[redacted]")
            ]

            async def is_left() -> bool:
                return "are left to other workers" in caplog.text

            await until(is_left, "the worker leaves the job")
            assert (await find(api, job_id))["status"] == JobStatus.QUEUED.name
            moody.decodes = None
            assert (await ended(api, job_id, "COMPLETED"))["attempt"] == 1
    assert PLAIN not in caplog.text


async def test_a_process_without_the_codec_shows_and_runs_nothing_of_what_is_encoded(
    settings: Settings, encrypted: Settings
) -> None:
    async with serving(encrypted) as api:
        job_id = (await create(api, {"saves": PLAIN}))["id"]
    async with serving(settings) as without:
        (node,) = (await without.ask(PAYLOADS))["jobs"]["nodes"]
        assert (node["__typename"], node["rawPayload"]) == ("UnknownJob", "[redacted]")
        assert (await without.ask(FIND, id=job_id))["job"]["status"] == "QUEUED"


async def test_a_result_that_cannot_be_encoded_is_a_failed_attempt(settings: Settings, moody: Moody) -> None:
    settings = settings.model_copy(update={"codec": "moody_codec:codec"})
    async with serving(settings) as api:
        job_id = (await create(api, {"saves": None}, maxRetries=0))["id"]
        moody.encodes = ValueError
        async with running_worker(settings):
            job = await ended(api, job_id, "DEAD_LETTER")
    assert job["error"]["type"] == "ResultNotEncoded"
    assert "ValueError" not in job["error"]["message"]


async def test_the_size_of_a_payload_is_that_of_what_is_stored(settings: Settings, moody: Moody) -> None:
    assert moody.encodes is None
    async with serving(settings.model_copy(update={"codec": "moody_codec:codec"})) as api:
        limit = (await api.refusal(CREATE, input=_asked({"saves": "x" * 1_000_000})))["extensions"]["limitBytes"]
        await create(api, {"saves": "x" * (limit * 3 // 4 - 100)})
        refused = await api.refusal(CREATE, input=_asked({"saves": "x" * (limit * 3 // 4 + 100)}))
    assert refused["extensions"]["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:codec", "nowhere"),
        ("json:nothing", "json has no nothing"),
        ("json:loads", "no object with the methods"),
        ("not-installed", "write module:object"),
    ],
)
def test_a_codec_that_is_none_is_named_when_a_process_starts(name: str, said: str) -> None:
    with pytest.raises((ImportError, ValueError), match=said):
        load_codec(name)
    for command in (["api"], ["worker"]):
        result = CliRunner().invoke(cli, command, env={"GQL_JOBS_CODEC": name})
        assert result.exit_code != 0
        assert said in result.output
