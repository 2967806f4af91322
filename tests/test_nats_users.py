"""deploy/nats: each part works with its own user of NATS, over TLS, and is refused everything beyond it."""

import asyncio
import io
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
import yaml
from msgspec.structs import replace
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import SecretStr

from gql_jobs.access import administration
from gql_jobs.access.store import known_hash_key
from gql_jobs.client.errors import IdempotencyConflict
from gql_jobs.client.nats_transport import NatsTransport
from gql_jobs.client.transport import AskedRecurrence, AskedSchedule
from gql_jobs.doctor.examination import examine
from gql_jobs.jetstream.connection import connect
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import JobPriority, JobStatus, OverlapPolicy
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.schedules import SCHEDULE, SCHEDULE_STATE, Schedule, ScheduleState
from gql_jobs.jobs.unique_keys import KeyPolicy, UniqueKey
from gql_jobs.jobs.viewer import NO_LIMITS, Scope
from gql_jobs.log import codec
from gql_jobs.log.job_log import open_job_log
from gql_jobs.maintenance import Maintenance
from gql_jobs.processes.event_loop import in_background
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import plain_nats
from tests.child_processes import running_process
from tests.client.nats_clients import client_of, creation
from tests.deadline import until
from tests.running import JOB_TYPES, ROOT, running_worker
from tests.workers.stories import create, ended, request

DEPLOYED = ROOT / "deploy" / "nats"


