"""The examples of tests/queries, run against a server whose jobs are real e-mails."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gql_jobs.jetstream.server import embedded_server
from gql_jobs.jobs.model import job_id_for_key
from gql_jobs.settings import Settings
from gql_jobs_worker.handlers import environment_settings
from tests.api.operations import CREATIONS, QUERIES, ahead, create, ended, example, kinds, lifecycle
from tests.mailbox import running_mailbox
from tests.running import running_worker
from tests.serving import Data, ServedApi, serving

MAIL = {"to": "ops@example.com", "subject": "Good morning", "body": "All is well."}
HERE = Path(__file__).read_text()
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedApi]:
    """A server, a worker and a mailbox for all examples; one e-mail has been sent and one refused."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as environment:
        async with AsyncExitStack() as stack:
            mailbox = await stack.enter_async_context(running_mailbox(folder / "mailbox"))
            environment.setenv("GQL_JOBS_SMTP_HOST", "127.0.0.1")
            environment.setenv("GQL_JOBS_SMTP_PORT", str(mailbox.smtp_port))
            environment_settings.cache_clear()
            stack.callback(environment_settings.cache_clear)
            server = await stack.enter_async_context(embedded_server(folder / "store", max_store_bytes=1 << 30))
            settings = Settings(nats_url=server.url, data_dir=folder / "data", base_retry_delay=0.1)
            served = await stack.enter_async_context(serving(settings))
            await stack.enter_async_context(running_worker(settings, ("default",)))
            await ended(served, (await _mail(served, "ada@example.com"))["id"])
            await ended(served, (await _mail(served, "eve@reject.example"))["id"], "DEAD_LETTER")
            yield served


async def _mail(api: ServedApi, to: str, **options: Any) -> Data:
    return await create(api, {"to": to, "subject": "Hello", "body": "Text"}, "email", **options)


async def _multipart(api: ServedApi, name: str, **variables: str) -> AsyncGenerator[Data]:
    """What a subscription over HTTP brings, as Strawberry writes its parts: one line of JSON each."""
    headers = {"Accept": "multipart/mixed;subscriptionSpec=1.0, application/json"}
    body = {"query": example(name), "variables": variables}
    async with api.http.stream("POST", "/graphql", json=body, headers=headers) as response:
        assert response.headers["content-type"].startswith("multipart/mixed")
        async for line in response.aiter_lines():
            if line.startswith('{"payload"'):
                (event,) = json.loads(line)["payload"]["data"].values()
                yield event


async def test_every_example_is_run_here() -> None:
    # Those that only create a job are run by test_api_creation.
    others = {path.stem for path in QUERIES.glob("*.graphql")} - set(CREATIONS)
    assert [name for name in sorted(others) if f'"{name}"' not in HERE] == []


async def test_a_creation_with_a_key(api: ServedApi) -> None:
    again = (await api.ask(example("create_job")))["createJob"]
    assert again["job"]["id"] == job_id_for_key("welcome-mail-of-ada")
    assert (await api.ask(example("create_job")))["createJob"]["deduplicated"] is True
    job = await ended(api, again["job"]["id"])
    assert (job["priority"], job["tags"]) == ("HIGH", ["welcome"])


async def test_many_creations(api: ServedApi) -> None:
    answer = (await api.ask(example("create_jobs")))["createJobs"]
    assert answer["deduplicatedCount"] == 0
    jobs = [await ended(api, job["id"]) for job in answer["jobs"]]
    assert [job["rawPayload"]["body"] for job in jobs] == ["One.", "Two."]
    assert [job["priority"] for job in jobs] == ["NORMAL", "LOW"]


async def test_many_creations_of_payloads_as_they_are_stored(api: ServedApi) -> None:
    answer = (await api.ask(example("create_raw_jobs")))["createRawJobs"]
    assert answer["deduplicated"] == [False, False]
    jobs = [await ended(api, job["id"]) for job in answer["jobs"]]
    assert [job["rawPayload"]["to"] for job in jobs] == ["ada@example.com", "bob@example.com"]
    assert [job["priority"] for job in jobs] == ["NORMAL", "HIGH"]


