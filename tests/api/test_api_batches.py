"""createJobs: many jobs at once, checked before anything is stored, in order, and found again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise

import pytest

from gql_jobs.log.streams import stream_info
from gql_jobs.settings import Settings
from tests.api.operations import CREATE_MANY, asked, create, create_many, page, watched
from tests.deadline import until
from tests.running import running_worker
from tests.serving import ServedApi, serving


async def _ids_in_order(api: ServedApi) -> list[str]:
    """All jobs, oldest first, by pages of the largest size."""
    ids: list[str] = []
    after = None
    while True:
        order = {"field": "CREATED_AT", "direction": "ASC"}
        found = await page(api, first=500, after=after, orderBy=order)
        ids += [node["id"] for node in found["nodes"]]
        if not found["pageInfo"]["hasNextPage"]:
            return ids
        after = found["pageInfo"]["endCursor"]


async def test_a_thousand_jobs_keep_their_order(api: ServedApi) -> None:
    answer = (await api.ask(CREATE_MANY, inputs=[asked(tags=[str(n)]) for n in range(1000)]))["createJobs"]
    assert answer["deduplicatedCount"] == 0
    assert [job["tags"] for job in answer["jobs"]] == [[str(n)] for n in range(1000)]
    created = [datetime.fromisoformat(job["createdAt"]) for job in answer["jobs"]]
    assert all(earlier < later for earlier, later in pairwise(created))
    assert await _ids_in_order(api) == [job["id"] for job in answer["jobs"]]


async def test_a_key_that_repeats_in_a_batch_makes_one_job(api: ServedApi) -> None:
    old = await create(api, {"steps": 1}, idempotencyKey="old")
    inputs = [
        asked({"steps": 1}, idempotencyKey="new"),
        asked({"steps": 1}),
        asked({"steps": 1}, idempotencyKey="new"),
        asked({"steps": 1}, idempotencyKey="old"),
    ]
    answer = (await api.ask(CREATE_MANY, inputs=inputs))["createJobs"]
    new, alone, repeated, known = (job["id"] for job in answer["jobs"])
    assert answer["deduplicatedCount"] == 2
    assert (new, known) == (repeated, old["id"])
    assert len({new, alone, known}) == 3
    assert (await page(api))["totalCount"] == 3


async def test_a_key_with_two_payloads_in_a_batch_stores_nothing(api: ServedApi) -> None:
    inputs = [asked(), asked({"steps": 1}, idempotencyKey="new"), asked({"steps": 2}, idempotencyKey="new")]
    refusal = await api.refusal(CREATE_MANY, inputs=inputs)
    assert refusal["extensions"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert (await stream_info(api.runtime.connection)).state.messages == 0


async def test_a_key_taken_by_another_payload_reports_what_was_accepted(api: ServedApi) -> None:
    old = await create(api, {"steps": 1}, idempotencyKey="old")
    refusal = await api.refusal(CREATE_MANY, inputs=[asked(), asked({"steps": 2}, idempotencyKey="old"), asked()])
    assert refusal["extensions"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert refusal["extensions"]["existingJobId"] == old["id"]
    accepted = refusal["extensions"]["acceptedIds"]
    await until(lambda: api.runtime.index.job(accepted[-1]), "the accepted jobs are in the index")
    assert await _ids_in_order(api) == [old["id"], *accepted]
    assert len(accepted) == 2


async def test_all_inputs_are_checked_before_anything_is_stored(api: ServedApi) -> None:
    refused = [
        (asked({"to": "nobody", "subject": "", "body": ""}, "email"), "INVALID_PAYLOAD"),
        (asked({"saves": "x" * (1 << 20)}), "PAYLOAD_TOO_LARGE"),
        (asked(runAt="2999-01-01T00:00:00Z"), "INVALID_ARGUMENT"),
    ]
    for wrong, code in refused:
        refusal = await api.refusal(CREATE_MANY, inputs=[*(asked() for _ in range(20)), wrong])
        assert refusal["extensions"]["code"] == code
        assert (await stream_info(api.runtime.connection)).state.messages == 0


async def test_thousands_of_jobs_all_complete_and_are_counted(api: ServedApi, settings: Settings) -> None:
    async def completed() -> int:
        found: int = (await page(api, filter={"status": "COMPLETED"}, first=0))["totalCount"]
        return found

    async def all_completed() -> bool:
        return await completed() == 3000

    batch = [asked() for _ in range(1000)]
    async with running_worker(settings.model_copy(update={"num_workers": 100})):
        batches = [await create_many(api, batch) for _ in range(3)]
        await watched(api, batches[-1][-1])
        await until(all_completed, "all of them complete", within=50)
    assert len({job_id for ids in batches for job_id in ids}) == 3000
    assert (await page(api, first=0))["totalCount"] == 3000


@pytest.mark.parametrize(
    "selection",
    ["id", "id type tags error { message }", "...F } pageInfo { ...on PageInfo { endCursor }", "events { cursor }"],
)
async def test_a_page_that_shows_no_payloads_does_not_read_them(settings: Settings, selection: str) -> None:
    fragment = "fragment F on Job { id status }" if "...F" in selection else ""
    async with _large_jobs(settings) as api:
        found = await api.ask(f"{{ jobs {{ nodes {{ {selection} }} }} }} {fragment}")
        assert len(found["jobs"]["nodes"]) == 10


@pytest.mark.parametrize(
    "selection",
    ["rawPayload", "rawResult", "__typename result: rawResult", "id ...F", "... on Job { a: rawPayload }"],
)
async def test_a_page_reads_as_many_bytes_as_a_result_may_have(settings: Settings, selection: str) -> None:
    fragment = "fragment F on ProbeJob { payload { trace } }" if "...F" in selection else ""
    async with _large_jobs(settings) as api:
        refusal = await api.refusal(f"{{ jobs {{ nodes {{ {selection} }} }} }} {fragment}")
        assert refusal["extensions"]["measure"] == "number of bytes read"
        found = await api.ask(f"{{ jobs(first: 5) {{ nodes {{ {selection} }} }} }} {fragment}")
        assert len(found["jobs"]["nodes"]) == 5


@pytest.mark.parametrize("selection", ["__typename", "kind: __typename", "... on ProbeJob { id }", "id ...F"])
async def test_a_page_that_shows_types_alone_is_as_long_as_any_however_large_its_payloads(
    settings: Settings, selection: str
) -> None:
    fragment = "fragment F on ProbeJob { id }" if "...F" in selection else ""
    async with _large_jobs(settings) as api:
        found = await api.ask(f"{{ jobs {{ __typename edges {{ node {{ {selection} }} }} }} }} {fragment}")
        nodes = [edge["node"] for edge in found["jobs"]["edges"]]
        assert len(nodes) == 10
        assert all(next(iter(node.values())) == "ProbeJob" or node["id"] for node in nodes)


@asynccontextmanager
async def _large_jobs(settings: Settings) -> AsyncIterator[ServedApi]:
    """A server with ten jobs whose payloads together are larger than a result may be."""
    async with serving(settings.model_copy(update={"max_operation_bytes": 1 << 16})) as api:
        many = "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { jobs { id } } }"
        await api.ask(many, inputs=[asked({"trace": "t" * 8000}) for _ in range(10)])
        yield api


async def test_a_mutation_whose_answer_is_too_large_has_been_made(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"max_operation_bytes": 1 << 16})) as api:
        many = "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { jobs { rawPayload } } }"
        refusal = await api.refusal(many, inputs=[asked({"trace": "t" * 8000}) for _ in range(10)])
        assert (refusal["extensions"]["code"], refusal["extensions"]["measure"]) == ("TOO_COMPLEX", "size in bytes")
        assert refusal["message"].endswith("What the mutation did stays done.")
        assert (await page(api, first=0))["totalCount"] == 10


async def test_a_payload_that_stands_in_many_inputs_counts_in_each(api: ServedApi) -> None:
    many = f"""mutation ($p: JobPayloadInput!) {{
      createJobs(inputs: [{"{payload: $p} " * 100}]) {{ deduplicatedCount }}
    }}"""
    refusal = await api.refusal(many, p={"probe": {"trace": "t" * 200_000}})
    assert (refusal["extensions"]["code"], refusal["extensions"]["argument"]) == ("INVALID_ARGUMENT", "inputs")
    assert (await stream_info(api.runtime.connection)).state.messages == 0
