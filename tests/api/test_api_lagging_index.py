"""What an API process answers while its index lags behind the stream, and what it says of itself then."""

import io

import pytest

from gql_jobs.jobs.messages import Completed, Started
from gql_jobs.jobs.model import Job
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog, job_events
from gql_jobs.settings import Settings
from tests.api.operations import HISTORY, find
from tests.by_hand import report, say
from tests.serving import Data, ServedApi, serving
from tests.stories import request

ARTIFACTS = "query ($id: ID!) { job(id: $id) { artifacts { name sizeBytes sha256 } } }"


async def _story(job_log: JobLog, settings: Settings) -> Job:
    job = (await JobCommands(job_log, settings).create(request())).job
    started = await say(job_log, job, Started)
    await report(job_log, job, 40, "going")
    store = ArtifactStore(job_log, settings)
    for name in ("b.txt", "a.txt"):
        await store.save(job.id, name, io.BytesIO(b"text"), "text/plain", job_events(job.id, started))
    await say(job_log, job, Completed)
    return job


async def test_a_job_that_the_index_does_not_know_yet_has_its_whole_history_and_its_files(
    api: ServedApi, job_log: JobLog, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[list[Data]] = []
    with monkeypatch.context() as patch:
        patch.setattr(api.runtime.feed, "_apply", lambda _batch: None)
        job = await _story(job_log, settings)
        answers.append(await _told(api, job))
        assert (await find(api, job.id))["status"] == "COMPLETED"
        assert api.runtime.index.job(job.id) is None
    api.runtime.feed._consumer.rewind(1)  # noqa: SLF001
    last = (await job_log.history(job.id))[-1].seq
    assert await api.runtime.feed.wait_for(last, 5)
    answers.append(await _told(api, job))
    assert answers[0] == answers[1]
    assert [saved["name"] for saved in answers[0][1]["job"]["artifacts"]] == ["a.txt", "b.txt"]


@pytest.mark.parametrize("asked", ["status", "events(first: 1) { cursor }", "artifacts { name }"])
async def test_what_the_stream_has_of_a_job_that_the_index_does_not_know_yet_is_read_within_the_budget(
    settings: Settings, job_log: JobLog, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    async with serving(settings.model_copy(update={"max_operation_rows": 4})) as api:
        monkeypatch.setattr(api.runtime.feed, "_apply", lambda _batch: None)
        job = await _story(job_log, settings)
        refusal = await api.refusal(f"query ($id: ID!) {{ job(id: $id) {{ {asked} }} }}", id=job.id)
        assert refusal["extensions"] == {
            "code": "TOO_COMPLEX",
            "measure": "number of rows read",
            "limit": 4,
            "actual": 5,
        }
        assert api.runtime.index.job(job.id) is None


async def test_a_job_that_the_index_does_not_know_yet_is_looked_up_for_its_events_within_the_budget_too(
    settings: Settings, job_log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings.model_copy(update={"max_operation_rows": 4})) as api, api.raw_socket() as opened:
        monkeypatch.setattr(api.runtime.feed, "_apply", lambda _batch: None)
        job = await _story(job_log, settings)
        refusal = await api.refused_on(opened, "1", f'subscription {{ jobProgress(id: "{job.id}") {{ cursor }} }}')
        assert refusal["extensions"]["code"] == "TOO_COMPLEX"
        assert api.runtime.bus.subscribers == 0


async def _told(api: ServedApi, job: Job) -> list[Data]:
    return [await api.ask(document, id=job.id) for document in (HISTORY, ARTIFACTS)]


async def test_a_process_that_has_fallen_behind_says_so_and_how_far_it_is(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = await api.http.get("/readyz")
    assert (ready.status_code, ready.json()["feed"]["lag"]) == (200, 0)
    assert ready.json()["feed"]["percent"] == 100
    assert ready.json()["feed"].keys() == {"position", "lag", "applied", "unreadable", "rebuilt", "percent"}
    monkeypatch.setattr(api.runtime.feed, "caught_up", False)
    monkeypatch.setattr(api.runtime.feed, "lag", 75_000)
    behind = await api.http.get("/readyz")
    assert (behind.status_code, behind.json()["checks"]["feed"]["ok"]) == (503, False)
    assert "75000 messages behind" in behind.json()["checks"]["feed"]["message"]
