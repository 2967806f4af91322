"""Jobs that were made of others: CreateJobInput.origin and Job.origin."""

from datetime import timedelta

from gql_jobs.jobs.model import JobStatus
from gql_jobs.log.retention import expire
from gql_jobs.settings import Settings
from tests.api.operations import CREATE, RETRY, asked, create, create_many, ended
from tests.deadline import until
from tests.running import running_worker
from tests.serving import ServedApi

ORIGIN = "query ($id: ID!) { job(id: $id) { origin { __typename id status ... on ProbeJob { payload { steps } } } } }"


async def test_a_job_says_of_which_one_it_was_made_after_a_retry_too(api: ServedApi, settings: Settings) -> None:
    first = await create(api, {"permanent": True, "steps": 7})
    second = await create(api, {"permanent": True}, origin=first["id"].upper())
    assert (await api.ask(ORIGIN, id=first["id"]))["job"]["origin"] is None
    async with running_worker(settings):
        await ended(api, first["id"], "DEAD_LETTER")
        await ended(api, second["id"], "DEAD_LETTER")
        await api.ask(RETRY, id=second["id"])
        await ended(api, second["id"], "DEAD_LETTER")
    origin = (await api.ask(ORIGIN, id=second["id"]))["job"]["origin"]
    assert origin == {
        "__typename": "ProbeJob",
        "id": first["id"],
        "status": JobStatus.DEAD_LETTER.name,
        "payload": {"steps": 7},
    }


async def test_many_jobs_may_be_made_of_one_that_the_index_may_not_have_yet(api: ServedApi) -> None:
    first = await create(api)
    made = await create_many(api, [asked(origin=first["id"]) for _ in range(3)])
    for job_id in made:
        assert (await api.ask(ORIGIN, id=job_id))["job"]["origin"]["id"] == first["id"]


async def test_an_origin_plays_no_part_in_whether_a_creation_is_a_repetition(api: ServedApi) -> None:
    first, other = await create(api), await create(api)
    made = await create(api, origin=first["id"], idempotencyKey="k")
    for origin in (None, other["id"], first["id"]):
        again = (await api.ask(CREATE, input=asked(origin=origin, idempotencyKey="k")))["createJob"]
        assert (again["deduplicated"], again["job"]["id"]) == (True, made["id"])
    assert (await api.ask(ORIGIN, id=made["id"]))["job"]["origin"]["id"] == first["id"]


async def test_an_origin_that_has_expired_is_null(api: ServedApi, settings: Settings) -> None:
    async with running_worker(settings):
        first = await create(api)
        await ended(api, first["id"])
    made = await create(api, origin=first["id"])
    runtime = api.runtime
    job = await runtime.commands.find(first["id"])
    assert job is not None
    assert job.finished_at is not None
    await expire(runtime.commands._log, runtime.artifacts, first["id"], job.finished_at + timedelta(1))  # noqa: SLF001

    async def is_gone() -> bool:
        return (await api.ask(ORIGIN, id=made["id"]))["job"]["origin"] is None

    await until(is_gone, "the origin has expired")
    refusal = await api.refusal(CREATE, input=asked(origin=first["id"]))
    assert refusal["extensions"] == {"code": "INVALID_ARGUMENT", "argument": "input.origin"}


async def test_chains_of_origins_are_limited_as_all_that_is_nested(api: ServedApi, settings: Settings) -> None:
    job = await create(api)
    for _ in range(5):
        job = await create(api, origin=job["id"])
    deep = settings.max_operation_depth - 2
    for depth in (3, deep):
        chain = "{ origin " * depth + "{ id }" + " }" * depth
        found = (await api.ask(f'{{ job(id: "{job["id"]}") {chain} }}'))["job"]
        for _ in range(min(depth, 6)):
            assert found is not None
            found = found["origin"]
        assert (found is not None) == (depth < 6)
    chain = "{ origin " * (deep + 1) + "{ id }" + " }" * (deep + 1)
    refusal = await api.refusal(f'{{ job(id: "{job["id"]}") {chain} }}')
    assert refusal["extensions"]["code"] == "TOO_COMPLEX"
    assert refusal["extensions"]["measure"] == "depth"
