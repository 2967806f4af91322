"""Which documents a schema remembers, and that an answer does not depend on it."""

import gc
import tracemalloc

import pytest

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine import documents
from gql_jobs.graphql.engine.documents import OperationRequest
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.web.runtime import Runtime

TYPES = "query Types { jobTypes { name } }"


@pytest.fixture
def schema() -> JobsSchema:
    return build_schema(load_job_types())


async def test_a_valid_document_is_parsed_once_and_answers_the_same_again(schema: JobsSchema, runtime: Runtime) -> None:
    answers = [await schema.execute(TYPES, context_value=Context(lambda: runtime)) for _ in range(2)]

    assert answers[0].errors is answers[1].errors is None
    assert answers[0].data == answers[1].data
    assert len(schema.operations.documents) == 1


@pytest.mark.parametrize("text", ["{ nothing }", "{ jobTypes { name ", "{ job }"])
async def test_a_document_with_errors_is_not_remembered_and_refused_the_same_again(
    schema: JobsSchema, text: str
) -> None:
    answers = [await schema.execute(text) for _ in range(2)]

    first, second = ([error.formatted for error in answer.errors or []] for answer in answers)
    assert first == second
    assert first[0]["extensions"]["code"].startswith("GRAPHQL_")
    assert len(schema.operations.documents) == 0


async def test_the_documents_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch, schema: JobsSchema) -> None:
    monkeypatch.setattr(documents, "MAX_CACHED_DOCUMENTS", 2)
    for name in ("A", "B", "A", "C"):
        await schema.execute(f"query {name} {{ __typename }}")

    assert schema.operations.documents.find("query A { __typename }") is not None
    assert schema.operations.documents.find("query B { __typename }") is None


async def test_a_document_too_long_to_be_worth_its_memory_is_not_remembered(schema: JobsSchema) -> None:
    answer = await schema.execute("{ __typename }" + " " * documents.MAX_CACHED_LENGTH)

    assert answer.errors is None
    assert len(schema.operations.documents) == 0


async def test_the_documents_that_are_remembered_fit_into_a_budget_of_memory(
    monkeypatch: pytest.MonkeyPatch, schema: JobsSchema
) -> None:
    budget = 4 << 20
    monkeypatch.setattr(documents, "MAX_CACHED_BYTES", budget)
    known = schema.operations.documents
    texts = [f"query Q{n} {{ jobs(filter: {{ ids: [{'1, ' * 500}] }}) {{ nodes {{ id }} }} }}" for n in range(12)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for text in texts:
            known.check(known.read(OperationRequest(text)))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 0 < len(known) < len(texts)
    assert after - before < budget
    # What was sent last is there, and digests of documents that are gone are not kept either.
    assert known.read(OperationRequest("", sha256=documents.digest(texts[-1]))).text == texts[-1]
    assert len(known._texts) == len(known)  # noqa: SLF001