class Deployed:
    """The server of deploy/nats with secrets of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url.replace("nats://", "tls://")

    def settings(self, user: str, **others: object) -> Settings:
        """What a process of that user is given."""
        return Settings.model_validate(
            {
                "nats_url": self.url,
                "nats_ca": self.folder / "secrets" / "ca.pem",
                "nats_user": user,
                "nats_password": SecretStr(self.password(user)),
                "nats_inbox": f"_INBOX_{user}",
                "data_dir": self.folder / user,
                "base_retry_delay": 0.1,
                **others,
            }
        )

    def password(self, user: str) -> str:
        """The password of a user, from its file."""
        return (self.folder / "secrets" / f"{user}.password").read_text().strip()

    @property
    def violations(self) -> list[str]:
        """What the server has refused its users, a line each."""
        return re.findall(r"(?:Publish|Subscription) Violation.*", (self.folder / "log").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/nats with secrets as its script makes them."""
    copy = tmp_path_factory.mktemp("deployed") / "nats"
    shutil.copytree(DEPLOYED, copy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([copy / "make-secrets.sh"], check=True, capture_output=True)
    return copy


@pytest.fixture
async def nats_of_users(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Deployed]:
    """That configuration on a real server; only ports and the folder of its store are others."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "secrets", tmp_path / "secrets")
    text = (folder / "nats-server.conf").read_text()
    for ours, tests in (('"/data"', f'"{tmp_path / "store"}"'), ("127.0.0.1:8222", "127.0.0.1:-1")):
        assert text.count(ours) == 1
        text = text.replace(ours, tests)
    (tmp_path / "nats-server.conf").write_text(text)
    async with plain_nats(tmp_path, "-c", str(tmp_path / "nats-server.conf")) as url:
        yield Deployed(tmp_path, url)


@pytest.fixture
async def users(nats_of_users: Deployed) -> AsyncIterator[dict[str, Client]]:
    """A client of each user, as nats-py has it, once the API has made the streams."""
    context = ssl.create_default_context(cafile=nats_of_users.settings("api").nats_ca)
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(open_runtime(nats_of_users.settings("api"), JOB_TYPES))
        await until(lambda: _has_bucket(runtime), "the API has made the object store")
        clients = {}
        for user in _BEYOND:
            clients[user] = await nats.connect(
                nats_of_users.url,
                tls=context,
                user=user,
                password=nats_of_users.password(user),
                inbox_prefix=f"_INBOX_{user}",
            )
            stack.push_async_callback(clients[user].close)
        yield clients


async def _has_bucket(runtime: Runtime) -> bool:
    return not await runtime.artifacts.make_missing()


async def test_every_part_works_with_its_own_user_and_asks_for_nothing_that_it_may_not(
    nats_of_users: Deployed,
) -> None:
    deployed = nats_of_users
    settings = deployed.settings("api", retention=0.001, auth="required")
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(open_runtime(settings, JOB_TYPES))
        await until(lambda: _has_bucket(runtime), "the API has made the object store")
        for _ in range(2):
            await stack.enter_async_context(running_worker(deployed.settings("worker")))
        made = [
            await create(runtime, artifact="a.bin", artifact_bytes=300_000, steps=2),
            await create(runtime, saves={"half": 1}, fail_attempts=1),
            await create(runtime, permanent=True),
            await create(runtime, children=2),
            await create(runtime, "probe_cpu", artifact="b.bin", artifact_bytes=10),
            (await runtime.commands.create(request(runtime, run_at=datetime.now(UTC) + timedelta(seconds=1)))).job.id,
        ]
        endless = await create(runtime, seconds=600)
        await until(lambda: _status(runtime, endless) is JobStatus.PROCESSING, "the job runs")
        await runtime.commands.cancel(endless)
        finished = [await ended(runtime, job) for job in [*made, endless]]
        dead = JobStatus.DEAD_LETTER
        completed = JobStatus.COMPLETED
        assert [job.status for job in finished] == [
            completed,
            completed,
            dead,
            completed,
            completed,
            completed,
            JobStatus.CANCELLED,
        ]
        artifact = runtime.index.artifact(made[0], "a.bin")
        assert artifact is not None
        target = io.BytesIO()
        await runtime.artifacts.read(artifact, target)
        assert len(target.getvalue()) == 300_000
        await runtime.commands.retry(made[2])
        await until(lambda: _status(runtime, made[2]) is dead, "it has failed again")

        assert (await runtime.deletions.delete(made[4])).deleted

        await runtime.pauses.pause("default", "a reason", datetime.now(UTC) + timedelta(days=1), None)
        await runtime.pauses.resume("default", None)

        async with client_of(deployed.settings("client")) as client:
            await _use_all(client)
            await _use_schedules(client, runtime)
            session = await client._nats.session()  # noqa: SLF001
            assert await known_hash_key(session.connection) == await runtime.access.hash_key()

        text, key = await administration.create_key(deployed.settings("keys"), "backend", scopes=(Scope.READ,))
        await until(lambda: key.id in runtime.access._store.keys, "the API knows the key")  # noqa: SLF001
        viewer = await runtime.access.viewer_of(text)
        assert viewer.subject == "key:backend"
        ticket, _ = await runtime.access.ticket(viewer, "{ __typename }", {}, None)
        assert (await runtime.access.use_ticket(ticket)).viewer.subject == viewer.subject
        issued = runtime.access.issue(viewer, NO_LIMITS, frozenset({Scope.READ}), 60)
        assert await runtime.access.revoke(viewer, issued.id)
        assert [one.id for one in await administration.list_keys(deployed.settings("keys"))] == [key.id]
        assert await administration.revoke_credential(deployed.settings("keys"), key.id)

        findings = await examine(deployed.settings("doctor", data_dir=settings.data_dir), load_job_types(JOB_TYPES))
        assert findings == []

        async with open_job_log(runtime.connection) as job_log:
            parts = (runtime.artifacts, runtime.index, runtime.reader, runtime.feed)
            maintenance = Maintenance(job_log, *parts, settings=settings)
            while await maintenance.sweep():
                pass
        await until(lambda: runtime.index.job(made[0]) is None, "the jobs have expired")
    assert deployed.violations == []


async def _use_all(client: NatsTransport) -> None:
    """Whatever a client beside the broker can do, once."""
    asked = [creation("a", artifact="c.bin", artifact_bytes=10), creation("b", permanent=True), creation(gate="never")]
    later = creation(run_at=datetime.now(UTC) + timedelta(hours=1))
    first, dead, endless, scheduled = [job.id for job in await client.create([*asked, later])]
    with pytest.raises(IdempotencyConflict):
        await client.create([creation("a")])
    assert (await client.ended(first)).status is JobStatus.COMPLETED
    assert [chunk async for chunk in client.artifact(first, "c.bin")]
    assert [info.name for info in await client.artifacts(first)] == ["c.bin"]
    assert (await client.ended(dead)).status is JobStatus.DEAD_LETTER
    keyed = creation(run_at=datetime.now(UTC) + timedelta(hours=1), job_key=UniqueKey("k", KeyPolicy.REPLACE))
    (waiting,) = await client.create([keyed])
    assert [job.id for job in await client.create([replace(keyed, priority=JobPriority.HIGH)])] == [waiting.id]
    (after,) = await client.create([creation(after=(waiting.id,), start_before=datetime.now(UTC) + timedelta(days=1))])
    for job_id in (waiting.id, after.id):
        assert (await client.cancel(job_id)).status is JobStatus.CANCELLED
    await client.pause_queue("threads", "a reason", None)
    await client.resume_queue("threads")
    for limits in (Limits.of(concurrency=2), Limits.of()):
        await client.set_queue_limits("threads", limits)
    assert (await client.retry(dead)).status is JobStatus.QUEUED
    assert [event async for event in client.events(dead, None)][-1].job.status is JobStatus.DEAD_LETTER
    for job_id in (endless, scheduled):
        assert (await client.cancel(job_id)).status is JobStatus.CANCELLED
    for job_id in (first, dead, scheduled):
        assert await client.delete(job_id)


async def _use_schedules(client: NatsTransport, runtime: Runtime) -> None:
    """Whatever it can do about schedules, once one of them has a job ahead of it."""
    for overlap in (OverlapPolicy.SKIP, OverlapPolicy.ALLOW):
        recurrence = AskedRecurrence(every=3600)
        await client.schedules.upsert(
            AskedSchedule(name="hourly", payload=creation(), recurrence=recurrence, overlap=overlap)
        )
        ahead = await until(lambda: _ahead(runtime, "hourly"), "its next job is made")
        assert [one.name for one in await client.schedules.all()] == ["hourly"]
        assert (await client.schedules.pause("hourly", paused=True)).paused
        assert (await client.ended(ahead)).status is JobStatus.CANCELLED
        assert (await client.ended(await client.schedules.run("hourly"))).status is JobStatus.COMPLETED
        assert await client.schedules.delete("hourly")
    assert await client.schedules.find("hourly") is None


def _ahead(runtime: Runtime, name: str) -> str | None:
    """The id of the job that is made ahead of a schedule as it is now, once it is there."""
    schedule = runtime.steering.value(SCHEDULE, name, Schedule)
    state = runtime.steering.value(SCHEDULE_STATE, name, ScheduleState)
    is_its_own = schedule is not None and state is not None and schedule.incarnation == state.incarnation
    job_id = state.job_id(state.ahead[0]) if is_its_own and state is not None and state.ahead else None
    return job_id if job_id is not None and _status(runtime, job_id) is not None else None


def _status(runtime: Runtime, job_id: str) -> JobStatus | None:
    found = runtime.index.job(job_id)
    return found.status if found is not None else None


@pytest.mark.parametrize("command", ["doctor", "worker"])
async def test_the_environment_of_the_compose_file_is_what_a_process_needs(
    nats_of_users: Deployed, command: str
) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    name = "worker" if command == "worker" else "api"
    given: dict[str, str] = compose["services"][name]["environment"]
    mounted = {f"/run/secrets/{secret}": Path(one["file"]).name for secret, one in compose["secrets"].items()}
    environment = {
        variable: str(nats_of_users.folder / "secrets" / mounted[value]) if value in mounted else value
        for variable, value in given.items()
        if "_NATS_" in variable
    }
    environment["GQL_JOBS_NATS_URL"] = nats_of_users.url
    environment["PATH"] = os.environ["PATH"]
    async with running_process(
        sys.executable, "-m", "gql_jobs", command, cwd=nats_of_users.folder, env=environment, stdout=PIPE, stderr=STDOUT
    ) as process:
        assert process.stdout is not None
        said = (await asyncio.wait_for(process.stdout.read(), 60)).decode()
    # Before an API process has made the streams each says so and ends.
    if command == "worker":
        assert "Streams are made by API processes, so one of these has to be started first" in said
    else:
        assert "The stream JOBS cannot be had: stream not found" in said


_BUCKET = "KV_gql-jobs-access"
_READING = [
    f"$JS.API.STREAM.MSG.GET.{_BUCKET}",
    f"$JS.API.DIRECT.GET.{_BUCKET}",
    f"$JS.API.DIRECT.GET.{_BUCKET}.$KV.gql-jobs-access.key.a",
    f"$JS.API.CONSUMER.CREATE.{_BUCKET}",
    f"$JS.API.CONSUMER.CREATE.{_BUCKET}.c",
    f"$JS.API.CONSUMER.CREATE.{_BUCKET}.c.$KV.gql-jobs-access.>",
    f"$JS.API.CONSUMER.DURABLE.CREATE.{_BUCKET}.c",
    f"$JS.API.CONSUMER.MSG.NEXT.{_BUCKET}.c",
    f"$JS.API.STREAM.INFO.{_BUCKET}",
    f"$JS.API.STREAM.SNAPSHOT.{_BUCKET}",
]
_BEYOND = {
    "worker": [
        *_READING,
        # Streams that copy the bucket, by a name of their own, or in the place of one that there is.
        *(f"$JS.API.STREAM.{call}.{name}" for call in ("CREATE", "UPDATE") for name in ("copy", "JOBS", "jobs-dlq")),
        *(f"$JS.API.STREAM.{call}.OBJ_artifacts" for call in ("CREATE", "UPDATE", "DELETE", "RESTORE")),
        *(f"$JS.API.STREAM.{call}.JOBS" for call in ("DELETE", "PURGE", "MSG.DELETE", "RESTORE", "SNAPSHOT")),
        *(f"$JS.API.STREAM.{call}.{_BUCKET}" for call in ("DELETE", "PURGE", "MSG.DELETE", "UPDATE")),
        "$KV.gql-jobs-access.key.a",
        "$JS.API.ACCOUNT.PURGE.GQL_JOBS",
        "$SYS.REQ.SERVER.PING",
        "_INBOX_api.a",
        "anything.else",
    ],
    "client": [
        # All but the key of hashes, which the last test below reads by the one call that is allowed.
        *_READING,
        f"$JS.API.CONSUMER.CREATE.{_BUCKET}.c.$KV.gql-jobs-access.signing.*",
        f"$JS.API.CONSUMER.CREATE.{_BUCKET}.c.$KV.gql-jobs-access.*.*",
        *(f"$JS.API.STREAM.{call}.{name}" for call in ("CREATE", "UPDATE") for name in ("copy", "JOBS", "jobs-dlq")),
        *(f"$JS.API.STREAM.{call}.JOBS" for call in ("DELETE", "PURGE", "RESTORE", "SNAPSHOT")),
        "jobs.gate.lease.0.checkpoint",
        "jobs.a.event.started",
        "jobs.a.event.completed",
        "jobs.a.progress",
        "jobs.a.artifact.a",
        "$O.artifacts.C.a",
        "$KV.gql-jobs-access.hmac.a",
        "$JS.API.CONSUMER.MSG.NEXT.JOBS.queue-default-normal",
        "$JS.ACK.JOBS.queue-default-normal.1.1.1.1.0",
        "$JS.API.CONSUMER.CREATE.JOBS.queue-default-normal",
        "workers.forged",
        "$SYS.REQ.SERVER.PING",
    ],
    "doctor": [
        *_READING,
        "jobs.a.event.cancelled",
        "$JS.API.STREAM.DELETE.JOBS",
        "$JS.API.STREAM.CREATE.copy",
        "$JS.API.CONSUMER.MSG.NEXT.JOBS.queue-default-normal",
        "$JS.ACK.JOBS.queue-default-normal.1.1.1.1.0",
    ],
    "keys": [
        "jobs.a.event.cancelled",
        "$JS.API.STREAM.MSG.GET.JOBS",
        "$JS.API.CONSUMER.CREATE.JOBS",
        "$O.artifacts.C.a",
    ],
    "api": [
        "$JS.API.STREAM.DELETE.JOBS",
        "$JS.API.STREAM.PURGE.JOBS",
        f"$JS.API.STREAM.DELETE.{_BUCKET}",
        "$JS.API.STREAM.CREATE.copy",
        "$JS.API.CONSUMER.MSG.NEXT.JOBS.queue-default-normal",
        "$JS.ACK.JOBS.queue-default-normal.1.1.1.1.0",
        "workers.forged",
        "$SYS.REQ.SERVER.PING",
    ],
    "monitoring": [
        *_READING,
        "jobs.a.event.cancelled",
        "$JS.API.STREAM.MSG.GET.JOBS",
        "$SYS.REQ.SERVER.any.RELOAD",
        "$SYS.REQ.SERVER.any.KICK",
        "$SYS.REQ.ACCOUNT.GQL_JOBS.CONNZ",
    ],
}
_OVERHEARD = {
    "worker": ["$KV.>", "$KV.gql-jobs-access.>", "jobs.>", ">", "_INBOX.>", "_INBOX_api.>", "$JS.API.>", "$O.>", "*.>"],
    "client": ["$KV.>", "jobs.>", ">", "_INBOX_api.>", "_INBOX_worker.>", "workers.*"],
    "doctor": ["$KV.>", "jobs.>", ">", "_INBOX_api.>", "_INBOX_worker.>"],
    "keys": ["jobs.>", ">", "_INBOX_api.>", "workers.*"],
    "api": [">", "_INBOX_worker.>", "_INBOX_keys.>", "_INBOX.>"],
    "monitoring": [">", "$SYS.>", "jobs.>", "_INBOX_api.>"],
}


async def test_the_server_takes_nothing_beyond_what_a_part_needs(users: dict[str, Client]) -> None:
    for user, subjects in _BEYOND.items():
        assert [subject for subject in subjects if not await _is_refused(users[user], "Publish", subject)] == [], user


async def test_nobody_hears_what_is_for_others(users: dict[str, Client]) -> None:
    for user, subjects in _OVERHEARD.items():
        heard = [subject for subject in subjects if not await _is_refused(users[user], "Subscription", subject)]
        assert heard == [], user


async def test_a_worker_can_neither_read_nor_forge_a_key_by_what_it_may(
    users: dict[str, Client], nats_of_users: Deployed
) -> None:
    worker, api = users["worker"], users["api"]
    await administration.create_key(nats_of_users.settings("keys"), "backend", scopes=(Scope.READ,))
    before = await _stored_keys(api)
    assert len(before) == 1
    mine = {"durable_name": "mine", "ack_policy": "none", "deliver_policy": "all"}
    made = await worker.request(
        "$JS.API.CONSUMER.CREATE.JOBS.mine", json.dumps({"stream_name": _BUCKET, "config": mine}).encode(), timeout=5
    )
    assert b"does not match" in made.data, "the stream of the body counts, not only that of the subject"
    # What is delivered keeps its own subject, to whatever other it is delivered.
    await worker.publish("jobs.a.event.cancelled", b"{}", headers={"Nats-Rollup": "sub"})
    await worker.request(
        "$JS.API.CONSUMER.CREATE.JOBS.mine", json.dumps({"stream_name": "JOBS", "config": mine}).encode(), timeout=5
    )
    await worker.publish("$JS.API.CONSUMER.MSG.NEXT.JOBS.mine", b'{"batch": 1}', reply="$KV.gql-jobs-access.key.forged")
    target = {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": "$KV.gql-jobs-access.key.forged"}
    refused = await worker.request("jobs.a.scheduled", b"{}", timeout=5, headers=target)
    assert b"target is invalid" in refused.data
    await worker.flush()
    assert await _stored_keys(api) == before
    # An answer of the server is sent to whatever subject it is asked for to, and is no record that lets anybody in.
    await worker.publish("$JS.API.STREAM.INFO.JOBS", b"", reply="$KV.gql-jobs-access.key.forged")
    await worker.flush()
    await until(lambda: _has_more_keys(api, before), "the answer is stored")
    assert len(await administration.list_keys(nats_of_users.settings("keys"))) == 1


async def _has_more_keys(api: Client, before: list[str]) -> bool:
    return len(await _stored_keys(api)) > len(before)


async def test_a_worker_asks_another_one_whether_it_still_runs_a_job(users: dict[str, Client]) -> None:
    worker = users["worker"]

    async def answer(message: Msg) -> None:
        await message.respond(b"yes")

    await worker.subscribe(codec.handover_subject("another"), cb=answer)
    assert (await worker.request(codec.handover_subject("another"), b"", timeout=5)).data == b"yes"


async def test_monitoring_sees_figures_of_the_server(users: dict[str, Client]) -> None:
    for figures in ("VARZ", "JSZ", "HEALTHZ", "STATSZ"):
        answer = json.loads((await users["monitoring"].request(f"$SYS.REQ.SERVER.PING.{figures}", b"", timeout=5)).data)
        assert answer["server"]["name"] == "gql-jobs"


async def test_without_the_password_of_a_user_or_without_tls_nobody_comes_in(nats_of_users: Deployed) -> None:
    settings = nats_of_users.settings("api")
    wrong = settings.model_copy(update={"nats_password": SecretStr("wrong")})
    clear = settings.model_copy(update={"nats_url": nats_of_users.url.replace("tls:", "nats:"), "nats_ca": None})
    await _is_not_let_in(wrong, "Authorization Violation")
    await _is_not_let_in(clear, "CERTIFICATE_VERIFY_FAILED")


async def _is_not_let_in(settings: Settings, reason: str) -> None:
    troubles: list[str] = []

    async def enter() -> None:
        async with connect(settings, "stranger", troubles.append):
            raise AssertionError("the stranger was let in")

    async with in_background(enter()):
        await until(lambda: reason in str(troubles), "the server has refused the stranger")


def test_the_secrets_are_for_their_owner_alone_and_are_not_made_twice(folder: Path) -> None:
    secrets = folder / "secrets"
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in secrets.iterdir()} == {
        "ca.pem",
        "server.pem",
        "server.key",
        "passwords.conf",
        *(f"{user}.password" for user in _BEYOND),
    }
    again = subprocess.run([folder / "make-secrets.sh"], check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "is there already" in again.stderr


async def _stored_keys(api: Client) -> list[str]:
    answer = await api.request(f"$JS.API.STREAM.INFO.{_BUCKET}", b'{"subjects_filter": "$KV.gql-jobs-access.key.*"}')
    return sorted(json.loads(answer.data)["state"].get("subjects") or {})


async def _is_refused(client: Client, kind: str, subject: str) -> bool:
    """Whether the server refuses to take, or to send, messages of that subject."""
    has_refused = asyncio.Event()

    async def failed(error: Exception) -> None:
        if f'{kind} to "{subject}"'.lower() in str(error):
            has_refused.set()

    client._error_cb = failed  # noqa: SLF001
    if kind == "Publish":
        await client.publish(subject, b"{}")
    else:
        await client.subscribe(subject)
    await client.flush()
    with suppress(TimeoutError):
        await asyncio.wait_for(has_refused.wait(), 2)
    return has_refused.is_set()