async def test_one_job(api: ServedApi) -> None:
    created = await _mail(api, "ada@example.com", tags=["a"])
    await ended(api, created["id"])
    job = (await api.ask(example("job"), id=created["id"]))["job"]
    assert job["__typename"] == "EmailJob"
    assert job["payload"] == {"to": "ada@example.com", "subject": "Hello"}
    assert created["id"] in job["result"]["messageId"]
    assert (job["status"], job["progress"], job["attempt"], job["tags"]) == ("COMPLETED", 100, 1, ["a"])


async def test_the_history_of_a_job_that_was_greylisted(api: ServedApi) -> None:
    created = await _mail(api, "ada@greylist.example")
    await ended(api, created["id"])
    job = (await api.ask(example("job_history"), id=created["id"]))["job"]
    happened = kinds(lifecycle(job["events"]))
    assert happened == ["Queued", "Started", "Failed", "Started", "Failed", "Started", "Completed"]
    failures = [event for event in job["events"] if event["__typename"] == "JobFailed"]
    assert all("451" in event["error"]["message"] for event in failures)
    assert [event["attempt"] for event in job["events"] if "attempt" in event] == [1, 2, 3]


async def test_pages_of_completed_e_mails(api: ServedApi) -> None:
    by_cursor = (await api.ask(example("jobs")))["jobs"]
    by_offset = (await api.ask(example("jobs_by_offset")))["jobs"]
    assert by_cursor["totalCount"] == by_offset["totalCount"] == len(by_cursor["nodes"]) > 0
    assert {(node["status"], node["progress"]) for node in by_cursor["nodes"]} == {("COMPLETED", 100)}
    assert [node["id"] for node in by_cursor["nodes"]] == [edge["node"]["id"] for edge in by_offset["edges"]]
    assert (await api.ask(example("jobs"), after=by_cursor["pageInfo"]["endCursor"]))["jobs"]["nodes"] == []


async def test_dead_letters_and_their_retries(api: ServedApi) -> None:
    found = (await api.ask(example("dead_letters")))["jobs"]
    dead = found["nodes"][0]
    assert found["totalCount"] == len(found["nodes"])
    assert dead["rawPayload"]["to"] == "eve@reject.example"
    assert "550" in dead["error"]["message"]
    assert dead["error"]["retryable"] is False
    retried = (await api.ask(example("retry_job"), id=dead["id"]))["retryJob"]["job"]
    assert retried["id"] == dead["id"]
    await ended(api, dead["id"], "DEAD_LETTER")
    assert (await api.ask(example("retry_jobs"), since=ahead(days=1)))["retryJobs"]["retriedCount"] == 0
    assert (await api.ask(example("retry_jobs"), since=ahead(days=-1)))["retryJobs"]["retriedCount"] == 1
    await ended(api, dead["id"], "DEAD_LETTER")


async def test_a_change_of_a_job_that_has_not_started(api: ServedApi) -> None:
    created = await _mail(api, "ada@exmaple.com", runAt=ahead(days=1))
    job = (await api.ask(example("update_job"), id=created["id"], runAt=ahead(days=2)))["updateJob"]["job"]
    assert (job["status"], job["priority"], job["tags"]) == ("SCHEDULED", "HIGH", ["mended"])
    changed = [event["changed"] for event in job["events"] if event["__typename"] == "JobEdited"]
    assert changed == [["runAt", "priority", "payload", "tags"]]


async def test_a_cancellation(api: ServedApi) -> None:
    created = await _mail(api, "ada@example.com", runAt=ahead(days=1))
    job = (await api.ask(example("cancel_job"), id=created["id"]))["cancelJob"]["job"]
    assert (job["id"], job["status"]) == (created["id"], "CANCELLED")
    assert job["finishedAt"]


async def test_a_deletion(api: ServedApi) -> None:
    created = await _mail(api, "ada@example.com", runAt=ahead(days=1))
    assert (await api.ask(example("delete_job"), id=created["id"]))["deleteJob"] == {"deleted": True}
    assert (await api.ask(example("job"), id=created["id"]))["job"] is None
    assert (await api.ask(example("delete_job"), id=created["id"]))["deleteJob"] == {"deleted": False}


