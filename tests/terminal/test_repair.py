"""Dead letters as they are repaired from a terminal: found in groups, tried, retried at a rate, stopped, cancelled."""

import asyncio
import json
import signal
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.jobs.errors import InvalidState
from gql_jobs.jobs.viewer import ANYBODY
from gql_jobs.log.commands import JobCommands
from gql_jobs.settings import Settings
from tests.api.operations import CANCEL, asked, create, create_many, find, history, page
from tests.deadline import until
from tests.job_types.odd_handlers import probe_with
from tests.running import running_worker
from tests.serving import HOST, Api, ServedApi, api_process, free_port
from tests.terminal.conftest import Command, Running

pytestmark = pytest.mark.timeout(120)


def _objects(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def _rows(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


async def _cancelled(api: Api, number: int) -> list[str]:
    """Jobs that can be retried, and that no worker runs, the oldest first."""
    jobs = await create_many(api, [asked(tags=["mine"]) for _ in range(number)])
    for job_id in jobs:
        await api.ask(CANCEL, id=job_id)
    return jobs


async def _dead(api: Api, payloads: list[dict[str, Any]]) -> list[str]:
    jobs = await create_many(api, [asked(payload) for payload in payloads])

    async def all_are() -> bool:
        found = await page(api, filter={"ids": jobs, "status": ["DEAD_LETTER"]}, first=0)
        return bool(found["totalCount"] == len(jobs))

    await until(all_are, "all are dead letters", within=60)
    return jobs


async def _number(api: Api, status: str, **wanted: Any) -> int:
    return int((await page(api, filter={"status": [status], **wanted}, first=0))["totalCount"])


RETRY_MINE = ("retry", "--all", "--status", "cancelled", "--tag", "mine", "--yes")


async def test_a_group_of_200_is_found_tried_and_retried_at_a_rate_by_commands_alone(
    api: ServedApi, settings: Settings, command: Command, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"
    async with running_worker(settings, registry=probe_with("say")):
        jobs = await _dead(api, [{"saves": f"Host {n} is not known.", "trace": str(mended)} for n in range(200)])
        await _dead(api, [{"saves": "Quite another failure."}])
    first, _ = _objects((await command("dead-letters", "--json")).out)
    assert (first["count"], first["type"], first["errorType"]) == (200, "probe", "PermanentError")
    assert first["message"] == "Host <number> is not known."
    assert first["sample"]["status"] == "DEAD_LETTER"
    row, _ = _rows((await command("dead-letters", "--type", "probe")).out)
    assert (row[0], row[1], row[-1]) == (first["key"], "200", first["message"])
    group = ("retry", "--all", "--group", first["key"])
    async with running_worker(settings):
        asks = await command(*group)
        assert (asks.code, asks.out) == (2, "")
        assert "There is nobody to ask whether to retry 200 jobs: say --yes." in asks.err
        canary = await command(*group, "--first", "1", "--yes", "--follow", "--json")
        assert canary.code == 0, canary.err
        run, *events = [one for one in _objects(canary.out) if one.get("state") != "RUNNING"]
        assert (run["state"], run["planned"], run["done"]) == ("DONE", 1, 1)
        assert {event["job"]["id"] for event in events} == {jobs[0]}, "the oldest"
        assert events[-1]["__typename"] == "JobCompleted"
        assert await _number(api, "DEAD_LETTER") == 200
        rest = await command(*group, "--max-per-second", "100", "--yes")
        assert rest.code == 0, rest.err
        assert rest.err == "199 of 199 jobs were retried.\n"
        assert _rows(rest.out)[-1] == ["DONE", "199", "199", "0", "0"]
        assert len(_rows(rest.out)) >= 3, "lines while it went on"
        await until(lambda: _are_completed(api, jobs), "all are completed", within=30)
    (left,) = _objects((await command("dead-letters", "--json")).out)
    assert left["message"] == "Quite another failure."
    assert (await command("dead-letters", "--type", "email")).out == ""
    many = await command("dead-letters", "--first", "1")
    assert many.err.startswith("There may be more groups")


async def _are_completed(api: Api, jobs: list[str]) -> bool:
    return await _number(api, "COMPLETED", ids=jobs) == len(jobs)


@pytest.mark.usefixtures("worker")
async def test_a_trial_that_fails_again_exits_as_its_job_has_ended(api: ServedApi, command: Command) -> None:
    await _dead(api, [{"permanent": True}] * 2)
    canary = await command("retry", "--all", "--first", "1", "--follow", "--yes")
    assert canary.code == 3, "and not by the dead letter that it was before"
    assert "1 of 1 job was retried.\n" in canary.err
    states = [row[3] for row in _rows(canary.out) if len(row) == 6]
    assert states[-1] == "DEAD_LETTER"
    nothing = await command("retry", "--all", "--tag", "none", "--first", "1", "--follow", "--yes")
    assert (nothing.code, nothing.err) == (5, "No job that matches can be retried.\n")
    assert (await command("retry", "--all", "--tag", "none")).code == 0, "nobody has to be asked about nothing"


async def test_jobs_that_wait_are_cancelled_together_and_others_left_alone(api: ServedApi, command: Command) -> None:
    mine = await create_many(api, [asked(tags=["mine"]) for _ in range(3)])
    other = await create(api)
    found = await command("cancel", "--all", "--tag", "mine", "--status", "queued", "--yes", "--json")
    assert found.code == 0, found.err
    last = _objects(found.out)[-1]
    assert (last["action"], last["state"], last["done"]) == ("CANCEL", "DONE", 3)
    assert await _number(api, "CANCELLED", ids=mine) == 3
    assert (await find(api, other["id"]))["status"] == "QUEUED"


async def test_a_trial_of_some_does_so_many_and_no_more(api: ServedApi, command: Command) -> None:
    jobs = await _cancelled(api, 9)
    assert (await command(*RETRY_MINE, "--first", "2")).code == 0
    assert await _number(api, "QUEUED") == 2
    assert (await command(*RETRY_MINE, "--first", "6")).code == 0
    assert [(await find(api, job_id))["status"] for job_id in jobs] == ["QUEUED"] * 8 + ["CANCELLED"]
    assert (await command(*RETRY_MINE, "--first", "50")).err == "1 of 1 job was retried.\n"


async def test_a_terminal_is_asked_with_a_sample_and_gets_a_bar(api: ServedApi, on_a_terminal: Command) -> None:
    url = ("--url", f"http://{HOST}:{api.port}")
    jobs = await _cancelled(api, 7)
    retry = tuple(word for word in RETRY_MINE if word != "--yes")
    no = await on_a_terminal(*retry, *url, answers=(b"[y/N]", b"n\n"))
    assert (no.code, "Nothing was retried." in no.out) == (1, True)
    assert "7 jobs can be retried. The oldest:" in no.out
    assert [job_id in no.out for job_id in jobs] == [True] * 5 + [False] * 2
    given_up = await on_a_terminal(*retry, *url, answers=(b"[y/N]", b"\x03"))
    assert given_up.code == 130
    assert await _number(api, "CANCELLED") == 7
    trial = await on_a_terminal(*retry, "--first", "1", *url, answers=(b"Retry 1 of 7 jobs?", b"y\n"))
    assert (trial.code, "1 of 1 job was retried." in trial.out) == (0, True)
    rest = await on_a_terminal(*retry, "--max-per-second", "5", *url, answers=(b"Retry 6 jobs?", b"y\n"))
    assert (rest.code, "6 of 6 jobs were retried." in rest.out) == (0, True)
    assert "━" in rest.out
    assert "RUNNING" in rest.out
    assert "3 of 6 done" in rest.out
    assert rest.out.count("\x1b[?25l") == rest.out.count("\x1b[?25h"), "the cursor is back"


async def _next(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    assert line, "the command has ended"
    found: dict[str, Any] = json.loads(line)
    return found


async def _one_is_done(process: Process) -> dict[str, Any]:
    while not (run := await _next(process))["done"]:
        pass
    return run


async def test_ctrl_c_stops_before_the_next_job_and_says_what_was_done(api: ServedApi, running: Running) -> None:
    await _cancelled(api, 20)
    url = ("--url", f"http://{HOST}:{api.port}")
    async with running(*RETRY_MINE, "--max-per-second", "2", "--json", *url) as process:
        await _one_is_done(process)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130
    last = _objects(out.decode())[-1]
    assert last["state"] == "STOPPED"
    asks, says = err.decode().splitlines()
    assert asks == "Stopping before the next job; Ctrl-C again leaves at once."
    done = f"{last['done']} of 20 jobs {'was' if last['planned'] == 1 else 'were'} retried."
    assert says == f"Stopped: {done} The same command goes on with the rest."
    assert await _number(api, "QUEUED") == last["done"] < 20
    again = await asyncio.wait_for(_done(running(*RETRY_MINE, *url)), 30)
    assert again == 0
    assert await _number(api, "QUEUED") == 20


async def _done(command: Any) -> int | None:
    async with command as process:
        await process.communicate()
        code: int | None = process.returncode
        return code


async def test_a_second_ctrl_c_leaves_at_once_while_the_api_is_away(settings: Settings, running: Running) -> None:
    port = free_port()
    async with AsyncExitStack() as stack:
        api, served = await stack.enter_async_context(api_process(settings, port))
        await _cancelled(api, 20)
        arguments = (*RETRY_MINE, "--max-per-second", "2", "--json", "--url", f"http://{HOST}:{port}")
        process = await stack.enter_async_context(running(*arguments))
        await _one_is_done(process)
        served.kill()
        await served.wait()
        assert process.stderr is not None
        lost = await asyncio.wait_for(process.stderr.readline(), 30)
        assert b" is lost since " in lost
        process.send_signal(signal.SIGINT)
        said = await asyncio.wait_for(process.stderr.readline(), 30)
        assert said == b"Stopping before the next job; Ctrl-C again leaves at once.\n"
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 130


async def test_a_run_whose_api_process_is_killed_goes_on_by_itself_and_shows_its_plan_to_nobody(
    settings: Settings, running: Running
) -> None:
    port = free_port()
    async with AsyncExitStack() as followed:
        async with api_process(settings, port) as (api, _):
            jobs = await _cancelled(api, 12)
            arguments = (*RETRY_MINE, "--max-per-second", "3", "--json", "--url", f"http://{HOST}:{port}")
            process = await followed.enter_async_context(running(*arguments))
            run = await _one_is_done(process)
        async with api_process(settings, port) as (api, _):
            out, err = await asyncio.wait_for(process.communicate(), 90)
            statuses = [(await find(api, job_id))["status"] for job_id in jobs]
            histories = [await history(api, job_id) for job_id in jobs]
    assert process.returncode == 0, err
    states = _objects(out.decode())
    assert "INTERRUPTED" in [one["state"] for one in states]
    last = states[-1]
    assert last["id"] != run["id"]
    assert (last["state"], last["planned"], last["done"], last["skipped"]) == ("DONE", 12, 12, 0)
    assert statuses == ["QUEUED"] * 12
    for events in histories:
        assert [event["__typename"] for event in events] == ["JobQueued", "JobCancelled", "JobQueued"]
    said = err.decode().splitlines()
    assert " is lost since " in said[0]
    assert said[1].startswith("The connection is back after ")
    assert said[-2:] == [
        "The process of the API that did it has ended; going on with what is left.",
        "12 of 12 jobs were retried.",
    ]
    assert "token" not in (out + err).decode()


async def test_a_run_that_somebody_else_stops_or_that_fails_with_some_says_so_by_its_exit_code(
    api: ServedApi, running: Running, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await _cancelled(api, 6)
    url = ("--url", f"http://{HOST}:{api.port}")
    async with running(*RETRY_MINE, "--max-per-second", "0.5", "--json", *url) as process:
        run = await _one_is_done(process)
        await api.runtime.bulk_runs.stop(run["id"], ANYBODY)
        _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 8
    assert err.startswith(b"Stopped by somebody else, or because the key or token has ended: 1 of 6 jobs were retried.")
    retry = JobCommands.retry

    async def fail_with_some(self: JobCommands, job_id: str, *arguments: Any, **options: Any) -> Any:
        if job_id == jobs[3]:
            raise RuntimeError("it broke")
        if job_id == jobs[4]:
            raise InvalidState(job_id, "QUEUED", "It has moved.")
        return await retry(self, job_id, *arguments, **options)

    monkeypatch.setattr(JobCommands, "retry", fail_with_some)
    found = await command(*RETRY_MINE)
    assert found.code == 7
    assert found.err == (
        "3 of 5 jobs were retried; 1 had moved since they were counted; 1 failed, for reasons that the log of the API "
        "has.\n"
    )


async def test_a_group_without_jobs_is_no_error(api: ServedApi, command: Command) -> None:
    await _cancelled(api, 1)
    found = await command("retry", "--all", "--group", "unknown", "--yes")
    assert (found.code, found.err) == (0, "No job that matches can be retried.\n")


async def test_a_terminal_is_shown_groups_with_as_much_of_their_messages_as_there_is_room_for(
    api: ServedApi, settings: Settings, on_a_terminal: Command
) -> None:
    told = " ".join(f"word{'x' * n}" for n in range(20))
    async with running_worker(settings, registry=probe_with("say")):
        await _dead(api, [{"saves": told}] * 2)
    ((key, *_),) = _rows((await on_a_terminal("dead-letters", "--url", f"http://{HOST}:{api.port}", TERM="dumb")).out)
    for columns, is_shown in (("200", True), ("80", False)):
        found = await on_a_terminal("dead-letters", "--url", f"http://{HOST}:{api.port}", COLUMNS=columns)
        assert key in found.out
        assert told[:45] in found.out
        assert ("PermanentError" in found.out) is is_shown
        assert "gql-jobs retry --all --group KEY --first 1 --follow" in found.out


async def test_jobs_that_match_are_counted_and_deleted(api: ServedApi, command: Command) -> None:
    jobs = await create_many(api, [asked(tags=["mine"]) for _ in range(7)])
    kept = await create(api)
    asks = await command("delete", "--all", "--tag", "mine")
    assert asks.code == 2
    assert "There is nobody to ask whether to delete 7 jobs: say --yes." in asks.err
    done = await command("delete", "--all", "--tag", "mine", "--yes")
    assert (done.code, done.err) == (0, "7 of 7 jobs were deleted.\n")
    assert (await page(api, filter={"ids": jobs}))["totalCount"] == 0
    assert (await find(api, kept["id"]))["status"] == "QUEUED"
