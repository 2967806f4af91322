"""Queues are paused and resumed over the API: what is told of it, to whom, and what is refused."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.jetstream.connection import Connection
from gql_jobs.jobs.errors import no_such_queue
from gql_jobs.jobs.model import JobPriority
from gql_jobs.jobs.viewer import Scope
from gql_jobs.log import codec
from gql_jobs.log.streams import consumers, ensure_consumers
from gql_jobs.settings import Settings
from tests.api.operations import ahead, create, ended
from tests.deadline import until
from tests.guarded import guarded
from tests.job_types import dying_process
from tests.running import running_worker
from tests.serving import Data, ServedApi, api_process, free_port, serving

PAUSE = """mutation ($name: String!, $reason: String, $until: DateTime) {
  pauseQueue(name: $name, reason: $reason, until: $until) {
    queue { name counts { status count } paused { at by reason until } }
  }
}"""
RESUME = "mutation ($name: String!) { resumeQueue(name: $name) { queue { name paused { at } } } }"
WAITING = "query ($id: ID!) { job(id: $id) { status waiting { reason detail until ahead } } }"
CHANGES = "subscription { queuesChanged(maxPerSecond: 10) { name paused { reason } } }"


async def _pause(api: ServedApi, name: str = "default", **given: Any) -> Data:
    queue: Data = (await api.ask(PAUSE, name=name, **given))["pauseQueue"]["queue"]
    return queue


async def test_a_pause_is_shown_with_its_queue_and_with_each_job_that_waits_for_it(api: ServedApi) -> None:
    first, second = await create(api), await create(api)
    queue = await _pause(api, reason="the bank is closed")
    assert queue["name"] == "default"
    assert {"status": "QUEUED", "count": 2} in queue["counts"]
    paused = queue["paused"]
    assert (paused["by"], paused["reason"], paused["until"]) == (None, "the bank is closed", None)
    assert abs(datetime.fromisoformat(paused["at"]) - datetime.now(UTC)) < timedelta(seconds=10)
    for job, number in ((first, 0), (second, 1)):
        shown = (await api.ask(WAITING, id=job["id"]))["job"]
        assert shown == {
            "status": "QUEUED",
            "waiting": {
                "reason": "QUEUE_PAUSED",
                "detail": "the queue `default` is paused: the bank is closed",
                "until": None,
                "ahead": number,
            },
        }
    assert (await api.ask(RESUME, name="default"))["resumeQueue"]["queue"]["paused"] is None
    assert (await api.ask(WAITING, id=first["id"]))["job"]["waiting"]["reason"] == "NO_WORKER"


async def test_the_end_of_a_pause_is_told_with_the_queue_and_the_job(api: ServedApi) -> None:
    job, end = await create(api), ahead(hours=1)
    told = (await _pause(api, until=end))["paused"]["until"]
    assert datetime.fromisoformat(told) == datetime.fromisoformat(end)
    assert (await api.ask(WAITING, id=job["id"]))["job"]["waiting"]["until"] == told


async def test_who_watches_queues_is_told_when_a_pause_begins_and_when_it_ends_by_itself(api: ServedApi) -> None:
    async with aclosing(api.events(CHANGES)) as changes, asyncio.timeout(20):
        assert await _of_default(changes) is None
        await _pause(api, reason="for a moment", until=ahead(seconds=1.5))
        assert await _of_default(changes) == {"reason": "for a moment"}
        assert await _of_default(changes) is None


async def _of_default(changes: AsyncIterator[Any]) -> Data | None:
    """The pause of the queue ``default`` in the next figures."""
    (queue,) = [queue for queue in await anext(changes) if queue["name"] == "default"]
    paused: Data | None = queue["paused"]
    return paused


@pytest.mark.parametrize(
    ("given", "argument", "message"),
    [
        ({"reason": "a\nb"}, "reason", "reason must have 1 to 500 printable characters, or be left out."),
        ({"reason": "a" * 501}, "reason", "reason must have 1 to 500 printable characters, or be left out."),
        ({"until": "2020-01-01T00:00:00Z"}, "until", "until must be in the future; to end a pause, resume the queue."),
        ({"until": "2200-01-01T00:00:00Z"}, "until", "until must be before the year 2200; leave it out for no end."),
    ],
)
async def test_what_can_be_no_pause_is_refused_in_a_sentence(
    api: ServedApi, given: Data, argument: str, message: str
) -> None:
    refusal = await api.refusal(PAUSE, **{"name": "default", **given})
    assert refusal["message"] == message
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": argument}
    assert api.runtime.pauses.now() == {}


@pytest.mark.parametrize("name", ["nobody", "default.*", ""])
async def test_a_queue_that_there_is_not_cannot_be_paused(api: ServedApi, name: str) -> None:
    refusal = await api.refusal(PAUSE, name=name)
    assert refusal["message"] == no_such_queue(name, api.runtime.registry.queues)
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "name"}
    assert api.runtime.pauses.now() == {}


async def test_a_queue_that_is_not_known_cannot_be_resumed(api: ServedApi) -> None:
    refusal = await api.refusal(RESUME, name="nobody")
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "name"}


async def test_a_queue_of_an_earlier_version_can_be_paused_and_is_listed(api: ServedApi, settings: Settings) -> None:
    await ensure_consumers(api.runtime.connection, ("mails",), settings.ack_wait)
    assert (await _pause(api, "mails"))["paused"] is not None
    listed = (await api.ask("{ queues { name paused { at } } }"))["queues"]
    assert "mails" in [queue["name"] for queue in listed if queue["paused"]]
    assert (await api.ask(RESUME, name="mails"))["resumeQueue"]["queue"]["paused"] is None


async def test_every_process_knows_a_pause_and_any_of_them_ends_it(api: ServedApi, settings: Settings) -> None:
    async with serving(settings) as other:
        await _pause(api, reason="the bank is closed")
        pauses = other.runtime.pauses
        await until(lambda: pauses.of("default") is not None, "the other process knows it")
        await other.ask(RESUME, name="default")
        await until(lambda: not api.runtime.pauses.now(), "the first one knows that too")


async def test_an_index_that_is_kept_still_knows_the_pause_when_the_process_starts_again(settings: Settings) -> None:
    async with serving(settings) as api:
        await _pause(api, reason="the bank is closed")
    async with serving(settings) as api:
        pause = api.runtime.pauses.of("default")
        assert pause is not None
        assert pause.reason == "the bank is closed"


async def test_who_has_paused_a_queue_is_told_and_only_who_operates_all_may(settings: Settings) -> None:
    pause = 'mutation { pauseQueue(name: "default", reason: "the bank is closed") { queue { paused { by reason } } } }'
    async with guarded(settings) as api:
        everything = frozenset(Scope)
        within = await api.new_key("shop", everything, tenant="acme")
        reader = await api.new_key("reader", frozenset({Scope.READ, Scope.CONTROL}))
        for key in (within, reader):
            answer = (await api.post(pause, key)).json()
            assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        answer = (await api.post(pause, api.key)).json()
        assert answer["data"]["pauseQueue"]["queue"]["paused"] == {"by": "key:operator", "reason": "the bank is closed"}
        job = await api.create()
        asked = f'{{ job(id: "{job}") {{ waiting {{ detail }} }} queues {{ name paused {{ by reason }} }} }}'
        told = (await api.post(asked, api.key)).json()["data"]
        said = "the queue `default` is paused by key:operator: the bank is closed"
        assert told["job"]["waiting"]["detail"] == said
        (shown,) = [queue for queue in (await _queues(api, within)) if queue["name"] == "default"]
        assert shown["paused"] == {"by": None, "reason": "the bank is closed"}


async def test_who_may_see_queues_is_told_which_there_are_if_there_is_none_of_a_name(settings: Settings) -> None:
    pause = 'mutation { pauseQueue(name: "mial") { queue { name } } }'
    async with guarded(settings) as api:
        await ensure_consumers(api.api.runtime.connection, ("secret",), settings.ack_wait)
        paused = (await api.post('mutation { pauseQueue(name: "secret") { queue { name } } }', api.key)).json()
        assert paused["data"]["pauseQueue"]["queue"]["name"] == "secret"
        refusal = (await api.post(pause, api.key)).json()["errors"][0]
        known = {*api.api.runtime.registry.queues, "secret"}
        assert refusal["message"] == no_such_queue("mial", sorted(known))
        creator = await api.new_key("creator", frozenset({Scope.CREATE, Scope.OPERATE}))
        refusal = (await api.post(pause, creator)).json()["errors"][0]
        listed = [queue["name"] for queue in await _queues(api, creator)]
        assert refusal["message"] == f"There is no queue 'mial'; known are: {', '.join(listed)}."
        assert "secret" not in listed
        within = await api.new_key("shop", frozenset(Scope), tenant="acme")
        refusal = (await api.post(pause, within)).json()["errors"][0]
        assert (refusal["extensions"]["code"], "known" in refusal["message"]) == ("FORBIDDEN", False)


async def _queues(api: Any, key: str) -> list[Data]:
    answer = await api.post("{ queues { name paused { by reason } } }", key)
    queues: list[Data] = answer.json()["data"]["queues"]
    return queues


async def _paused_consumers(connection: Connection) -> set[str]:
    return {consumer.name for consumer in await consumers(connection) if consumer.paused}


async def test_a_process_that_is_killed_before_it_pauses_the_consumers_leaves_that_to_the_next_one(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    dying = settings.model_copy(update={"data_dir": tmp_path / "dying"})
    async with running_worker(settings) as worker:
        await worker.started.wait()
        program = (dying_process.__name__, "gql_jobs")
        async with api_process(dying, free_port(), program=program) as (api, process):
            asked = asyncio.create_task(api.refusal(PAUSE, name="default", reason="the bank is closed"))
            assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGKILL
            await asyncio.wait([asked])
        assert await _paused_consumers(connection) == set()
        async with serving(settings) as api:
            wanted = {codec.consumer_name("default", priority) for priority in JobPriority}
            assert await until(lambda: _paused_consumers(connection), "the next one pauses them") <= wanted
            await until(lambda: _are_paused(connection, wanted), "all of them")
            job = await create(api)
            await ended(api, (await create(api, kind="probeThread"))["id"])
            assert (await api.ask(WAITING, id=job["id"]))["job"]["status"] == "QUEUED"


async def _are_paused(connection: Connection, names: set[str]) -> bool:
    return await _paused_consumers(connection) == names
