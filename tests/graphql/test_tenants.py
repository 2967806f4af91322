"""Two tenants that ask the same: neither learns of the other, by no answer, count, cursor, event or refusal."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.graphql.context import Session
from gql_jobs.graphql.engine.documents import OperationRequest
from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.jobs.model import new_job_id
from gql_jobs.jobs.requests import ChildPlace
from gql_jobs.jobs.viewer import Viewer
from gql_jobs.settings import Settings
from tests.graphql.doors import ADA, BOB, EVE, KIM, Installation, installation
from tests.stories import request
from tests.viewers import viewer

KEYED = 'mutation { createJob(input: { payload: { probe: {} }, idempotencyKey: "key" }) { deduplicated job { id } } }'
KEYED_MANY = KEYED.replace("createJob(input: {", "createJobs(inputs: [{").replace('"key" })', '"key" }])')
KEYED_MANY = KEYED_MANY.replace("{ deduplicated job { id } }", "{ deduplicatedCount jobs { id } }")
EVENTS = 'subscription { jobEvents(after: "0") { __typename cursor job { id } } }'


@pytest.fixture
async def found(settings: Settings) -> AsyncIterator[Installation]:
    async with installation(settings) as opened:
        yield opened


@pytest.fixture(params=["fast", "usual"])
def by(request: pytest.FixtureRequest, schema: JobsSchema, usual_schema: JobsSchema) -> JobsSchema:
    """The schema, with and without readers of plain fields."""
    return schema if request.param == "fast" else usual_schema


async def _data(found: Installation, by: JobsSchema, who: Viewer, text: str, **variables: Any) -> Any:
    result = await by.execute(text, variables, found.context(who))
    assert not result.errors, result.formatted_errors
    return result.data


async def _error(found: Installation, by: JobsSchema, who: Viewer, text: str, **variables: Any) -> Any:
    context = found.context(who)
    if text.startswith("subscription"):
        async with aclosing(await by.subscribe(text, variables, context)) as results:
            result = await anext(results)
    else:
        result = await by.execute(text, variables, context)
    (error,) = result.formatted_errors
    return error


async def test_a_key_is_the_tenants_own(found: Installation, by: JobsSchema) -> None:
    for who, job in ((ADA, found.job), (BOB, found.others)):
        assert (await _data(found, by, who, KEYED))["createJob"] == {"deduplicated": True, "job": {"id": job}}
        many = (await _data(found, by, who, KEYED_MANY))["createJobs"]
        assert many == {"deduplicatedCount": 1, "jobs": [{"id": job}]}


@pytest.mark.parametrize("text", [KEYED, KEYED_MANY])
async def test_a_key_of_a_job_that_is_hidden_is_a_conflict_that_does_not_name_the_job(
    found: Installation, by: JobsSchema, text: str
) -> None:
    error = await _error(found, by, KIM, text)
    assert error["extensions"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert "existingJobId" not in error["extensions"]
    assert found.job not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "mutation($id: ID!) { cancelJob(id: $id) { job { id } } }",
        "mutation($id: ID!) { retryJob(id: $id) { job { id } } }",
        "subscription($id: ID!) { jobProgress(id: $id) { cursor } }",
        'subscription($id: ID!) { jobProgress(id: $id, after: "0") { cursor } }',
    ],
)
async def test_a_hidden_job_is_refused_in_the_words_of_one_that_does_not_exist(
    found: Installation, by: JobsSchema, text: str
) -> None:
    unknown = new_job_id()
    for_unknown = await _error(found, by, BOB, text, id=unknown)
    for hidden in (found.job, found.ended):
        told = await _error(found, by, BOB, text, id=hidden)
        assert str(told).replace(hidden, unknown) == str(for_unknown)


async def test_pages_counts_offsets_and_cursors_are_those_of_the_tenant(found: Installation, by: JobsSchema) -> None:
    text = """query($first: Int, $after: String, $offset: Int) {
      jobs(first: $first, after: $after, offset: $offset) {
        totalCount nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor }
      }
    }"""
    of_acme = (await _data(found, by, ADA, text, first=1))["jobs"]
    assert of_acme["totalCount"] == 4
    assert of_acme["pageInfo"]["hasNextPage"]
    of_bolt = (await _data(found, by, BOB, text, first=1))["jobs"]
    assert (of_bolt["totalCount"], of_bolt["nodes"]) == (1, [{"id": found.others}])
    assert not of_bolt["pageInfo"]["hasNextPage"]
    behind = (await _data(found, by, BOB, text, after=of_acme["pageInfo"]["endCursor"]))["jobs"]
    assert {job["id"] for job in behind["nodes"]} <= {found.others}
    assert behind["totalCount"] == 1
    skipped = (await _data(found, by, BOB, text, offset=1))["jobs"]
    assert (skipped["nodes"], skipped["totalCount"]) == ([], 1)


async def test_queues_count_the_jobs_of_the_viewer_alone(found: Installation, by: JobsSchema) -> None:
    text = "{ queues { name counts { status count } oldestQueuedAt workers unservedTypes } }"
    await found.runtime.feed.read_back(await found.runtime.commands.create(request(), viewer("bea", "bolt")))

    async def counted(who: Viewer) -> dict[str, dict[str, int]]:
        queues = (await _data(found, by, who, text))["queues"]
        assert all((queue["oldestQueuedAt"] is None) == (_of(queue, "QUEUED") == 0) for queue in queues)
        assert all(bool(queue["unservedTypes"]) == bool(_of(queue, "QUEUED")) for queue in queues)
        return {q["name"]: {c["status"]: c["count"] for c in q["counts"] if c["count"]} for q in queues}

    every = set(found.runtime.registry.queues)
    acme, bolt = await counted(ADA), await counted(BOB)
    assert set(acme) == set(bolt) == every
    assert {name: n for name, n in acme.items() if n} == {"default": {"QUEUED": 2, "DEAD_LETTER": 1, "CANCELLED": 1}}
    assert {name: n for name, n in bolt.items() if n} == {"default": {"QUEUED": 2}}
    assert await counted(viewer("web", "acme", ids=[found.job])) == {"default": {"QUEUED": 1}}
    assert await counted(viewer("web", "bolt", ids=[found.job])) == {}
    assert await counted(viewer("web", "acme", tags=["none"], queues=["cpu"])) == {"cpu": {}}
    (only_created,) = [q for name, q in (await counted(KIM)).items() if name == "default"]
    assert only_created == {"QUEUED": 1}


def _of(queue: Any, status: str) -> int:
    return sum(one["count"] for one in queue["counts"] if one["status"] == status)


async def test_whether_workers_serve_a_queue_is_told_but_neither_how_many_nor_which(
    found: Installation, by: JobsSchema
) -> None:
    text = "{ workers { id } queues { name workers } }"
    for who in (ADA, BOB, KIM, viewer("web", None, tags=["a"])):
        data = await _data(found, by, who, text)
        assert data["workers"] == []
        assert {q["name"]: q["workers"] for q in data["queues"] if q["name"] in {"cpu", "default"}} == {
            "cpu": 1,
            "default": 0,
        }
    assert len((await _data(found, by, viewer("ops"), text))["workers"]) == 1


async def test_why_a_job_waits_is_told_without_a_word_about_the_jobs_of_others(
    found: Installation, by: JobsSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "query($id: ID!) { job(id: $id) { waiting { reason detail until ahead } } }"
    (worker,) = found.runtime.presence.workers()
    busy = replace(worker, queues=("default",), known_types=("probe",), concurrency=2, running=2)
    monkeypatch.setattr(found.runtime.presence, "workers", lambda: [busy])
    for who in (ADA, EVE, viewer("web", None, ids=[found.job])):
        waiting = (await _data(found, by, who, text, id=found.job))["job"]["waiting"]
        assert waiting == {"reason": "WORKERS_BUSY", "detail": "it waits for a worker", "until": None, "ahead": None}
    monkeypatch.setattr(found.runtime.presence, "workers", list)
    waiting = (await _data(found, by, ADA, text, id=found.job))["job"]["waiting"]
    assert (waiting["detail"], waiting["ahead"]) == ("no worker serves the queue `default`", None)
    assert (await _data(found, by, viewer("ops"), text, id=found.others))["job"]["waiting"]["ahead"] >= 1


async def test_an_origin_is_there_for_those_alone_who_may_see_that_job(found: Installation, by: JobsSchema) -> None:
    text = "query($id: ID!) { job(id: $id) { id origin { id tenant } } }"
    create = "mutation($of: ID!) { createJob(input: { payload: { probe: {} }, origin: $of }) { job { id } } }"
    made = (await _data(found, by, ADA, create, of=found.job))["createJob"]["job"]["id"]
    for who in (ADA, EVE, viewer("ops")):
        origin = (await _data(found, by, who, text, id=made))["job"]["origin"]
        assert origin == {"id": found.job, "tenant": "acme"}
    assert (await _data(found, by, viewer("web", "acme", ids=[made]), text, id=made))["job"] == {
        "id": made,
        "origin": None,
    }
    for who, of in (
        (BOB, found.job),
        (KIM, found.job),
        (ADA, found.others),
        (ADA, new_job_id()),
        (ADA, ""),
        (ADA, "x"),
    ):
        refusal = await _error(found, by, who, create, of=of)
        assert refusal["message"] == f"There is no job {of!r}."
        assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "input.origin"}
    many = create.replace("createJob(input: {", "createJobs(inputs: [{ payload: { probe: {} } }, {")
    many = many.replace("$of }) { job {", "$of }]) { jobs {")
    refusal = await _error(found, by, KIM, many, of=found.job)
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "inputs.1.origin"}


async def test_jobs_to_run_after_are_those_alone_that_the_viewer_may_see(found: Installation, by: JobsSchema) -> None:
    create = "mutation($of: ID!) { createJob(input: { payload: { probe: {} }, after: [$of] }) { job { id after } } }"
    made = (await _data(found, by, ADA, create, of=found.job))["createJob"]["job"]
    assert made["after"] == [found.job]
    for who, of in ((BOB, found.job), (KIM, found.job), (ADA, found.others), (ADA, new_job_id()), (ADA, "x")):
        refusal = await _error(found, by, who, create, of=of)
        assert refusal["message"] == f"There is no job {of!r}."
        assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "input.after.0"}


async def test_a_parent_and_children_are_there_for_those_alone_who_may_see_them(
    found: Installation, by: JobsSchema
) -> None:
    parent = found.runtime.index.job(found.job)
    assert parent is not None
    place = ChildPlace(parent.id, parent.submission_seq, "probe", tenant="acme", created_by=parent.spec.created_by)
    made = [
        await found.runtime.commands.create(request(child=replace(place, nth=number), tags=tags))
        for number, tags in enumerate([("a",), ("b",), ()], 1)
    ]
    await found.runtime.feed.read_back(made[-1])
    first, second, third = (one.id for one in made)
    text = "query($id: ID!) { job(id: $id) { id parent { id } children { id } } }"
    pages = "query($id: ID!) { jobs(filter: { parent: $id }) { totalCount nodes { id } } }"
    for who, seen in (
        (ADA, [first, second, third]),
        (EVE, [first, second, third]),
        (viewer("ops"), [first, second, third]),
        (viewer("web", "acme", ids=[found.job, second]), [second]),
        (viewer("web", "acme", ids=[found.job]), []),
        (viewer("web", None, ids=[found.job, first]), [first]),
    ):
        shown = (await _data(found, by, who, text, id=found.job))["job"]
        assert shown == {"id": found.job, "parent": None, "children": [{"id": one} for one in seen]}
        page = (await _data(found, by, who, pages, id=found.job))["jobs"]
        assert page == {"totalCount": len(seen), "nodes": [{"id": one} for one in reversed(seen)]}
    for who in (BOB, KIM, viewer("web", "acme", tags=["b"])):
        assert (await _data(found, by, who, text, id=found.job))["job"] is None
    of_b = (await _data(found, by, viewer("web", "acme", tags=["b"]), text, id=second))["job"]
    assert of_b == {"id": second, "parent": None, "children": []}
    assert (await _data(found, by, viewer("web", "acme", tags=["b"]), pages, id=found.job))["jobs"]["totalCount"] == 1
    assert (await _data(found, by, BOB, pages, id=found.job))["jobs"]["totalCount"] == 0
    assert (await _data(found, by, ADA, text, id=second))["job"]["parent"] == {"id": found.job}


async def test_job_types_are_those_of_which_there_can_be_jobs_for_the_viewer(
    found: Installation, by: JobsSchema
) -> None:
    async def types(who: Viewer) -> set[str]:
        return {kind["name"] for kind in (await _data(found, by, who, "{ jobTypes { name } }"))["jobTypes"]}

    every = {kind.name for kind in found.runtime.registry}
    assert await types(ADA) == every
    assert await types(viewer("web", "acme", types=["probe", "gone"])) == {"probe"}
    in_cpu = {kind.name for kind in found.runtime.registry if kind.queue == "cpu"}
    assert await types(viewer("web", "acme", queues=["cpu"])) == in_cpu
    assert await types(viewer("web", "acme", ids=[found.job])) == {"probe"}
    assert await types(viewer("web", "bolt", ids=[found.job])) == set()


async def test_subscribers_of_one_document_get_the_events_of_their_tenant_and_share_results_within_it(
    found: Installation, by: JobsSchema
) -> None:
    async with AsyncExitStack() as stack:
        streams = []
        for who in (ADA, BOB, EVE, viewer("web", "acme", ids=[found.job])):
            stream: Any = await by.subscribe(EVENTS, None, found.context(who))
            streams.append(await stack.enter_async_context(aclosing(stream)))
        ada, bob, eve, one = streams
        theirs = [await anext(ada) for _ in range(7)]
        assert all([await anext(eve) is event for event in theirs])
        limited = await anext(one)
        assert limited.data == theirs[0].data
        assert limited is not theirs[0]
        assert {event.data["jobEvents"]["job"]["id"] for event in theirs} == {
            *(found.job, found.ended, found.dead, found.kims)
        }
        assert (await anext(bob)).data["jobEvents"]["job"]["id"] == found.others

        late = (await found.runtime.commands.create(request(), BOB)).id
        early = (await found.runtime.commands.create(request(), ADA)).id
        assert (await anext(bob)).data["jobEvents"]["job"]["id"] == late
        assert (await anext(ada)).data["jobEvents"]["job"]["id"] == early


async def test_a_renewal_while_a_subscription_runs_counts_from_the_next_event_on(
    found: Installation, by: JobsSchema
) -> None:
    session = Session(viewer("ada", "acme"))
    async with aclosing(
        await by.subscribe("subscription { jobEvents { job { id } } }", None, found.context(session))
    ) as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        first = (await found.runtime.commands.create(request(tags=("x",)), ADA)).id
        assert (await waiting).data == {"jobEvents": {"job": {"id": first}}}
        session.viewer = viewer("ada", "acme", tags=["y"])
        await found.runtime.commands.create(request(tags=("x",)), ADA)
        second = (await found.runtime.commands.create(request(tags=("y",)), ADA)).id
        assert (await anext(events)).data == {"jobEvents": {"job": {"id": second}}}


async def test_the_job_that_is_watched_has_to_be_there_for_the_new_viewer(
    found: Installation, schema: JobsSchema
) -> None:
    session = Session(ADA)
    context = found.context(session)
    operation = schema.operations.operation(
        OperationRequest("subscription($id: ID!) { jobProgress(id: $id) { cursor } }", {"id": found.job}), context
    )
    async with aclosing(schema.operations.results(operation)) as results:
        assert not (await anext(results)).errors
        assert await schema.operations.authorise(operation) == []
        session.viewer = viewer("ada", "acme", ids=[found.ended])
        (error,) = await schema.operations.authorise(operation)
    assert error.formatted["extensions"] == {"code": "NOT_FOUND", "jobId": found.job}


async def test_a_document_that_is_kept_holds_nothing_of_who_has_asked_it(found: Installation, by: JobsSchema) -> None:
    text = (
        "query Shared { viewer { subject } jobs { nodes { id status artifacts { url } } } queues { counts { count } } }"
    )
    asked = []
    for who, own in ((ADA, found.job), (BOB, found.others), (ADA, found.job)):
        context = found.context(who)
        asked.append(weakref.ref(context))
        result = await by.execute(text, None, context)
        assert result.data is not None
        assert result.data["viewer"] == {"subject": who.subject}
        shown = {job["id"] for job in result.data["jobs"]["nodes"]}
        assert own in shown
        assert (found.job in shown) is (who is ADA)
        del context, result
    assert by.operations.documents.find(text) is not None
    gc.collect()
    assert [context() for context in asked] == [None, None, None]


async def test_the_address_of_a_file_is_signed_for_whoever_asks(found: Installation, by: JobsSchema) -> None:
    text = "query($id: ID!) { job(id: $id) { artifacts { name url } } }"
    ((file,), (again,)) = [
        (await _data(found, by, who, text, id=found.job))["job"]["artifacts"]
        for who in (ADA, replace(EVE, credentials=("one",)))
    ]
    path, _, signature = file["url"].partition("?signature=")
    assert path == f"/artifacts/{found.job}/a.txt"
    assert file["url"] != again["url"]
    seen = found.runtime.access.artifact_viewer(found.job, "a.txt", signature)
    job = await found.runtime.job(found.job, seen.visibility)
    assert job is not None
    assert await found.runtime.job(found.ended, seen.visibility) is None
