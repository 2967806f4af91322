"""Three NATS nodes with three copies of everything: what one node does must also hold while its leader is killed."""

import asyncio
import json
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from gql.transport.exceptions import TransportQueryError

from benchmarks.chaos.servers import Node, nodes
from benchmarks.chaos.stream import connected, leader
from gql_jobs.jetstream.errors import FENCE_REFUSALS
from gql_jobs.jobs.model import new_job_id
from gql_jobs.log import codec
from gql_jobs.log.job_log import whole_job
from gql_jobs.log.streams import stream_info
from gql_jobs.settings import Settings
from tests.api.operations import CREATE, FEED, asked, create, ended
from tests.deadline import until
from tests.running import running_worker
from tests.serving import Data, ServedApi, serving

LIFE = ["JobQueued", "JobStarted", "JobCompleted"]
BEFORE, AFTER = 5, 10


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[Node]]:
    """Three nodes that have found each other and a leader."""
    made = nodes(tmp_path / "cluster", 3, sync_always=False, environment={})
    async with asyncio.TaskGroup() as group, httpx.AsyncClient() as http:
        for node in made:
            group.create_task(node.program.run())
        try:
            for node in made:
                await until(lambda node=node: node.healthy(http), f"{node.name} is healthy", within=20)  # type: ignore[misc]
            yield made
        finally:
            for node in made:
                node.program.stop()
                node.program.signal(signal.SIGKILL)


@pytest.fixture
def settings(cluster: list[Node], tmp_path: Path) -> Settings:
    """Three copies, and a lease that a lost ack does not make long."""
    return Settings(nats_url=",".join(node.url for node in cluster), data_dir=tmp_path / "data", replicas=3, ack_wait=2)


async def test_three_copies_and_creations_and_subscriptions_that_outlive_the_leader(
    cluster: list[Node], settings: Settings
) -> None:
    async with serving(settings) as api, running_worker(settings):
        for stream in codec.JOBS_STREAM, codec.DEAD_LETTERS_STREAM:
            assert (await stream_info(api.runtime.connection, stream)).config["num_replicas"] == 3, stream
        job = await ended(api, (await create(api, {"steps": 2}))["id"])
        assert job["rawResult"]["attempt"] == 1
        await _crossing_writes_are_refused_with_the_other_number(settings)
        await _of_creations_that_cross_one_makes_the_job(api)

        asked_for = [f"key-{number}" for number in range(BEFORE + AFTER)]
        seen: list[Data] = []
        async with aclosing(api.events(FEED, filter={"tags": ["watched"]})) as events:
            watching = asyncio.create_task(_until_all_have_ended(events, len(asked_for), seen))
            await api.subscribers(1)
            made = [await _created(api, key) for key in asked_for[:BEFORE]]
            await _kill_the_leader(cluster, settings)
            made += [await _created(api, key) for key in asked_for[BEFORE:]]
            async with asyncio.timeout(30):
                await watching
    assert len(set(made)) == len(asked_for)
    lives: defaultdict[str, list[str]] = defaultdict(list)
    for event in seen:
        lives[event["job"]["id"]].append(event["__typename"])
    assert lives.keys() == set(made)
    # A node that dies may take the ack of a delivery with it; a job is then started once more, and ends once.
    assert {job_id: _without_takeovers(life) for job_id, life in lives.items()} == dict.fromkeys(made, LIFE)
    assert len({event["cursor"] for event in seen}) == len(seen)


def _without_takeovers(life: list[str]) -> list[str]:
    return [kind for number, kind in enumerate(life) if number == 0 or kind != "JobStarted" or life[number - 1] != kind]


async def _until_all_have_ended(events: AsyncIterator[Data], number: int, seen: list[Data]) -> None:
    ended_so_far = 0
    while ended_so_far < number:
        event = await anext(events)
        if event["__typename"] != "JobProgress":
            seen.append(event)
        ended_so_far += event["__typename"] == "JobCompleted"


async def _created(api: ServedApi, key: str) -> str:
    """The id of the job of that key: asked for again while there is no leader, as a client would."""

    async def once() -> str | None:
        try:
            made = await api.ask(CREATE, input=asked(tags=["watched"], idempotencyKey=key))
        except TransportQueryError as error:
            (refusal,) = error.errors or []
            assert refusal["extensions"]["code"] == "QUEUE_UNAVAILABLE", refusal
            return None
        return str(made["createJob"]["job"]["id"])

    return await until(once, f"the job of {key} is created", within=20)


async def _kill_the_leader(cluster: list[Node], settings: Settings) -> None:
    """SIGKILL the node that leads the stream of jobs, and leave it down."""
    client = await connected(settings.nats_url or "")
    name = await leader(client, codec.JOBS_STREAM)
    await client.close()
    (leading,) = [node for node in cluster if node.name == name]
    leading.program.hold()
    assert leading.program.signal(signal.SIGKILL)
    await leading.program.ended(within=5)


async def _crossing_writes_are_refused_with_the_other_number(settings: Settings) -> None:
    """A write that meets one still on its way to the copies; on a single node there is no such moment."""
    client = await connected(settings.nats_url or "")
    job_id = new_job_id()
    headers = whole_job(job_id, 0).headers

    async def write() -> int:
        answer = await client.request(codec.checkpoint_subject(job_id), b"{}", timeout=5, headers=headers)
        return int(json.loads(answer.data).get("error", {}).get("err_code", 0))

    codes = Counter(await asyncio.gather(*(write() for _ in range(20))))
    await client.close()
    assert codes[0] == 1
    assert codes.keys() <= {0, *FENCE_REFUSALS}
    assert codes[10164]


async def _of_creations_that_cross_one_makes_the_job(api: ServedApi) -> None:
    answers = await asyncio.gather(*(api.ask(CREATE, input=asked(idempotencyKey="once")) for _ in range(20)))
    made = [answer["createJob"] for answer in answers]
    assert len({creation["job"]["id"] for creation in made}) == 1
    assert [creation["deduplicated"] for creation in made].count(False) == 1
