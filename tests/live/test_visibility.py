"""What a viewer may not see is not there, over index, stream and bus, and takes as long as what does not exist."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from gql_jobs.graphql.context import Session
from gql_jobs.jobs.errors import NotFound
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.model import Cursor, new_job_id
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.viewer import ANYBODY, EVERYTHING
from gql_jobs.web.runtime import Runtime
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import request
from tests.viewers import viewer

RED, BLUE = viewer("ada", "red"), viewer("bob", "blue")


async def test_a_hidden_job_is_found_by_no_read_and_watched_by_nobody(runtime: Runtime) -> None:
    created = await runtime.commands.create(request(), RED)
    for _ in ("as the stream has it", "as the index has it"):
        assert await runtime.job(created.id, BLUE.visibility) is None
        assert await runtime.artifact(created.id, "a.txt", BLUE.visibility) is None
        with pytest.raises(NotFound):
            await runtime.watch.job(created.id, BLUE)
        for asked in (runtime.commands.cancel(created.id, BLUE), runtime.commands.retry(created.id, BLUE)):
            with pytest.raises(NotFound):
                await asked
        found = await runtime.job(created.id, RED.visibility)
        assert found is not None
        assert found.spec.tenant == "red"
        await runtime.feed.read_back(created)
    assert await runtime.job(created.id, EVERYTHING) is not None


async def test_a_hidden_job_takes_the_lookup_of_one_that_does_not_exist(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await runtime.commands.create(request(), RED)
    await runtime.feed.read_back(created)
    asked: list[str] = []
    api = runtime.connection.api

    async def counted(call: str, *arguments: object, **options: object) -> object:
        if call.startswith("STREAM.MSG.GET.JOBS"):
            asked.append(call)
        return await api(call, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(runtime.connection, "api", counted)
    ways: dict[str, Callable[[str], Awaitable[object]]] = {
        "job": lambda job_id: runtime.job(job_id, BLUE.visibility),
        "artifact": lambda job_id: runtime.artifact(job_id, "a.txt", BLUE.visibility),
        "watch": lambda job_id: runtime.watch.job(job_id, BLUE),
        "cancel": lambda job_id: runtime.commands.cancel(job_id, BLUE),
        "retry": lambda job_id: runtime.commands.retry(job_id, BLUE),
    }
    for name, way in ways.items():
        calls = []
        for job_id in (created.id, new_job_id()):
            asked.clear()
            with suppress(NotFound):
                assert await way(job_id) is None
            calls.append(list(asked))
        assert calls[0] == calls[1], name
        assert calls[0], name


async def test_a_hidden_job_takes_the_same_time_however_large_it_is(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read a payload takes long enough to tell that there is one, so it is not read."""
    monkeypatch.setattr("gql_jobs.index.index._MAX_RECENT", 0)
    created = await runtime.commands.create(request(ProbePayload(saves="x" * 500_000)), RED)
    await runtime.feed.read_back(created)
    read: list[str] = []
    runtime.index._database.set_trace_callback(read.append)  # noqa: SLF001
    assert await runtime.job(created.id, BLUE.visibility) is None
    assert await runtime.artifact(created.id, "a.txt", BLUE.visibility) is None
    for asked in (
        runtime.watch.job(created.id, BLUE),
        runtime.commands.cancel(created.id, BLUE),
        runtime.commands.retry(created.id, BLUE),
    ):
        with pytest.raises(NotFound):
            await asked
    of_the_job = [sql for sql in read if created.id in sql]
    assert len(of_the_job) >= 5
    assert not any("payload" in sql for sql in of_the_job)
    assert await runtime.job(created.id, RED.visibility) is not None
    assert "payload" in read[-1]


async def test_live_events_and_those_behind_a_cursor_are_those_of_visible_jobs(runtime: Runtime) -> None:
    others = await runtime.commands.create(request(), BLUE)
    live = await runtime.watch.all(JobFilter(), RED)
    own = await runtime.commands.create(request(), RED)
    await runtime.commands.cancel(others.id, BLUE)
    await runtime.feed.read_back(await runtime.commands.cancel(own.id, RED))
    resumed = await runtime.watch.all(JobFilter(), RED, Cursor(0))
    for watching in (live, resumed):
        events = [await anext(watching), await anext(watching)]
        assert [(event.job.id, event.kind) for event in events] == [(own.id, Kind.QUEUED), (own.id, Kind.CANCELLED)]
        watching.close()


async def test_a_subscription_goes_on_with_what_its_session_sees_at_each_event(runtime: Runtime) -> None:
    session = Session(RED)
    watching = await runtime.watch.all(JobFilter(), session)
    first = await runtime.commands.create(request(), RED)
    await runtime.feed.read_back(await runtime.commands.create(request(), BLUE))
    assert (await anext(watching)).job.id == first.id
    session.viewer = BLUE
    await runtime.commands.create(request(), RED)
    last = await runtime.commands.create(request(), BLUE)
    assert (await anext(watching)).job.spec.tenant == "blue"
    assert (await anext(watching)).job.id == last.id
    watching.close()


async def test_a_filter_of_a_watched_list_sees_what_the_session_sees_now_not_what_it_saw_then(runtime: Runtime) -> None:
    session = Session(RED)
    watching = await runtime.watch.all(JobFilter(type=frozenset({"probe"}), visibility=RED.visibility), session)
    session.viewer = ANYBODY
    created = await runtime.commands.create(request(), BLUE)
    assert (await anext(watching)).job.id == created.id
    watching.close()
