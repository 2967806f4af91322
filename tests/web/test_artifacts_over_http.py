"""The files of jobs over HTTP."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from msgspec.structs import replace

from gql_jobs.jobs.model import Artifact, media_type
from gql_jobs.jobs.requests import JobRequest
from gql_jobs.jobs.viewer import ANYBODY, EVERYTHING, Visibility
from gql_jobs.settings import Settings
from gql_jobs.web.artifacts import ArtifactCache
from gql_jobs.web.runtime import Runtime
from tests.job_types.probe_jobs import ProbePayload
from tests.serving import ServedApi, serving
from tests.stories import accepted

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
    request = JobRequest.of(probe, accepted(ProbePayload(artifact=name, artifact_bytes=size)))
    job_id = (await api.runtime.commands.create(request)).job.id
    async for _ in await api.runtime.watch.job(job_id, ANYBODY):
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
    for tags in f'"other", W/"{DIGEST}"', "*":
        assert (await api.http.get(url, headers={"If-None-Match": tags})).status_code == 304
    assert (await api.http.get(url, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_a_file_that_is_no_newer_than_a_date_is_not_sent_again(api: ServedApi) -> None:
    url = await saved(api, "zeros.bin")
    modified = (await api.http.head(url)).headers["last-modified"]
    assert (await api.http.get(url, headers={"If-Modified-Since": modified})).status_code == 304
    for earlier in "Thu, 01 Jan 1970 00:00:00 GMT", "yesterday", "", "Thu, 01 Jan 2099 00:00:00":
        assert (await api.http.get(url, headers={"If-Modified-Since": earlier})).status_code == 200
    both = {"If-Modified-Since": modified, "If-None-Match": '"other"'}
    assert (await api.http.get(url, headers=both)).status_code == 200


async def test_head_says_what_get_would_send(api: ServedApi) -> None:
    url = await saved(api, "zeros.bin")
    answer = await api.http.head(url)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(SIZE)
    sent = (await api.http.get(url)).headers
    assert {name: sent[name] for name in answer.headers} == dict(answer.headers)


async def test_what_needs_no_bytes_fetches_none(api: ServedApi, settings: Settings) -> None:
    url = await saved(api, "zeros.bin")
    assert (await api.http.head(url)).status_code == 200
    assert (await api.http.get(url, headers={"If-None-Match": f'"{DIGEST}"'})).status_code == 304
    assert not (settings.data_dir / "artifacts").exists()


class _Slow:
    """A store whose files come when they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def read(self, artifact: Artifact, target: BinaryIO) -> None:
        await self.go.wait()
        target.write(artifact.name.encode())


def _artifact(name: str, content_type: str = "text/plain") -> Artifact:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Artifact(name, content_type, len(name), digest, datetime(2030, 1, 1, tzinfo=UTC), name)


async def test_files_that_are_fetched_at_once_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = _Slow()
    caches = [ArtifactCache(store, tmp_path, 1 << 20) for _ in range(2)]
    scandir = os.scandir

    def renamed_meanwhile(path: Path) -> Any:
        entries = list(scandir(path))
        for entry in entries:
            if entry.name.startswith("."):
                os.rename(entry, tmp_path / "renamed")  # noqa: PTH104
        return Entries(entries)

    class Entries(list[Any]):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    one, other = _artifact("one"), _artifact("other")
    fetches = [asyncio.create_task(cache.file(file)) for cache in caches for file in (one, one, other)]
    store.go.set()
    for path in await asyncio.gather(*fetches):
        assert path.read_bytes() in {b"one", b"other"}
    (tmp_path / ".partial").write_bytes(b"")
    monkeypatch.setattr(os, "scandir", renamed_meanwhile)
    assert (await caches[0].file(_artifact("third"))).read_bytes() == b"third"


async def test_a_file_that_is_removed_amid_its_fetch_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = _Slow()
    store.go.set()
    folder = tmp_path / "files"
    cache = ArtifactCache(store, folder, 1 << 20)
    trim = cache._trim  # noqa: SLF001
    removed: list[Path] = []

    def remove_once() -> None:
        trim()
        if not removed:
            removed.extend(folder.iterdir())
            shutil.rmtree(folder)

    monkeypatch.setattr(cache, "_trim", remove_once)
    assert (await cache.file(_artifact("one"))).read_bytes() == b"one"
    assert removed


async def test_a_file_is_fetched_although_another_one_with_the_same_content_was(tmp_path: Path) -> None:
    """Else whoever has a file made could tell by the time whether somebody else has fetched the same content."""
    fetched: list[str] = []

    class Store:
        async def read(self, artifact: Artifact, target: BinaryIO) -> None:
            fetched.append(artifact.object)
            target.write(b"alike")

    store: Any = Store()
    cache = ArtifactCache(store, tmp_path, 1 << 20)
    of_one = _artifact("alike")
    of_other = replace(of_one, object="of another job/alike")
    for file in (of_one, of_other, of_one, of_other):
        assert (await cache.file(file)).read_bytes() == b"alike"
    assert fetched == ["alike", "of another job/alike"]


@pytest.mark.parametrize("text", ["text/csv", "text/csv; charset=utf-8", 'a/b;c="d e"', "application/vnd.x+json"])
def test_a_content_type_is_a_media_type(text: str) -> None:
    assert media_type(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text",
        "text/",
        "a/b\r\nSet-Cookie: c=d",
        "a/b\n",
        'a/b; c="d\r\n"',
        "a/ä",
        "a/b;",
        "a/b\x00",
        "a/" + "b" * 300,
    ],
)
def test_what_no_header_can_have_is_no_content_type(text: str) -> None:
    with pytest.raises(ValueError, match="A content type is a media type"):
        media_type(text)


@pytest.mark.parametrize("kept", ["text/html\r\nX-Evil: 1", "ä/ö", "text/plain\x00"])
async def test_a_file_that_was_kept_with_an_odd_content_type_is_offered_for_saving(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    url = await saved(api, "zeros.txt")
    found = await api.runtime.artifact(url.split("/")[2], "zeros.txt", EVERYTHING)
    assert found is not None
    odd = Artifact(found.name, kept, found.size_bytes, found.sha256, found.created_at, found.object)

    async def artifact(_self: Runtime, _job_id: str, _name: str, _visibility: Visibility) -> Artifact:
        return odd

    monkeypatch.setattr(Runtime, "artifact", artifact)
    answer = await api.http.get(url)
    assert (answer.status_code, answer.content) == (200, bytes(SIZE))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_file_whose_digest_is_none_is_not_served(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def artifact(_self: Runtime, _job_id: str, _name: str, _visibility: Visibility) -> Artifact:
        return replace(_artifact("one"), sha256='a"\r\nX-Evil: 1')

    monkeypatch.setattr(Runtime, "artifact", artifact)
    answer = await api.http.request(method, "/artifacts/018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42/one")
    assert (answer.status_code, "x-evil" in answer.headers) == (404, False)


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
