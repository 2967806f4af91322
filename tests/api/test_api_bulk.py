"""Bulk actions: the number that is shown is the number of jobs that are touched, whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gql_jobs.graphql.inputs import filter_of
from gql_jobs.jobs import bulk
from gql_jobs.jobs.errors import QueueFull, QueueUnavailable
from gql_jobs.jobs.model import new_job_id
from gql_jobs.jobs.viewer import ANYBODY, Scope, ViewLimits
from gql_jobs.live import bulk_runs
from gql_jobs.live.bulk_watches import RunWatch
from gql_jobs.log.commands import JobCommands
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, RETRY, asked, create_many, find, history
from tests.deadline import until
from tests.guarded import EVERY, guarded
from tests.serving import Api, Data, ServedApi, api_process, free_port, serving

PLAN = """
mutation ($action: BulkAction!, $filter: JobFilter, $group: String) {
  planBulk(action: $action, filter: $filter, deadLetterGroup: $group) {
    token action count expiresAt sample { __typename id status }
  }
}
"""
_RUN = "id action state planned done skipped failed startedAt finishedAt"
RUN = f"""
mutation ($token: String!, $rate: Float, $first: Int) {{
  runBulk(token: $token, maxPerSecond: $rate, first: $first) {{ {_RUN} }}
}}
"""
STOP = f"mutation ($id: ID!) {{ stopBulk(id: $id) {{ {_RUN} }} }}"
LOOK = f"query ($id: ID!) {{ bulkRun(id: $id) {{ {_RUN} }} }}"
FOLLOW = f"subscription ($id: ID!) {{ bulkProgress(id: $id) {{ {_RUN} }} }}"
MINE = {"tags": ["mine"]}


async def _cancelled(api: Api, number: int) -> list[str]:
    """Jobs that can be retried, the oldest first."""
    jobs = await create_many(api, [asked(tags=["mine"]) for _ in range(number)])
    for job_id in jobs:
        await api.ask(CANCEL, id=job_id)
    return jobs


async def _plan(api: Api, action: str = "RETRY", **variables: Any) -> Data:
    plan: Data = (await api.ask(PLAN, action=action, **{"filter": MINE, **variables}))["planBulk"]
    return plan


async def _run(api: Api, token: str, **variables: Any) -> Data:
    """A run, once it has ended."""
    run = (await api.ask(RUN, token=token, **variables))["runBulk"]
    return await _ended(api, run["id"])


async def _ended(api: Api, run_id: str) -> Data:
    async def is_over() -> Data | None:
        run: Data = (await api.ask(LOOK, id=run_id))["bulkRun"]
        return run if run["state"] != "RUNNING" else None

    return await until(is_over, "the run has ended", within=20)


def _counts(run: Data) -> tuple[str, int, int, int, int]:
    return run["state"], run["planned"], run["done"], run["skipped"], run["failed"]


async def _states(api: Api, jobs: list[str]) -> list[str]:
    return [(await find(api, job_id))["status"] for job_id in jobs]


async def test_a_run_does_what_its_plan_has_counted_and_leaves_out_what_has_moved_since(api: ServedApi) -> None:
    jobs = await _cancelled(api, 5)
    (running,) = await create_many(api, [asked(tags=["mine"])])
    plan = await _plan(api)
    assert (plan["action"], plan["count"]) == ("RETRY", 5)
    assert [job["id"] for job in plan["sample"]] == jobs
    assert {job["status"] for job in plan["sample"]} == {"CANCELLED"}
    # One moves and comes back, one moves, and another one would match by now.
    await api.ask(RETRY, id=jobs[0])
    await api.ask(CANCEL, id=jobs[0])
    await api.ask(RETRY, id=jobs[1])
    await api.ask(CANCEL, id=running)
    run = await _run(api, plan["token"])
    assert _counts(run) == ("DONE", 3, 3, 0, 0)
    assert run["finishedAt"] is not None
    assert await _states(api, [*jobs, running]) == ["CANCELLED", *["QUEUED"] * 4, "CANCELLED"]


async def test_a_job_that_moves_between_its_count_and_its_turn_is_skipped_and_counted(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await _cancelled(api, 3)
    plan = await _plan(api)
    retry = JobCommands.retry

    async def retry_after_another(self: JobCommands, job_id: str, *arguments: Any, **options: Any) -> Any:
        if job_id == jobs[1]:
            await retry(self, job_id)
            await self.cancel(job_id)
        return await retry(self, job_id, *arguments, **options)

    monkeypatch.setattr(JobCommands, "retry", retry_after_another)
    assert _counts(await _run(api, plan["token"])) == ("DONE", 3, 2, 1, 0)
    assert await _states(api, jobs) == ["QUEUED", "CANCELLED", "QUEUED"]


async def test_a_trial_of_one_is_left_out_by_the_run_of_the_rest(api: ServedApi) -> None:
    jobs = await _cancelled(api, 4)
    plan = await _plan(api)
    assert _counts(await _run(api, plan["token"], first=1)) == ("DONE", 1, 1, 0, 0)
    assert await _states(api, jobs) == ["QUEUED", *["CANCELLED"] * 3]
    assert _counts(await _run(api, plan["token"])) == ("DONE", 3, 3, 0, 0)
    assert _counts(await _run(api, plan["token"])) == ("DONE", 0, 0, 0, 0)


async def test_jobs_are_cancelled_in_bulk_as_well(api: ServedApi) -> None:
    jobs = await create_many(api, [asked(tags=["mine"]) for _ in range(3)])
    await create_many(api, [asked(tags=["other"])])
    plan = await _plan(api, "CANCEL")
    assert _counts(await _run(api, plan["token"])) == ("DONE", 3, 3, 0, 0)
    assert await _states(api, jobs) == ["CANCELLED"] * 3
    everything = await _plan(api, "CANCEL", filter=None)
    assert everything["count"] == 1


async def test_a_run_at_a_rate_is_followed_and_stopped_before_its_next_job(api: ServedApi) -> None:
    jobs = await _cancelled(api, 6)
    plan = await _plan(api)
    run = (await api.ask(RUN, token=plan["token"], rate=2.0))["runBulk"]
    assert _counts(run) == ("RUNNING", 6, 0, 0, 0)
    states = []
    async with aclosing(api.events(FOLLOW, id=run["id"])) as stream, asyncio.timeout(20):
        async for state in stream:
            states.append(state)
            if state["done"] == 1:
                stopped = (await api.ask(STOP, id=run["id"]))["stopBulk"]
                assert stopped["state"] == "STOPPED"
    assert states[0]["state"] == "RUNNING"
    last = states[-1]
    assert last["state"] == "STOPPED"
    assert last["done"] < 6
    statuses = await _states(api, jobs)
    assert statuses.count("QUEUED") == last["done"]
    assert _counts(await _run(api, plan["token"])) == ("DONE", 6 - last["done"], 6 - last["done"], 0, 0)


async def test_a_run_goes_on_after_nats_was_away(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = await _cancelled(api, 3)
    plan = await _plan(api)
    retry, refusals = JobCommands.retry, ["before", "after"]
    monkeypatch.setattr(bulk_runs, "_RETRY_PAUSE", 0.01)

    async def retry_in_an_outage(self: JobCommands, job_id: str, *arguments: Any, **options: Any) -> Any:
        if job_id == jobs[0] and refusals:
            if refusals.pop(0) == "after":
                await retry(self, job_id, *arguments, **options)
                raise QueueUnavailable("It may have been stored.", job_id)
            raise QueueUnavailable("Nothing was stored.")
        return await retry(self, job_id, *arguments, **options)

    monkeypatch.setattr(JobCommands, "retry", retry_in_an_outage)
    assert _counts(await _run(api, plan["token"])) == ("DONE", 3, 3, 0, 0)


async def test_an_unexpected_error_counts_and_stops_nothing(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = await _cancelled(api, 3)
    plan = await _plan(api)
    retry = JobCommands.retry

    async def fail_once(self: JobCommands, job_id: str, *arguments: Any, **options: Any) -> Any:
        if job_id == jobs[1]:
            raise RuntimeError("it broke")
        return await retry(self, job_id, *arguments, **options)

    monkeypatch.setattr(JobCommands, "retry", fail_once)
    assert _counts(await _run(api, plan["token"])) == ("DONE", 3, 2, 0, 1)
    assert jobs[1] in caplog.text


async def test_a_run_whose_process_was_killed_says_so_and_is_continued_by_another_process(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(
            serving(settings.model_copy(update={"data_dir": settings.data_dir / "b"}))
        )
        first, process = await stack.enter_async_context(api_process(settings, free_port()))
        jobs = await _cancelled(first, 10)
        plan = await _plan(first)
        run = (await first.ask(RUN, token=plan["token"], rate=4.0))["runBulk"]

        async def has_begun() -> bool:
            return bool((await first.ask(LOOK, id=run["id"]))["bulkRun"]["done"])

        await until(has_begun, "it has begun")
        assert (await other.ask(LOOK, id=run["id"]))["bulkRun"]["state"] == "RUNNING"
        process.kill()
        await process.wait()
        async with aclosing(other.events(FOLLOW, id=run["id"])) as stream, asyncio.timeout(30):
            assert [state["state"] async for state in stream][-1] == "INTERRUPTED"
        again = await _run(other, plan["token"])
        assert (again["state"], again["skipped"], again["failed"]) == ("DONE", 0, 0)
        assert again["done"] < 10
        assert await _states(other, jobs) == ["QUEUED"] * 10


async def test_a_run_whose_process_was_asked_to_end_is_interrupted_at_once(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(
            serving(settings.model_copy(update={"data_dir": settings.data_dir / "b"}))
        )
        first, process = await stack.enter_async_context(api_process(settings, free_port()))
        await _cancelled(first, 3)
        plan = await _plan(first)
        run = (await first.ask(RUN, token=plan["token"], rate=0.1))["runBulk"]
        process.terminate()
        await process.wait()
        assert (await other.ask(LOOK, id=run["id"]))["bulkRun"]["state"] == "INTERRUPTED"


async def test_two_runs_of_a_plan_in_two_processes_do_each_job_once(settings: Settings) -> None:
    async with (
        serving(settings) as first,
        serving(settings.model_copy(update={"data_dir": settings.data_dir / "b"})) as other,
    ):
        jobs = await _cancelled(first, 40)
        plan = await _plan(first)
        runs = await asyncio.gather(*[_run(api, plan["token"]) for api in (first, other)])
        assert [run["state"] for run in runs] == ["DONE", "DONE"]
        for run in runs:
            assert run["planned"] == run["done"] + run["skipped"] + run["failed"]
        assert sum(run["done"] for run in runs) == 40
        for job_id in jobs:
            kinds = [event["__typename"] for event in await history(first, job_id)]
            assert kinds == ["JobQueued", "JobCancelled", "JobQueued"]


async def test_whether_a_run_goes_on_is_told_by_no_clock_of_another_machine(api: ServedApi) -> None:
    access, now = api.runtime.access, datetime.now(UTC)
    for hours in -1, 1:
        run = bulk.BulkRun(
            id=new_job_id(),
            action=bulk.BulkAction.RETRY,
            state=bulk.BulkState.RUNNING,
            planned=1,
            started_at=now + timedelta(hours=hours),
            heard_at=now + timedelta(hours=hours),
            subject=ANYBODY.subject,
            seen_by=bulk.mark_of(ANYBODY.visibility),
        )
        await access.keep(f"bulk.{run.id}", msgspec.json.encode(run), 60)
        await access.keep(f"bulkbeat.{run.id}", b"{}", 60)
        assert (await api.ask(LOOK, id=run.id))["bulkRun"]["state"] == "RUNNING"
        await access.keep(f"bulkbeat.{run.id}", b"{}", 1)

        async def is_interrupted(run_id: str = run.id) -> bool:
            return bool((await api.ask(LOOK, id=run_id))["bulkRun"]["state"] == "INTERRUPTED")

        await until(is_interrupted, "nothing is heard of it")


async def test_the_end_of_a_run_is_known_here_at_once_and_elsewhere_when_nats_is_there_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_runs, "_RETRY_PAUSE", 0.01)
    async with (
        serving(settings) as first,
        serving(settings.model_copy(update={"data_dir": settings.data_dir / "b"})) as other,
    ):
        await _cancelled(first, 2)
        plan = await _plan(first)
        access, is_away = first.runtime.access, True
        keep = access.keep

        async def keep_in_an_outage(name: str, value: bytes, seconds: int) -> None:
            if is_away and b'"running"' not in value and name.startswith("bulk."):
                raise QueueUnavailable("NATS is away.")
            await keep(name, value, seconds)

        monkeypatch.setattr(access, "keep", keep_in_an_outage)
        run = await _run(first, plan["token"])
        assert _counts(run) == ("DONE", 2, 2, 0, 0)
        assert (await other.ask(LOOK, id=run["id"]))["bulkRun"]["state"] == "RUNNING"
        is_away = False
        assert _counts(await _ended(other, run["id"])) == ("DONE", 2, 2, 0, 0)


async def test_a_run_waits_while_the_store_is_full(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await _cancelled(api, 3)
    plan = await _plan(api)
    retry, refusals = JobCommands.retry, [1, 2, 3, 4]
    monkeypatch.setattr(bulk_runs, "_RETRY_PAUSE", 0.01)

    async def retry_in_a_full_store(self: JobCommands, *arguments: Any, **options: Any) -> Any:
        if refusals:
            refusals.pop()
            raise QueueFull("The store is full.")
        return await retry(self, *arguments, **options)

    monkeypatch.setattr(JobCommands, "retry", retry_in_a_full_store)
    assert _counts(await _run(api, plan["token"])) == ("DONE", 3, 3, 0, 0)


async def test_a_run_that_cannot_say_how_far_it_is_ends(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await _cancelled(api, 3)
    plan = await _plan(api)
    run = (await api.ask(RUN, token=plan["token"], rate=0.1))["runBulk"]

    async def broken(_name: str) -> None:
        raise RuntimeError("it broke")

    with monkeypatch.context() as patched:
        patched.setattr(api.runtime.access, "kept", broken)
        await until(lambda: not len(api.runtime.bulk_runs), "it has ended")
    assert (await _ended(api, run["id"]))["state"] == "STOPPED"


async def test_the_smallest_rate_there_is_can_be_stopped(api: ServedApi) -> None:
    await _cancelled(api, 3)
    plan = await _plan(api)
    run = (await api.ask(RUN, token=plan["token"], rate=5e-324))["runBulk"]

    async def has_begun() -> bool:
        return bool((await api.ask(LOOK, id=run["id"]))["bulkRun"]["done"])

    await until(has_begun, "one is done")
    assert _counts((await api.ask(STOP, id=run["id"]))["stopBulk"])[:3] == ("STOPPED", 3, 1)


async def test_however_many_watch_a_run_it_is_looked_at_once_for_all(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _cancelled(api, 3)
    plan = await _plan(api)
    run = (await api.ask(RUN, token=plan["token"], rate=4.0))["runBulk"]
    runs, looks = api.runtime.bulk_runs, 0
    look = runs._look  # noqa: SLF001

    async def counted(run_id: str) -> bulk.BulkRun | None:
        nonlocal looks
        looks += 1
        return await look(run_id)

    monkeypatch.setattr(runs._watches, "_look", counted)  # noqa: SLF001
    async with api.socket_streams(FOLLOW, [{"id": run["id"]}] * 20) as streams:
        ends = await asyncio.gather(*[_last(stream) for stream in streams])
    assert [_counts(end) for end in ends] == [("DONE", 3, 3, 0, 0)] * 20
    assert looks < 20
    await until(lambda: not len(runs._watches), "nobody watches")  # noqa: SLF001


async def _last(stream: AsyncIterator[Data]) -> Data:
    async for state in stream:
        if state["state"] != "RUNNING":
            return state
    raise AssertionError("it ended without its last state")


async def test_a_run_that_is_watched_where_its_process_ends_is_interrupted_and_another_one_is_unavailable(
    settings: Settings,
) -> None:
    async with serving(settings.model_copy(update={"data_dir": settings.data_dir / "b"})) as other:
        await _cancelled(other, 3)
        plan = await _plan(other)
        theirs = (await other.ask(RUN, token=plan["token"], rate=0.1))["runBulk"]
        async with serving(settings) as first:
            mine = (await first.ask(RUN, token=plan["token"], rate=0.1))["runBulk"]
            watches = [await first.runtime.bulk_runs.watch(run["id"], lambda: ANYBODY) for run in (mine, theirs)]
            for watch in watches:
                assert (await anext(watch)).run.state is bulk.BulkState.RUNNING
            await first.runtime.bulk_runs.close()
            assert (await anext(watches[0])).run.state is bulk.BulkState.INTERRUPTED
            with pytest.raises(QueueUnavailable, match="is ending"):
                await _drained(watches[1])
            for watch in watches:
                await watch.aclose()


async def _drained(watch: RunWatch) -> None:
    async for _ in watch:
        pass


async def test_a_plan_with_the_largest_filter_and_the_narrowest_token_can_be_run(settings: Settings) -> None:
    names = [f"{n:03}" + "\N{PARTY POPPER}" * 252 for n in range(100)]
    ids = [new_job_id() for _ in range(500)]
    limits = ViewLimits(ids=frozenset(ids), tags=frozenset(names[:32]), types=frozenset(names), queues=frozenset(names))
    asked_for = {"ids": ids, "tags": names[:32], "type": names, "queue": names}
    async with guarded(settings) as shop:
        viewer = replace(await shop.access.viewer_of(shop.key), limits=limits)
        runs = shop.api.runtime.bulk_runs
        made = await runs.plan(bulk.BulkAction.RETRY, filter_of(asked_for, viewer.visibility), viewer)
        assert len(made.token) < bulk_runs.MAX_PLAN_TOKEN
        assert (await runs.run(made.token, viewer, per_second=None, first=None)).planned == 0


async def test_a_run_of_a_back_end_is_none_of_a_browser_s_with_a_narrower_token(settings: Settings) -> None:
    async with guarded(settings) as shop:
        token = (
            await shop.token(scopes=[Scope.READ, Scope.CONTROL], limits=ViewLimits(tags=frozenset({"mine"})))
        ).token
        plan = (await shop.post(PLAN, shop.key, variables={"action": "CANCEL"})).json()["data"]["planBulk"]
        run = (await shop.post(RUN, shop.key, variables={"token": plan["token"]})).json()["data"]["runBulk"]
        variables = {"id": run["id"]}
        assert (await shop.post(LOOK, token, variables=variables)).json()["data"]["bulkRun"] is None
        (refusal,) = (await shop.post(STOP, token, variables=variables)).json()["errors"]
        assert refusal["extensions"]["code"] == "NOT_FOUND"
        assert refusal["message"].startswith("There is no run ")
        assert (await shop.post(LOOK, shop.key, variables=variables)).json()["data"]["bulkRun"]["id"] == run["id"]


async def test_a_run_is_stopped_by_way_of_another_process(settings: Settings) -> None:
    async with (
        serving(settings) as first,
        serving(settings.model_copy(update={"data_dir": settings.data_dir / "b"})) as other,
    ):
        await _cancelled(first, 20)
        plan = await _plan(first)
        run = (await first.ask(RUN, token=plan["token"], rate=2.0))["runBulk"]
        assert (await other.ask(STOP, id=run["id"]))["stopBulk"]["state"] == "RUNNING"
        async with aclosing(other.events(FOLLOW, id=run["id"])) as stream, asyncio.timeout(10):
            assert [state["state"] async for state in stream][-1] == "STOPPED"


async def test_a_plan_is_run_by_whoever_made_it_and_a_run_is_nobody_else_s(settings: Settings) -> None:
    async with guarded(settings) as shop:
        ada, bob = [await shop.new_key(name, EVERY, tenant="acme") for name in ("ada", "bob")]
        limited = await shop.token(
            scopes=[Scope.READ, Scope.CONTROL], limits=ViewLimits(types=frozenset({"probe"})), key=ada
        )

        async def ask(by: str, query: str, **variables: Any) -> Data:
            answer: Data = (await shop.post(query, by, variables=variables)).json()
            return answer

        made = await ask(ada, PLAN, action="CANCEL")
        plan = made["data"]["planBulk"]
        assert plan["count"] == 0
        for stranger in (bob, shop.key, limited.token):
            (refusal,) = (await ask(stranger, RUN, token=plan["token"]))["errors"]
            assert refusal["extensions"]["code"] == "FORBIDDEN"
        run = (await ask(ada, RUN, token=plan["token"]))["data"]["runBulk"]
        assert (await ask(bob, LOOK, id=run["id"]))["data"]["bulkRun"] is None
        (refusal,) = (await ask(bob, STOP, id=run["id"]))["errors"]
        assert refusal["extensions"]["code"] == "NOT_FOUND"
        assert (await ask(shop.key, LOOK, id=run["id"]))["data"]["bulkRun"]["id"] == run["id"]


@pytest.mark.parametrize("how", ["forged", "another", "long", "old", "rate", "first"])
async def test_what_is_no_plan_or_no_way_to_run_one_is_refused(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "old":
        monkeypatch.setattr(bulk_runs, "PLAN_LIFE", timedelta(seconds=-1))
    token = (await _plan(api))["token"]
    tokens = {"forged": f"{token[:-2]}AA", "another": "a.b.c", "long": "x" * (1 << 20) + "x"}
    variables = {"token": tokens.get(how, token), **({"rate": 0.0} if how == "rate" else {})}
    variables |= {"first": 0} if how == "first" else {}
    refusal = await api.refusal(RUN, **variables)
    names = {"rate": "maxPerSecond", "first": "first"}
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": names.get(how, "token")}


async def test_a_run_ends_with_the_token_of_whoever_began_it(settings: Settings) -> None:
    async with guarded(settings) as shop:
        issued = await shop.token(scopes=[Scope.READ, Scope.CONTROL])
        for _ in range(5):
            await shop.create()
        plan = (await shop.post(PLAN, issued.token, variables={"action": "CANCEL"})).json()["data"]["planBulk"]
        variables = {"token": plan["token"], "rate": 0.1}
        run = (await shop.post(RUN, issued.token, variables=variables)).json()["data"]["runBulk"]
        await shop.revoke(issued)

        async def is_stopped() -> bool:
            answer = await shop.post(LOOK, shop.key, variables={"id": run["id"]})
            return bool(answer.json()["data"]["bulkRun"]["state"] == "STOPPED")

        await until(is_stopped, "the run has ended")


async def test_one_run_too_many_is_refused(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_runs, "MAX_RUNS", 1)
    await _cancelled(api, 2)
    plan = await _plan(api)
    run = (await api.ask(RUN, token=plan["token"], rate=0.1))["runBulk"]
    assert (await api.refusal(RUN, token=plan["token"]))["extensions"]["code"] == "RATE_LIMITED"
    await api.ask(STOP, id=run["id"])
    assert (await _run(api, plan["token"]))["state"] == "DONE"
    assert len(api.runtime.bulk_runs) == 0
    assert datetime.fromisoformat(plan["expiresAt"]) > datetime.now(UTC) + timedelta(hours=23)


async def test_runs_that_are_asked_for_at_the_same_time_keep_to_the_share_of_their_client(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_runs, "MAX_RUNS_OF_CLIENT", 2)
    await _cancelled(api, 2)
    plan = await _plan(api)
    body = {"query": RUN, "variables": {"token": plan["token"], "rate": 0.1}}
    answers = [
        answer.json() for answer in await asyncio.gather(*[api.http.post("/graphql", json=body) for _ in range(6)])
    ]
    refused = [answer["errors"][0]["extensions"]["code"] for answer in answers if "errors" in answer]
    assert refused == ["RATE_LIMITED"] * 4
    runs = [answer["data"]["runBulk"] for answer in answers if "errors" not in answer]
    await asyncio.gather(*[api.ask(STOP, id=run["id"]) for run in runs])
    assert (await _run(api, plan["token"]))["state"] == "DONE"
