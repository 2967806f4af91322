"""Keys that one job of a tenant has at a time, over the API and by its clients."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gql_jobs.client import Client, Key, KeyTaken
from gql_jobs.client.async_client import AsyncClient
from gql_jobs.jobs.unique_keys import UniqueKey
from gql_jobs.log import codec
from gql_jobs.log.keys import KeptKey
from gql_jobs.log.steering import SteeringLog
from gql_jobs.settings import Settings
from tests.api.operations import (
    CANCEL,
    CREATE,
    CREATE_MANY,
    RETRY,
    RETRY_MANY,
    ahead,
    asked,
    create,
    ended,
    find,
    reached,
)
from tests.child_processes import running_process
from tests.client.lossy_line import LossyLine
from tests.job_types.probe_jobs import ProbePayload
from tests.running import ROOT, running_worker
from tests.serving import HOST, ServedApi
from tests.stories import request


def key(policy: str = "RETURN", value: str = "report 7", **more: Any) -> dict[str, Any]:
    """A key as the API takes it."""
    return {"value": value, "policy": policy, **more}


async def test_a_creation_gives_back_rejects_or_replaces(api: ServedApi) -> None:
    first = await create(api, {"steps": 1}, key=key(), runAt=ahead(hours=1))
    again = (await api.ask(CREATE, input=asked({"steps": 2}, key=key())))["createJob"]
    assert (again["deduplicated"], again["job"]["id"], again["job"]["rawPayload"]) == (True, first["id"], {"steps": 1})
    refusal = await api.refusal(CREATE, input=asked(key=key("REJECT")))
    assert refusal["extensions"] == {"code": "KEY_TAKEN", "jobId": first["id"]}
    replaced = (await api.ask(CREATE, input=asked({"steps": 3}, key=key("REPLACE"), runAt=ahead(hours=2))))["createJob"]
    assert (replaced["deduplicated"], replaced["job"]["id"]) == (True, first["id"])
    assert (await find(api, first["id"]))["rawPayload"] == {"steps": 3}
    refusal = await api.refusal(CREATE, input=asked(kind="probeThread", key=key("REPLACE")))
    assert refusal["extensions"] == {"code": "KEY_TAKEN", "jobId": first["id"]}


async def test_a_batch_tells_which_of_its_keys_were_taken(api: ServedApi) -> None:
    first = await create(api, key=key(), runAt=ahead(hours=1))
    inputs = [asked(key=key(value="free")), asked({"steps": 2}, key=key()), asked()]
    made = (await api.ask(CREATE_MANY, inputs=inputs))["createJobs"]
    assert (made["deduplicatedCount"], made["jobs"][1]["id"]) == (1, first["id"])
    refusal = await api.refusal(CREATE_MANY, inputs=[asked(key=key("REJECT", "other")), asked(key=key("REJECT"))])
    assert refusal["extensions"]["code"] == "KEY_TAKEN"
    assert refusal["extensions"]["acceptedInputs"] == [0]
    batch = [asked({"steps": number}, key=key("REPLACE", "many"), runAt=ahead(hours=1)) for number in range(20)]
    ids = {job["id"] for job in (await api.ask(CREATE_MANY, inputs=batch))["createJobs"]["jobs"]}
    assert len(ids) == 1
    assert (await find(api, ids.pop()))["rawPayload"] == {"steps": 19}


async def test_a_job_whose_key_another_one_has_is_neither_retried_by_hand_nor_in_bulk(api: ServedApi) -> None:
    first = await create(api, key=key(), tags=["first"], runAt=ahead(hours=1))
    await api.ask(CANCEL, id=first["id"])
    second = await create(api, key=key(), runAt=ahead(hours=1))
    refusal = await api.refusal(RETRY, id=first["id"])
    assert refusal["extensions"] == {"code": "KEY_TAKEN", "jobId": second["id"]}
    retried = (await api.ask(RETRY_MANY, filter={"tags": ["first"], "status": ["CANCELLED"]}))["retryJobs"]
    assert retried["retriedCount"] == 0
    await api.ask(CANCEL, id=second["id"])
    assert (await api.ask(RETRY, id=first["id"]))["retryJob"]["job"]["status"] == "SCHEDULED"


async def test_what_replaces_a_running_job_runs_after_it(api: ServedApi, settings: Settings, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    async with running_worker(settings):
        first = await create(api, {"gate": str(gate)}, key=key("REPLACE"))

        await reached(api, first["id"], "PROCESSING")
        last = None
        for steps in (1, 2, 3):
            last = await create(api, {"steps": steps}, key=key("REPLACE"))
        assert last is not None
        assert (last["id"] != first["id"], last["status"]) == (True, "WAITING")
        gate.touch()
        done = await ended(api, last["id"])
        assert done["rawPayload"] == {"steps": 3}
        assert (await find(api, first["id"]))["finishedAt"] <= done["startedAt"]


@pytest.mark.parametrize("losing", [1, 3])
async def test_a_lost_answer_makes_no_second_job_of_a_key(api: ServedApi, losing: int) -> None:
    line = LossyLine(api.port)
    async with line.listening(), AsyncClient(line.url, patience=20) as client:
        later = datetime.now(UTC) + timedelta(hours=1)
        line.losing = losing
        first = await client.create(ProbePayload(steps=1), type="probe", key=Key("k", "replace"), run_at=later)
        line.losing = losing
        again = await client.create(ProbePayload(steps=2), type="probe", key=Key("k", "replace"), run_at=later)
        assert (again.id, again.deduplicated) == (first.id, True)
        assert [job.id async for job in client.jobs()] == [first.id]
        with pytest.raises(KeyTaken) as refused:
            await client.create(ProbePayload(), type="probe", key=Key("k", "reject"))
        assert refused.value.extensions["jobId"] == first.id


_DIES = """
import asyncio, os, signal
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.unique_keys import UniqueKey
from gql_jobs.jetstream.connection import connect
from gql_jobs.log import codec, job_log
from gql_jobs.log.commands import JobCommands
from gql_jobs.settings import Settings
from tests.stories import request