async def test_what_this_installation_consists_of(api: ServedApi) -> None:
    names = {kind["name"] for kind in (await api.ask(example("job_types")))["jobTypes"]}
    assert "email" in names
    default = next(q for q in (await api.ask(example("queues")))["queues"] if q["name"] == "default")
    assert {c["status"]: c["count"] for c in default["counts"]}["COMPLETED"] > 0
    (worker,) = (await api.ask(example("workers")))["workers"]
    assert worker["queues"] == ["default"]


async def test_who_asks_and_a_token_that_is_made_and_ended(api: ServedApi) -> None:
    everybody = (await api.ask(example("viewer")))["viewer"]
    assert everybody["scopes"] == ["READ", "CREATE", "CONTROL", "OPERATE"]
    assert (everybody["subject"], everybody["limitedTo"]) == ("anonymous", None)
    made = (await api.ask(example("create_view_token")))["createViewToken"]["viewToken"]
    assert made["token"].startswith("gjv_")
    refusal = await api.refusal(example("renew_access"), token=made["token"])
    assert refusal["extensions"]["code"] == "BAD_REQUEST"
    assert (await api.ask(example("revoke_token"), id=made["id"]))["revokeToken"] == {"revoked": True}


async def test_one_job_is_watched_over_a_websocket_and_over_http(api: ServedApi) -> None:
    created = await _mail(api, "ada@example.com", runAt=ahead(seconds=0.3))
    by_http = _multipart(api, "job_progress", id=created["id"])
    async with (
        aclosing(api.events(example("job_progress"), id=created["id"])) as by_socket,
        aclosing(by_http),
    ):
        told = [event async for event in by_socket], [event async for event in by_http]
    assert kinds(lifecycle(told[0])) == ["Scheduled", "Queued", "Started", "Completed"]
    assert told[0][-1]["job"]["progress"] == 100
    # The one over HTTP came late.
    assert told[1] == told[0][-1:]


async def test_all_jobs_are_watched_over_a_websocket_and_over_http(api: ServedApi) -> None:
    async with api.socket_streams(example("job_events"), [{}]) as (by_socket,):
        by_http = _multipart(api, "job_events")
        first = asyncio.ensure_future(anext(by_http))
        await api.subscribers(2)
        created = await _mail(api, "ada@example.com")
        for event in await anext(by_socket), await first:
            assert (event["__typename"], event["job"]["id"]) == ("JobQueued", created["id"])
        assert (await anext(by_http))["__typename"] == "JobStarted"
        await by_http.aclose()
    await api.subscribers(0)
    await ended(api, created["id"])


async def test_a_page_is_kept_up_to_date(api: ServedApi) -> None:
    async with api.socket_streams(example("jobs_changed"), [{}]) as (changes,):
        snapshot = await anext(changes)
        assert snapshot["__typename"] == "JobsSnapshot"
        before = snapshot["nodes"][0]["id"] if snapshot["nodes"] else None
        created = await _mail(api, "ada@example.com")
        entered = await anext(changes)
        assert (entered["__typename"], entered["job"]["id"]) == ("JobEntered", created["id"])
        assert (entered["before"], entered["totalCount"]) == (before, snapshot["totalCount"] + 1)
    await ended(api, created["id"])


async def test_dead_letters_that_failed_alike_are_counted(api: ServedApi) -> None:
    groups = (await api.ask(example("dead_letter_groups")))["deadLetterGroups"]
    assert [group["count"] for group in groups] == sorted([group["count"] for group in groups], reverse=True)


async def test_a_bulk_action_is_planned_run_followed_and_looked_at(api: ServedApi) -> None:
    plan = (await api.ask(example("plan_bulk"), group="none"))["planBulk"]
    run = (await api.ask(example("run_bulk"), token=plan["token"], first=1))["runBulk"]
    async with aclosing(api.events(example("bulk_progress"), id=run["id"])) as states, asyncio.timeout(10):
        assert [state["state"] async for state in states][-1] == "DONE"
    assert (await api.ask(example("bulk_run"), id=run["id"]))["bulkRun"]["state"] == "DONE"
    assert (await api.ask(example("stop_bulk"), id=run["id"]))["stopBulk"]["state"] == "DONE"


