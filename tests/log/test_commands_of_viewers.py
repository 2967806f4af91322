"""What commands do for whom: the jobs of a viewer's tenant and within its limits, and no others."""

from typing import Any

import pytest

from gql_jobs.jobs.errors import Forbidden, IdempotencyConflict, NotFound
from gql_jobs.jobs.model import JobStatus, job_id_for_key
from gql_jobs.jobs.viewer import Scope
from gql_jobs.log.commands import JobCommands
from tests.job_types.probe_jobs import ProbePayload
from tests.stories import request
from tests.viewers import viewer

RED, BLUE = viewer("ada", "red"), viewer("bob", "blue")


async def test_a_job_is_of_the_tenant_and_by_the_subject_of_whoever_creates_it(commands: JobCommands) -> None:
    job = (await commands.create(request(), RED)).job
    assert (job.spec.tenant, job.spec.created_by) == ("red", "ada")
    stored = await commands.find(job.id)
    assert stored is not None
    assert stored.spec == job.spec


async def test_without_authentication_a_job_is_of_no_tenant_and_by_nobody(commands: JobCommands) -> None:
    job = (await commands.create(request())).job
    assert (job.spec.tenant, job.spec.created_by) == (None, None)


async def test_two_tenants_with_one_key_have_two_jobs_and_neither_is_the_job_of_no_tenant(
    commands: JobCommands,
) -> None:
    keyed = request(idempotency_key="k")
    created = [await commands.create(keyed, asked) for asked in (RED, BLUE, viewer("root"))]
    assert [one.deduplicated for one in created] == [False, False, False]
    assert [one.id for one in created] == [job_id_for_key("k", "red"), job_id_for_key("k", "blue"), job_id_for_key("k")]
    assert len({one.id for one in created}) == 3
    again = await commands.create(keyed, viewer("eve", "red"))
    assert (again.id, again.deduplicated, again.job.spec.created_by) == (created[0].id, True, "ada")


async def test_a_batch_of_a_tenant_has_the_ids_of_its_keys(commands: JobCommands) -> None:
    await commands.create(request(idempotency_key="k"), BLUE)
    first, second = await commands.create_many([request(idempotency_key="k") for _ in range(2)], RED)
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert first.id == second.id == job_id_for_key("k", "red")


@pytest.mark.parametrize("stranger", [BLUE, viewer("eve", "red", types=["email"]), viewer("eve", "red", tags=["b"])])
async def test_a_job_that_a_viewer_cannot_see_is_neither_cancelled_nor_retried(
    commands: JobCommands, stranger: Any
) -> None:
    job = (await commands.create(request(tags=("a",)), RED)).job
    with pytest.raises(NotFound) as hidden:
        await commands.cancel(job.id, stranger)
    with pytest.raises(NotFound) as unknown:
        await commands.cancel(job_id_for_key("unknown"), stranger)
    assert hidden.value.message == unknown.value.message.replace(job_id_for_key("unknown"), job.id)
    assert (await commands.cancel(job.id, RED)).status is JobStatus.CANCELLED
    with pytest.raises(NotFound):
        await commands.retry(job.id, stranger)
    assert (await commands.retry(job.id, RED)).status is JobStatus.QUEUED


@pytest.mark.parametrize(
    "limits", [{"types": ["email"]}, {"queues": ["threads"]}, {"tags": ["a", "b"]}, {"ids": [job_id_for_key("k")]}]
)
async def test_a_creation_outside_of_the_limits_is_forbidden_and_nothing_of_its_batch_is_stored(
    commands: JobCommands, limits: Any
) -> None:
    limited = viewer(**limits)
    with pytest.raises(Forbidden):
        await commands.create(request(), limited)
    with pytest.raises(Forbidden):
        await commands.create_many([request(tags=("a",), idempotency_key="k"), request()], limited)
    assert await commands.find(job_id_for_key("k")) is None


@pytest.mark.parametrize(
    "limits",
    [{"types": ["probe", "email"]}, {"queues": ["default"]}, {"tags": ["b", "z"]}, {"ids": [job_id_for_key("k")]}],
)
async def test_a_creation_within_the_limits_needs_one_entry_of_each_kind(commands: JobCommands, limits: Any) -> None:
    created = await commands.create(request(tags=("a", "b"), idempotency_key="k"), viewer(**limits))
    assert await commands.find(created.id) is not None


async def test_an_empty_list_lets_no_job_through(commands: JobCommands) -> None:
    with pytest.raises(Forbidden):
        await commands.create(request(), viewer(tags=[]))


@pytest.mark.parametrize("payload", [ProbePayload(), ProbePayload(steps=3)], ids=["the same", "another"])
async def test_a_key_of_a_hidden_job_is_a_conflict_that_does_not_name_it(
    commands: JobCommands, payload: ProbePayload
) -> None:
    job = (await commands.create(request(idempotency_key="k", tags=("a",)), RED)).job
    for other in (viewer("eve", "red", tags=["b"]), viewer("eve", "red", Scope.CREATE)):
        repeated = request(payload, idempotency_key="k", tags=("b",))
        for asked in (commands.create(repeated, other), commands.create_many([request(tags=("b",)), repeated], other)):
            with pytest.raises(IdempotencyConflict) as conflict:
                await asked
            assert "existingJobId" not in conflict.value.extensions
            assert job.id not in conflict.value.message
    differing = [
        request(idempotency_key="k", tags=("b",)),
        request(ProbePayload(steps=9), idempotency_key="k", tags=("b",)),
    ]
    with pytest.raises(IdempotencyConflict) as conflict:
        await commands.create_many(differing, viewer("eve", "red", tags=["b"]))
    assert "existingJobId" not in conflict.value.extensions