append = job_log.JobLog.append

async def dying(self, write, **more):
    if not write.subject.startswith("jobs.gate."):
        os.kill(os.getpid(), signal.SIGKILL)
    return await append(self, write, **more)

async def main():
    job_log.JobLog.append = dying
    settings = Settings()
    async with connect(settings, "dies") as connection, job_log.open_job_log(connection) as log:
        await JobCommands(log, settings).create(request(key=UniqueKey("report 7")))

asyncio.run(main())
"""


async def test_a_kill_9_between_the_key_and_its_job_leaves_the_key_to_the_next(
    api: ServedApi, settings: Settings
) -> None:
    environment = {"GQL_JOBS_NATS_URL": str(settings.nats_url), "PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}
    environment |= {f"GQL_JOBS_{name.upper()}": str(getattr(settings, name)) for name in ("nats_user", "nats_password")}
    environment = {name: value for name, value in environment.items() if value != "None"}
    async with running_process(sys.executable, "-c", _DIES, env=environment, cwd=ROOT, stderr=PIPE) as process:
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == -9, err.decode()
    steering = SteeringLog(api.runtime.commands._log)  # noqa: SLF001
    claimed = await steering.read(codec.KEYS, KeptKey("report 7", None).name)
    assert claimed is not None
    made = (await api.ask(CREATE, input=asked(key=key("REJECT"))))["createJob"]
    assert made["deduplicated"] is False
    assert (await api.runtime.commands.create(request(key=UniqueKey("report 7")))).id == made["job"]["id"]


async def test_code_that_waits_gives_keys_as_well(api: ServedApi) -> None:
    def use() -> None:
        with Client(f"http://{HOST}:{api.port}") as client:
            later = datetime.now(UTC) + timedelta(hours=1)
            first = client.create(ProbePayload(), type="probe", key=Key("k"), idempotency_key="once", run_at=later)
            second = client.create(ProbePayload(), type="probe", key=Key("k"), after=[first])
            assert (second.id, second.deduplicated) == (first.id, True)
            third = client.create(ProbePayload(), type="probe", after=[first.state()], start_before=later)
            assert third.state().key is None
            assert first.state().key == "k"

    await asyncio.to_thread(use)
