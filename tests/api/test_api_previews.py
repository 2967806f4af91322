"""Previews for lists: the beginnings of payloads and of messages, whatever the size of the jobs."""

import asyncio
import json

import pytest

from gql_jobs.graphql.job_types import error_of
from gql_jobs.graphql.previews import CUT, LARGEST_PREVIEW, LONGEST_SUMMARY, cut
from gql_jobs.jobs.model import Spec
from tests.api.operations import asked, create, create_many
from tests.serving import Data, ServedApi
from tests.stories import error

PREVIEW = "query ($id: ID!, $bytes: Int) { job(id: $id) { rawPayload payloadPreview(bytes: $bytes) } }"


async def _preview(api: ServedApi, job: Data, size: int | None) -> tuple[str, str]:
    """The preview, and the whole payload's JSON."""
    shown = (await api.ask(PREVIEW, id=job["id"], bytes=size))["job"]
    return shown["payloadPreview"], json.dumps(shown["rawPayload"], separators=(",", ":"), ensure_ascii=False)


async def test_a_preview_is_the_beginning_of_the_payload_in_whole_characters(api: ServedApi) -> None:
    job = await create(api, {"gate": "é" * 300})
    for size in (None, 0, 1, 9, 10, 11, 12, 500):
        preview, whole = await _preview(api, job, size)
        expected = whole.encode()[: 200 if size is None else size].decode(errors="ignore")
        assert preview == expected + CUT
    preview, whole = await _preview(api, job, 10_000)
    assert preview == whole


def test_a_text_that_fits_is_not_cut() -> None:
    assert cut("aé".encode(), 3) == "aé"
    assert cut("aé".encode(), 2) == "a…"
    assert cut(b"", 0) == ""


@pytest.mark.parametrize("size", [-1, LARGEST_PREVIEW + 1])
async def test_a_preview_has_a_size_within_limits(api: ServedApi, size: int) -> None:
    job = await create(api)
    refusal = await api.refusal(PREVIEW, id=job["id"], bytes=size)
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "bytes"}


async def test_a_page_of_large_jobs_has_previews_and_one_payload_in_memory_at_a_time(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(10):
        await create_many(api, [asked({"gate": "x" * 800_000}) for _ in range(5)])
    read, reading, most, reads = api.runtime.reader.spec, 0, 0, 0

    async def counted(job_id: str) -> Spec | None:
        nonlocal reading, most, reads
        reading += 1
        reads += 1
        most = max(most, reading)
        await asyncio.sleep(0)
        try:
            return await read(job_id)
        finally:
            reading -= 1

    monkeypatch.setattr(api.runtime.reader, "spec", counted)
    pages = (
        "a: jobs { nodes { id payloadPreview short: payloadPreview(bytes: 5) } } b: jobs { nodes { payloadPreview } }"
    )
    async with asyncio.timeout(10):
        answer = await api.http.post("/graphql", json={"query": f"{{ {pages} }}"})
    shown = answer.json()["data"]
    assert len(answer.content) < 50 * 1000
    assert len(shown["a"]["nodes"]) == len(shown["b"]["nodes"]) == 50
    for node in shown["a"]["nodes"]:
        assert node["payloadPreview"] == '{"gate":"' + "x" * 191 + CUT
        assert node["short"] == '{"gat' + CUT
    assert (most, reads) == (1, 50)


async def test_a_preview_of_a_job_that_has_expired_meanwhile_is_empty(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(api)

    async def gone(_job_id: str) -> Spec | None:
        return None

    monkeypatch.setattr(api.runtime.reader, "spec", gone)
    (node,) = (await api.ask("{ jobs { nodes { payloadPreview } } }"))["jobs"]["nodes"]
    assert node == {"payloadPreview": ""}


def test_the_summary_of_a_failure_is_the_first_line_of_its_message_and_no_longer_than_200_characters() -> None:
    for message, summary in (
        ("It failed.", "It failed."),
        ("\n  It failed: \r\nthe rest", "It failed:"),
        ("é" * 1000, "é" * LONGEST_SUMMARY),
        ("", ""),
    ):
        assert error_of(error(1, message)).summary == summary