async def test_a_queue_is_paused_and_resumed(api: ServedApi) -> None:
    paused = (await api.ask(example("pause_queue"), name="threads"))["pauseQueue"]["queue"]["paused"]
    assert (paused["reason"], paused["until"]) == ("the mail server is being moved", None)
    shown = (await api.ask(example("queues")))["queues"]
    assert [queue["name"] for queue in shown if queue["paused"] == paused] == ["threads"]
    assert (await api.ask(example("resume_queue"), name="threads"))["resumeQueue"]["queue"]["paused"] is None


async def test_a_schedule_is_previewed_defined_run_and_deleted(api: ServedApi) -> None:
    over_the_change = {"cron": "30 2 * * *", "timeZone": "Europe/Berlin", "after": "2027-03-27T00:00:00Z"}
    previewed = (await api.ask(example("schedule_preview"), **over_the_change))["schedulePreview"]
    assert previewed[:3] == ["2027-03-27T01:30:00+00:00", "2027-03-28T01:00:00+00:00", "2027-03-29T00:30:00+00:00"]
    named = {"name": "morning", "cron": "30 7 * * *", "timeZone": "Europe/Berlin"}
    defined = (await api.ask(example("upsert_schedule"), **named))["upsertSchedule"]["schedule"]
    assert (defined["overlap"], len(defined["nextRuns"])) == ("SKIP", 3)
    raw = {"name": "raw", "everySeconds": 86400, "type": "email", "payload": json.dumps(MAIL)}
    stored = (await api.ask(example("upsert_raw_schedule"), input=raw))["upsertRawSchedule"]["schedule"]
    assert stored["rawPayload"] == MAIL
    assert [one["name"] for one in (await api.ask(example("schedules")))["schedules"]] == ["morning", "raw"]
    shown = (await api.ask(example("schedule"), name="raw"))["schedule"]
    assert (shown["lastJob"], shown["skips"], len(shown["nextRuns"])) == (None, [], 5)
    job = (await api.ask(example("run_schedule"), name="raw"))["runSchedule"]["job"]
    assert job["schedule"] == "raw"
    await ended(api, job["id"])
    paused = (await api.ask(example("pause_schedule"), name="raw"))["pauseSchedule"]["schedule"]
    assert paused == {"name": "raw", "paused": True, "nextRuns": []}
    resumed = (await api.ask(example("pause_schedule"), name="raw", paused=False))["pauseSchedule"]["schedule"]
    assert (resumed["paused"], len(resumed["nextRuns"])) == (False, 1)
    for name in ("morning", "raw"):
        assert (await api.ask(example("delete_schedule"), name=name))["deleteSchedule"]["deleted"]
    assert (await api.ask(example("schedules")))["schedules"] == []


async def test_a_queue_is_limited(api: ServedApi) -> None:
    limited = (await api.ask(example("set_queue_limits"), name="threads"))["setQueueLimits"]
    assert limited["queue"]["limits"] == {"concurrency": 5, "concurrencyPerKey": 1, "perSecond": 10.0}
    shown = (await api.ask(example("queues")))["queues"]
    assert [queue["name"] for queue in shown if queue["limits"] == limited["queue"]["limits"]] == ["threads"]


async def test_whether_the_store_is_reached_is_asked_and_watched(api: ServedApi) -> None:
    asked = (await api.ask(example("server_status")))["serverStatus"]
    async with aclosing(api.events(example("server_status_changed"))) as states, asyncio.timeout(10):
        told = await anext(states)
    assert (asked["storeReachable"], told["storeReachable"]) == (True, True)
    assert asked["since"] == told["since"] < asked["now"] < told["now"]


async def test_queues_and_workers_are_watched(api: ServedApi) -> None:
    async with aclosing(api.events(example("queues_changed"))) as counted, asyncio.timeout(10):
        queues: Any = await anext(counted)
        assert "default" in [queue["name"] for queue in queues]
    async with aclosing(api.events(example("workers_changed"))) as seen, asyncio.timeout(10):
        workers: Any = await anext(seen)
        assert [worker["stale"] for worker in workers] == [False] * len(workers)
