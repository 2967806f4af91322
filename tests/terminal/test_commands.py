"""The commands for a terminal, each against a real server, as a script meets them: plain lines, JSON, exit codes."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from gql_jobs.cli import cli
from gql_jobs.jobs.errors import no_such_queue
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import JobStatus
from gql_jobs.settings import Settings
from gql_jobs.terminal import output
from gql_jobs.terminal.command_line import MOMENT_AHEAD, Exit
from gql_jobs.terminal.commands import COMMANDS
from tests.api.operations import UNKNOWN_ID, create, ended, find
from tests.deadline import until
from tests.forked import run_command
from tests.job_types.odd_handlers import probe_with
from tests.running import ROOT, RunningWorker, running_worker
from tests.serving import HOST, ServedApi, free_port
from tests.terminal.conftest import Command, Running

pytestmark = pytest.mark.timeout(120)
DOCUMENT = (ROOT / "docs" / "terminal.md").read_text()


def _objects(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def _rows(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("payload", "status", "code"),
    [({"steps": 2}, "COMPLETED", 0), ({"permanent": True}, "DEAD_LETTER", 3)],
)
async def test_a_job_is_followed_to_its_end_and_the_exit_code_says_how_it_ended(
    api: ServedApi, command: Command, payload: dict[str, Any], status: str, code: int
) -> None:
    job = await create(api, payload)
    found = await command("job", job["id"])
    assert found.code == code, found.err
    assert found.err == ""
    rows = _rows(found.out)
    assert ["id", job["id"]] in rows
    events = [row for row in rows if len(row) == 6]
    assert events[-1][1:4] == [job["id"], "probe", status]
    if code == 0:
        assert ["rawResult", '{"attempt": 1, "saved": null, "text": ""}'] in rows
    assert "\x1b" not in found.out


async def test_a_cancelled_job_exits_with_4(api: ServedApi, command: Command) -> None:
    job = await create(api)
    cancelled = await command("cancel", job["id"])
    assert cancelled.code == 0
    assert _rows(cancelled.out)[0][:3] == [job["id"], "CANCELLED", "probe"]
    assert (await command("job", job["id"])).code == 4
    again = await command("cancel", job["id"])
    assert (again.code, again.out) == (1, "")
    assert "(INVALID_STATE)" in again.err


async def test_a_deleted_job_is_told_by_its_id_and_is_unknown_from_then_on(api: ServedApi, command: Command) -> None:
    jobs = [await create(api) for _ in range(2)]
    deleted = await command("delete", *(job["id"] for job in jobs))
    assert (deleted.code, deleted.out) == (0, "".join(f"{job['id']}\n" for job in jobs))
    assert (await command("job", jobs[0]["id"])).code == Exit.UNKNOWN
    again = await command("delete", jobs[0]["id"])
    assert (again.code, again.out) == (0, "")
    assert again.err == f"The job {jobs[0]['id']} had expired or was deleted before.\n"
    told = await command("delete", "--json", jobs[0]["id"])
    assert json.loads(told.out) == {"id": jobs[0]["id"], "deleted": False}


async def test_an_unknown_id_exits_with_5_whatever_is_asked(command: Command) -> None:
    for arguments in (["job"], ["job", "--json"], ["job", "--no-follow"], ["cancel"], ["retry"], ["delete"]):
        found = await command(*arguments, UNKNOWN_ID)
        assert (found.code, found.out) == (Exit.UNKNOWN, ""), arguments
        assert found.err.startswith(f"Error: There is no job {UNKNOWN_ID!r}.")


async def test_a_look_does_not_wait_for_the_end(api: ServedApi, command: Command) -> None:
    job = await create(api, {"steps": 3}, tags=["a", "b"])
    found = await command("job", job["id"], "--no-follow")
    assert found.code == 6
    assert dict(row for row in _rows(found.out) if len(row) == 2)["tags"] == "a, b"
    (shown,) = _objects((await command("job", job["id"], "--no-follow", "--json")).out)
    assert (shown["id"], shown["status"], shown["rawPayload"]) == (job["id"], "QUEUED", {"steps": 3})


@pytest.mark.usefixtures("worker")
async def test_a_look_tells_of_the_children_and_of_the_parent(api: ServedApi, command: Command) -> None:
    job = await create(api, {"children": 2})
    await ended(api, job["id"])
    (shown,) = _objects((await command("job", job["id"], "--no-follow", "--json")).out)
    for child in shown["children"]:
        await ended(api, child["id"])
    rows = _rows((await command("job", job["id"], "--no-follow")).out)
    assert ["children", "2 COMPLETED"] in rows
    assert "parent" not in dict(row for row in rows if len(row) == 2)
    assert ["parent", job["id"]] in _rows((await command("job", shown["children"][0]["id"])).out)


@pytest.mark.usefixtures("worker")
async def test_a_follower_with_json_gets_an_event_a_line_and_the_result_with_the_last(
    api: ServedApi, command: Command
) -> None:
    job = await create(api, {"steps": 1})
    await ended(api, job["id"])
    found = await command("job", job["id"], "--json")
    (event,) = _objects(found.out)
    assert (found.code, event["__typename"]) == (0, "JobCompleted")
    assert event["job"]["rawResult"]["attempt"] == 1
    assert {"cursor", "at", "actor", "durationMs"} <= set(event)


@pytest.mark.usefixtures("worker")
async def test_create_takes_a_file_standard_input_and_pairs_and_writes_the_id(
    api: ServedApi, command: Command, running: Running, tmp_path: Path
) -> None:
    (tmp_path / "payload.json").write_text('{"resultBytes": 3}')
    made = await command("create", "probe", "@payload.json", "--tag", "a", "--tag", "b", "--priority", "high")
    (job_id,) = made.out.split()
    assert (made.code, made.err) == (0, "")
    job = await ended(api, job_id)
    assert (job["tags"], job["priority"], job["rawResult"]["text"]) == (["a", "b"], "HIGH", "xxx")
    made = await command("create", "probe_thread", "steps=1", "artifact=7", "saves.a.b=true", "gate:=null")
    assert (await ended(api, made.out.strip()))["rawPayload"] == {
        "steps": 1,
        "artifact": "7",
        "gate": None,
        "saves": {"a": {"b": True}},
    }
    url = f"http://{HOST}:{api.port}"
    async with running("create", "probe", "-", "--url", url, stdin=PIPE) as process:
        out, _ = await process.communicate(b'{"steps": 1}')
    assert (await ended(api, out.decode().strip()))["rawPayload"] == {"steps": 1}


@pytest.mark.usefixtures("worker")
async def test_create_follows_if_it_is_told_to_and_a_key_makes_one_job(command: Command) -> None:
    first = await command("create", "probe", "permanent=true", "--key", "once", "--follow", "--json")
    assert first.code == 3
    created, *events = _objects(first.out)
    assert created["deduplicated"] is False
    assert events[-1]["__typename"] == "JobDeadLetter"
    again = await command("create", "probe", "permanent=true", "--key", "once")
    assert again.out.strip() == created["job"]["id"]
    assert again.err == "It is not new: the key had made this job before, or belongs to it.\n"


async def test_what_is_wrong_with_a_payload_is_said_field_by_field(command: Command) -> None:
    refused = await command("create", "email", "to=nobody", "subject=Hello")
    assert (refused.code, refused.out) == (1, "")
    head, *fields = refused.err.splitlines()
    assert head == "Error: The payload is not valid. (INVALID_PAYLOAD)"
    assert fields
    assert all(line.startswith("  input.payload.email.") for line in fields)
    unknown = await command("create", "nothing")
    assert unknown.code == 1
    assert unknown.err.startswith("Error: There is no job type 'nothing'; there are: ")
    assert "email, " in unknown.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "probe", "@missing.json"], "missing.json: No such file or directory."),
        (["create", "probe", "@list.json"], "list.json is no JSON object."),
        (["create", "probe", "@broken.json"], "broken.json is no JSON:"),
        (["create", "probe", "@nan.json"], "nan.json is no JSON: NaN is no number of JSON."),
        (["create", "probe", "steps"], "'steps' is no key=value, and no @file."),
        (["create", "probe", "saves:=x"], "'x' is no JSON:"),
        (["create", "probe", "saves=1", "saves.a=1"], "'saves.a': 'saves' has a value already."),
        (["retry"], "Give either the ids of jobs or --all."),
        (["retry", "--all", UNKNOWN_ID], "Give either the ids of jobs or --all."),
        (["retry", UNKNOWN_ID, "--type", "probe"], "--follow and --yes are for --all."),
        (["retry", "--all", "--payload", "{}"], "--payload is for one job"),
        (["retry", UNKNOWN_ID, "--payload", "[]"], "The payload is no JSON object."),
        (["edit", UNKNOWN_ID], "Nothing is to be changed"),
        (["edit", UNKNOWN_ID, "--tag", "a", "--no-tags"], "--tag gives tags, and --no-tags takes them away."),
        (["edit", UNKNOWN_ID, "--payload", "{"], "The payload is no JSON:"),
        (["cancel", UNKNOWN_ID, "--yes"], "--follow and --yes are for --all."),
        (["cancel"], "Give either the ids of jobs or --all."),
        (["cancel", "--all", "--status", "completed"], "'completed' is not one of"),
        (["delete", "--all", "--status", "processing"], "'processing' is not one of"),
        (["delete", "--all", "--first", "1", "--follow"], "nothing to follow"),
        (["retry", "--all", "--follow"], "--follow is for --first 1: one job is followed."),
        (["retry", "--all", "--max-per-second", "0"], "0.0 is not in the range 0<x<=1000."),
        (["list", "--status", "gone"], "'gone' is not one of"),
        (["list", "--url", "localhost:8000"], "The address of the API is no URL such as http://127.0.0.1:8000"),
        (["list", "--url", "http://u:s3cretword@h"], "An address holds no user and no password"),
        (["list", "--token", "s3cretword é"], "The token has characters that no key and no token has."),
    ],
)
async def test_a_command_line_that_makes_no_sense_exits_with_2_and_a_sentence(
    command: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "nan.json").write_text('{"steps": NaN}')
    found = await command(*arguments)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert "s3cretword" not in found.err


async def test_a_list_is_filtered_and_goes_on_behind_a_page(api: ServedApi, command: Command) -> None:
    ids = [(await create(api, tags=["mine"], priority="LOW"))["id"] for _ in range(3)]
    other = await create(api, kind="probeThread")
    await api.ask("mutation ($id: ID!) { cancelJob(id: $id) { job { id } } }", id=other["id"])
    wanted = ("--type", "probe", "--tag", "mine", "--status", "queued", "--priority", "low", "--queue", "default")
    first = await command("list", *wanted, "--first", "2")
    assert [row[0] for row in _rows(first.out)] == [ids[2], ids[1]]
    assert first.err.startswith("There are more: repeat this with --after ")
    rest = await command("list", *wanted, "--after", first.err.split()[-1], "--json")
    assert ([job["id"] for job in _objects(rest.out)], rest.err) == ([ids[0]], "")
    assert {"id", "status", "createdAt", "error", "tags", "cursor"} <= set(_objects(rest.out)[0])
    cancelled = await command("list", "--status", "CANCELLED", "--created-after", "2026-01-01")
    assert [row[:3] for row in _rows(cancelled.out)] == [[other["id"], "CANCELLED", "probe_thread"]]
    both = await command("list", "--id", ids[0], "--id", other["id"])
    assert [row[0] for row in _rows(both.out)] == [other["id"], ids[0]]
    keyed = await create(api, key={"value": "shop 7"}, concurrencyKey="acme")
    for one in (("--unique", "shop 7"), ("--concurrency-key", "acme")):
        assert [row[0] for row in _rows((await command("list", *one)).out)] == [keyed["id"]]
    assert (await command("list", "--schedule", "nightly")).out == ""
    assert (await command("list", "--created-before", "2026-01-01")).out == ""
    assert (await command("list", "--first", "500")).code == 0


async def test_a_list_refuses_what_the_server_refuses(command: Command) -> None:
    found = await command("list", "--created-after", "yesterday")
    assert (found.code, found.out) == (1, "")
    assert "createdAfter" in found.err


@pytest.mark.usefixtures("worker")
async def test_retry_runs_jobs_again_and_says_of_each_what_became_of_it(api: ServedApi, command: Command) -> None:
    dead = await create(api, {"permanent": True})
    await ended(api, dead["id"], "DEAD_LETTER")
    found = await command("retry", UNKNOWN_ID, dead["id"], "--json")
    assert found.code == Exit.UNKNOWN
    assert [job["id"] for job in _objects(found.out)] == [dead["id"]], "the others are retried all the same"


async def test_edit_changes_a_job_that_has_not_started_and_retry_gives_one_that_has_ended_another_payload(
    api: ServedApi, command: Command, tmp_path: Path
) -> None:
    job = await create(api, {"steps": 1}, runAt="2027-06-01T00:00:00Z", tags=["old"])
    (tmp_path / "payload.json").write_text('{"steps": 2}')
    given = ("--priority", "high", "--tag", "a", "--tag", "b", "--payload", "@payload.json")
    (edited,) = _objects((await command("edit", job["id"], *given, "--json")).out)
    assert (edited["status"], edited["priority"], edited["tags"]) == ("SCHEDULED", "HIGH", ["a", "b"])
    (edited,) = _objects((await command("edit", job["id"], "--run-at", "now", "--no-tags", "--json")).out)
    assert (edited["status"], edited["runAt"], edited["tags"]) == ("QUEUED", None, [])
    await command("cancel", job["id"])
    refused = await command("edit", job["id"], "--priority", "low")
    assert refused.code not in {0, 2}
    assert "is CANCELLED and cannot be edited" in refused.err
    found = await command("retry", job["id"], "--payload", '{"steps": 3}')
    assert found.code == 0, found.err
    assert (await find(api, job["id"]))["rawPayload"] == {"steps": 3}


async def test_queues_and_workers_are_listed(api: ServedApi, command: Command, worker: RunningWorker) -> None:
    await worker.started.wait()
    await create(api, runAt="2027-06-01T00:00:00Z")
    rows = {row[0]: row for row in _rows((await command("queues")).out)}
    assert rows["default"][2 + [one.name for one in JobStatus].index("SCHEDULED")] == "1"
    queues = {one["name"]: one for one in _objects((await command("queues", "--json")).out)}
    assert {"status": "SCHEDULED", "count": 1} in queues["default"]["counts"]

    async def listed() -> list[list[str]]:
        return _rows((await command("workers")).out)

    found = await until(listed, "the worker is heard of")
    assert "default" in found[0][3]
    (shown,) = _objects((await command("workers", "--json")).out)
    assert shown["id"] == found[0][0]


@pytest.mark.usefixtures("worker")
async def test_tail_writes_the_events_that_match_until_it_is_interrupted(api: ServedApi, running: Running) -> None:
    url = f"http://{HOST}:{api.port}"
    async with running("tail", "--tag", "seen", "--json", "--url", url) as process:
        await api.subscribers(1, within=30)
        await create(api)
        job = await create(api, tags=["seen"])
        seen: list[dict[str, Any]] = []
        assert process.stdout is not None
        while not seen or seen[-1]["__typename"] != "JobCompleted":
            seen.append(json.loads(await asyncio.wait_for(process.stdout.readline(), 20)))
        assert {event["job"]["id"] for event in seen} == {job["id"]}
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert (process.returncode, err) == (Exit.INTERRUPTED, b"")
    async with running("tail", "--tag", "seen", "--after", seen[0]["cursor"], "--url", url) as process:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().split("\t")
        assert line[3] == seen[1]["job"]["status"]


async def test_a_closed_pipe_ends_a_command_without_a_traceback(api: ServedApi, running: Running) -> None:
    for _ in range(3):
        await create(api)
    url = f"http://{HOST}:{api.port}"
    program = f"{sys.executable} -m gql_jobs list --json --url {url}; echo $? >&2"
    # `true` has ended before the first line is written.
    process = await asyncio.create_subprocess_shell(f"({program}) | true", stderr=PIPE, env=None)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert err.decode().split() == ["141"]
    async with running("list", "--url", url) as plain:
        await plain.communicate()
        assert plain.returncode == 0


async def test_a_job_to_run_after_that_is_not_there_is_named(api: ServedApi, command: Command) -> None:
    job = await create(api)
    refused = await command("create", "probe", "--after", job["id"], "--after", UNKNOWN_ID)
    assert (refused.code, refused.out) == (Exit.REFUSED, "")
    assert refused.err == f"Error: There is no job {UNKNOWN_ID!r}. (INVALID_ARGUMENT)\n"


async def test_a_queue_is_paused_for_a_reason_and_resumed(api: ServedApi, command: Command) -> None:
    paused = await command("pause", "default", "--reason", "the bank is closed", "--until", "30min")
    assert (paused.code, _rows(paused.out)[0][0]) == (0, "default")
    assert paused.err.startswith("default is paused since 20")
    assert paused.err.endswith(": the bank is closed.\n")
    pause = api.runtime.pauses.of("default")
    assert pause is not None
    assert pause.until is not None
    assert 1790 < (pause.until - pause.at).total_seconds() < 1810
    assert (await command("queues")).err == paused.err
    (shown,) = _objects((await command("pause", "default", "--until", "2199-01-01T00:00Z", "--json")).out)
    assert shown["paused"]["until"].startswith("2199-01-01T00:00:00")
    (shown,) = _objects((await command("resume", "default", "--json")).out)
    assert shown["paused"] is None
    for arguments in (["pause", "nobody"], ["resume", "nobody"], ["pause", "default", "--until", "soon"]):
        refused = await command(*arguments)
        assert (refused.code, refused.out) == (Exit.REFUSED, ""), arguments
        assert refused.err.startswith("Error: "), arguments


async def test_a_queue_is_limited_and_its_limits_are_shown(api: ServedApi, command: Command) -> None:
    assert (await command("limits", "default")).out == "no limits\n"
    await create(api)
    limited = await command("limits", "default", "--concurrency", "5", "--per-key", "1", "--per-second", "10")
    assert (limited.code, limited.out) == (0, "5 at a time, 1 per key, 10/s\n")
    assert limited.err == "default: 1 jobs were submitted before and start whatever the limits say.\n"
    assert api.runtime.feed.steering.limits_of_queue("default") == Limits.of(
        concurrency=5, concurrency_per_key=1, per_second=10
    )
    assert (await command("limits", "default")).out == limited.out
    assert "default is limited to 5 at a time, 1 per key, 10/s.\n" in (await command("queues")).err
    (shown,) = _objects((await command("limits", "default", "--concurrency", "3", "--json")).out)
    assert shown["limits"] == {"concurrency": 3, "concurrencyPerKey": None, "perSecond": None}
    assert (await command("limits", "default", "--none")).out == "no limits\n"
    refused = await command("limits", "default", "--concurrency", "0")
    assert (refused.code, refused.out) == (Exit.REFUSED, "")
    assert "concurrency must be a whole number from 1" in refused.err
    unknown = await command("limits", "nobody")
    told = no_such_queue("nobody", api.runtime.registry.queues)
    assert (unknown.code, unknown.err) == (Exit.UNKNOWN, f"Error: {told}\n")
    assert (await command("limits", "default", "--none", "--per-key", "1")).code == Exit.USAGE


@pytest.mark.parametrize("arguments", [["job", UNKNOWN_ID], ["tail"], ["list"], ["queues"]])
async def test_nobody_who_answers_is_a_sentence_at_once(tmp_path: Path, arguments: list[str]) -> None:
    url = f"http://{HOST}:{free_port()}"
    given = {"GQL_JOBS_URL": url}
    found = await asyncio.to_thread(run_command, *arguments, folder=tmp_path, environment=given)
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith(f"Error: The API at {url}/graphql does not answer (")


async def test_what_is_no_api_is_called_by_its_status(tmp_path: Path) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\n\x1b[2Jx")
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        given = {"GQL_JOBS_URL": f"http://{HOST}:{server.sockets[0].getsockname()[1]}/elsewhere"}
        for name in ("list", "tail"):
            found = await asyncio.to_thread(run_command, name, folder=tmp_path, environment=given)
            assert (found.code, found.out) == (1, "")
            assert "/elsewhere answers 404 Not Found, and nothing of GraphQL" in found.err


async def test_what_a_job_holds_cannot_steer_a_terminal(
    api: ServedApi, settings: Settings, workers: AsyncExitStack, command: Command, on_a_terminal: Command
) -> None:
    told = "\x1b]0;owned\x07\x9b2J\r\n\t\u2028\u202e[red]x[/red]\x7f"

    await workers.enter_async_context(running_worker(settings, registry=probe_with("say")))
    job = await create(api, {"saves": told}, tags=["[bold]"])
    shown = r"\x1b]0;owned\x07\x9b2J\r\n\t\u2028\u202e[red]x[/red]\x7f"
    plain = await command("job", job["id"])
    assert plain.code == Exit.DEAD_LETTER
    listed = await command("list")
    assert shown in _rows(plain.out)[-1][-1]
    assert shown in _rows(listed.out)[0][-1]
    url = f"http://{HOST}:{api.port}"
    for arguments in (["job", job["id"]], ["job", job["id"], "--no-follow"], ["list"]):
        rich = await on_a_terminal(*arguments, "--url", url)
        assert "owned" in rich.out
        assert "\x1b]" not in rich.out, arguments
        assert not {"\x07", "\x9b", "\u2028", "\u202e", "\x7f"} & set(rich.out)
    as_json = await command("job", job["id"], "--json")
    assert as_json.out.isascii()
    assert not set(as_json.out.removesuffix("\n")) & {"\x1b", "\x07", "\x7f", "\n"}
    assert json.loads(as_json.out)["error"]["message"] == told


@pytest.mark.usefixtures("worker")
async def test_a_terminal_gets_colours_tables_and_a_bar_and_local_times(api: ServedApi, on_a_terminal: Command) -> None:
    url = f"http://{HOST}:{api.port}"
    job = await create(api, {"steps": 3, "seconds": 0.5})
    followed = await on_a_terminal("job", job["id"], "--url", url)
    assert followed.code == 0
    assert "\x1b[32mCOMPLETED" in followed.out
    assert "━" in followed.out, "the bar"
    assert followed.out.count("\x1b[?25l") == followed.out.count("\x1b[?25h"), "the cursor is back"
    listed = await on_a_terminal("list", "--url", url, TZ="Asia/Tokyo")
    assert "STATUS" in listed.out
    assert "+00:00" not in listed.out
    queues = await on_a_terminal("queues", "--url", url)
    assert "OLDEST WAITS" in queues.out
    as_json = await on_a_terminal("list", "--url", url, "--json")
    assert json.loads(as_json.out)["id"] == job["id"]
    plain = await on_a_terminal("list", "--url", url, TERM="dumb")
    assert "\x1b" not in plain.out
    assert _rows(plain.out)[0][0] == job["id"]


async def test_a_narrow_terminal_gets_fewer_columns_and_whole_ids(
    api: ServedApi, settings: Settings, workers: AsyncExitStack, on_a_terminal: Command
) -> None:
    url, told = f"http://{HOST}:{api.port}", " ".join(map(str, range(100)))
    await workers.enter_async_context(running_worker(settings, registry=probe_with("say")))
    job = await create(api, {"saves": told}, tags=["somewhat-long"])
    await ended(api, job["id"], "DEAD_LETTER")
    wide = await on_a_terminal("list", "--url", url)
    assert "somewhat-long" in wide.out
    assert " 29 30 " in wide.out
    for columns in ("80", "40"):
        narrow = await on_a_terminal("list", "--url", url, COLUMNS=columns)
        assert job["id"] in narrow.out
        assert "DEAD_LETTER" in narrow.out
        assert "0 1 2 3" in narrow.out
        assert "somewhat-long" not in narrow.out
        assert " 29 30 " not in narrow.out
    queues = await on_a_terminal("queues", "--url", url, COLUMNS="80")
    assert "DEAD_LETTER" in queues.out
    assert "SCHEDULED" not in queues.out, "no job is in that state"


async def test_ctrl_c_ends_a_follower_quietly_and_gives_the_cursor_back(api: ServedApi, on_a_terminal: Command) -> None:
    job = await create(api)
    arguments = ("job", job["id"], "--url", f"http://{HOST}:{api.port}")
    found = await on_a_terminal(*arguments, answers=(b"\x1b[34mQUEUED", b"\x03"))
    assert found.code == 130
    assert "Traceback" not in found.out
    assert found.out.count("\x1b[?25l") == found.out.count("\x1b[?25h") > 0


async def test_a_redirection_is_not_followed_with_the_token(tmp_path: Path) -> None:
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        given = {"GQL_JOBS_URL": f"http://{HOST}:{server.sockets[0].getsockname()[1]}", "GQL_JOBS_TOKEN": "gj_s3cret"}
        found = await asyncio.to_thread(run_command, "list", folder=tmp_path, environment=given)
    assert (found.code, found.out, len(asked)) == (1, "", 1)
    assert b"Bearer gj_s3cret" in asked[0]
    assert "answers 307" in found.err
    assert "s3cret" not in found.err


def test_without_the_libraries_of_the_extra_it_is_said_what_to_install_and_plain_lines_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    assert output._console() is None  # noqa: SLF001
    monkeypatch.delitem(sys.modules, "gql_jobs.terminal.client")
    monkeypatch.setitem(sys.modules, "httpx", None)
    result = CliRunner().invoke(cli, ["list"])
    assert result.exit_code == 2
    assert "httpx is not installed: run pip install 'gql-jobs[terminal]'." in result.output


async def test_output_that_cannot_be_written_is_a_sentence(api: ServedApi) -> None:
    await create(api)
    command = f"{sys.executable} -m gql_jobs list --url http://{HOST}:{api.port} >/dev/full"
    process = await asyncio.create_subprocess_shell(command, stderr=PIPE)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err) == (1, b"Error: The output: No space left on device.\n")


def test_the_version_is_written() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output.split()[-1] == "0.1.0"


def test_the_document_has_every_exit_code_and_every_option() -> None:
    rows = [line.split("|")[1].strip(" `") for line in DOCUMENT.splitlines() if line.startswith("| ")]
    assert {str(int(code)) for code in Exit} <= set(rows)
    assert (Exit.DEAD_LETTER, Exit.CANCELLED, Exit.UNKNOWN, Exit.UNFINISHED) == (3, 4, 5, 6)
    assert (Exit.SOME_FAILED, Exit.STOPPED, Exit.CUT_SHORT) == (7, 8, 9)
    for one in COMMANDS:
        assert f"`gql-jobs {one.name}" in DOCUMENT
        for parameter in one.params:
            if isinstance(parameter, click.Option):
                assert any(option in DOCUMENT for option in parameter.opts), (one.name, parameter.opts)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_shell_completes_commands_options_and_states(tmp_path: Path, shell: str) -> None:
    assert f"_GQL_JOBS_COMPLETE={shell}_source gql-jobs" in DOCUMENT
    source = {"_GQL_JOBS_COMPLETE": f"{shell}_source"}
    script = await asyncio.to_thread(run_command, folder=tmp_path, environment=source)
    assert script.code == 0
    assert "gql-jobs" in script.out
    words = {"_GQL_JOBS_COMPLETE": f"{shell}_complete", "COMP_WORDS": "gql-jobs list --status dead"}
    words["COMP_CWORD"] = "dead" if shell == "fish" else "3"
    completed = await asyncio.to_thread(run_command, folder=tmp_path, environment=words)
    assert "dead_letter" in completed.out.lower()


@pytest.mark.parametrize(("given", "ahead"), [("90s", 90), ("30min", 1800), ("2h", 7200), ("1d", 86_400)])
def test_a_moment_ahead_may_be_given_from_now(given: str, ahead: int) -> None:
    before = datetime.now(UTC)
    moment = datetime.fromisoformat(MOMENT_AHEAD.convert(given, None, None))
    assert timedelta(seconds=ahead) <= moment - before <= timedelta(seconds=ahead + 5)


@pytest.mark.parametrize("given", ["2030-01-31T12:00Z", "now", "1 week", ""])
def test_any_other_moment_is_left_to_the_api(given: str) -> None:
    assert MOMENT_AHEAD.convert(given, None, None) == given
