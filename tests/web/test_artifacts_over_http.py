"""The files of jobs over HTTP."""

import hashlib
import shutil
from collections.abc import AsyncIterator

import pytest

from gql_jobs.jobs.requests import JobRequest
from gql_jobs.settings import Settings
from tests.job_types.probe_jobs import ProbePayload
from tests.serving import ServedApi, serving

pytestmark = pytest.mark.usefixtures("worker")
SIZE = 300_000
DIGEST = hashlib.sha256(bytes(SIZE)).hexdigest()


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ServedApi]:
    """A server."""
    async with serving(settings) as served:
        yield served


async def saved(api: ServedApi, name: str, size: int = SIZE) -> str:
    """The URL of a file of zeros that a job has saved."""
    probe = api.runtime.registry.get("probe")
    assert probe is not None
    request = JobRequest.of(probe, ProbePayload(artifact=name, artifact_bytes=size))
    job_id = (await api.runtime.commands.create(request)).job.id
    async for _ in await api.runtime.watch.job(job_id):
        pass
    query = "query ($id: ID!) { job(id: $id) { artifacts { name url contentType sizeBytes sha256 createdAt } } }"
    (artifact,) = (await api.ask(query, id=job_id))["job"]["artifacts"]
    assert (artifact["name"], artifact["sizeBytes"]) == (name, size)
    url: str = artifact["url"]
    return url


async def test_a_file_is_sent_as_it_was_saved(api: ServedApi) -> None:
    answer = await api.http.get(await saved(api, "out/Grüße 1.csv"))
    assert answer.status_code == 200
    assert answer.content == bytes(SIZE)
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["etag"] == f'"{DIGEST}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''Gr%C3%BC%C3%9Fe%201.csv"


async def test_ranges_are_served(api: ServedApi) -> None:
    url = await saved(api, "zeros.bin")
    answer = await api.http.get(url, headers={"Range": "bytes=100-199"})
    assert (answer.status_code, len(answer.content)) == (206, 100)
    assert answer.headers["content-range"] == f"bytes 100-199/{SIZE}"
    beyond = await api.http.get(url, headers={"Range": f"bytes={SIZE}-"})
    assert beyond.status_code == 416


async def test_a_range_of_another_version_is_the_whole_file(api: ServedApi) -> None:
    url = await saved(api, "zeros.bin")
    other = {"Range": "bytes=0-9", "If-Range": '"other"'}
    assert (await api.http.get(url, headers=other)).status_code == 200
    same = {"Range": "bytes=0-9", "If-Range": f'"{DIGEST}"'}
    assert (await api.http.get(url, headers=same)).status_code == 206


async def test_what_a_client_has_already_is_not_sent_again(api: ServedApi) -> None:
    url = await saved(api, "zeros.bin")
    answer = await api.http.get(url, headers={"If-None-Match": f'"{DIGEST}"'})
    assert (answer.status_code, answer.content) == (304, b"")


async def test_head_says_what_get_would_send(api: ServedApi) -> None:
    answer = await api.http.head(await saved(api, "zeros.bin"))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(SIZE)


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "script.js", "feed.xml", "unknown"])
async def test_what_a_browser_must_not_run_is_offered_for_saving(api: ServedApi, name: str) -> None:
    answer = await api.http.get(await saved(api, name, 10))
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/artifacts/nonsense/a", "/artifacts/00000000-0000-4000-8000-000000000000/a"])
async def test_what_is_not_there_is_not_found(api: ServedApi, path: str) -> None:
    answer = await api.http.get(path)
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["extensions"]["code"] == "NOT_FOUND"


async def test_the_folder_of_fetched_files_may_be_deleted(api: ServedApi, settings: Settings) -> None:
    url = await saved(api, "zeros.bin")
    assert (await api.http.get(url)).status_code == 200
    shutil.rmtree(settings.data_dir / "artifacts")
    assert (await api.http.get(url)).content == bytes(SIZE)


async def test_another_server_serves_it_too(api: ServedApi, settings: Settings) -> None:
    url = await saved(api, "zeros.bin")
    elsewhere = settings.model_copy(update={"data_dir": settings.data_dir / "elsewhere"})
    async with serving(elsewhere) as other:
        assert (await other.http.get(url)).content == bytes(SIZE)
