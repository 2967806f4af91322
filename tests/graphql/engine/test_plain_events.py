"""Reading events past the executor changes no answer: the same subscriptions, answered both ways."""

import asyncio
from contextlib import aclosing
from itertools import repeat
from typing import Any

import pytest
from graphql import parse, validate
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gql_jobs.graphql.context import Context, Session
from gql_jobs.graphql.engine.fast_path import EventExecutor
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.jobs.messages import Kind
from gql_jobs.jobs.viewer import Scope
from tests.graphql.engine.random_documents import subscriptions
from tests.graphql.sample_jobs import IDS, SEEN_BY


def _told(context: Context, text: str) -> int:
    """How many results the subscription has before it waits for others: of a refused one its refusal."""
    viewer, index = context.session.viewer, context.services().index
    jobs = [job for job in map(index.job, IDS) if job is not None]
    there = [job.id for job in jobs if viewer.visibility.shows(job)]
    watched = [job_id for job_id in IDS if job_id in text] or there
    if viewer.scopes.isdisjoint({Scope.READ, Scope.CREATE}) or not set(watched) <= set(there):
        return 1
    return sum(len(index.events(job_id)) for job_id in watched)


async def _answers(schema: JobsSchema, context: Context, text: str, *, yes: bool = True) -> list[Any]:
    """Data and errors of every event there has been, with the JSON of both."""
    variables = {"yes": yes} if "$yes" in text else {}
    async with aclosing(await schema.subscribe(text, variables, context)) as results:
        found = [await anext(results) for _ in repeat(None, _told(context, text))]
    return [(result.data, result.formatted_errors, result.payload) for result in found]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_subscription_is_answered_the_same_event_by_event_for_whomever_and_with_whichever_variables(
    schema: JobsSchema, usual_schema: JobsSchema, context: Context, data: st.DataObject
) -> None:
    text = data.draw(subscriptions(core_schema(schema)))
    whom = Context(context.services, Session(data.draw(st.sampled_from(SEEN_BY))))
    assume(not validate(core_schema(schema), parse(text)))

    async def answer(*, yes: bool) -> tuple[str, str]:
        usual, past = [await _answers(by, whom, text, yes=yes) for by in (usual_schema, schema)]
        return repr([payload for *_, payload in usual]), repr([payload for *_, payload in past])

    for yes in (True, False, True) if "$yes" in text else (True, True):
        usual, past = asyncio.run(answer(yes=yes))
        assert past == usual


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Kind]:
    """The kinds of the events that an executor was made for."""
    kinds: list[Kind] = []
    usual = EventExecutor.build_per_event_executor

    def counting(self: EventExecutor, event: Any) -> Any:
        kinds.append(event.source.kind)
        return usual(self, event)

    monkeypatch.setattr(EventExecutor, "build_per_event_executor", counting)
    return kinds


PLAIN = """subscription {
  jobEvents(after: "0") {
    __typename cursor at ...Own
    job { id status ... on ProbeJob { progress } ... on UnknownJob { queue } error { message } }
  }
}
fragment Own on JobEvent {
  ... on JobScheduled { runAt } ... on JobStarted { workerId attempt supersedes }
  ... on JobProgress { progress message } ... on JobCompleted { durationMs }
  ... on JobFailed { error { type } nextAttemptAt } ... on JobDeadLetter { error { type } }
}"""


async def test_events_of_all_kinds_are_read_without_an_executor(
    schema: JobsSchema, usual_schema: JobsSchema, context: Context, executed: list[Kind]
) -> None:
    read = await _answers(schema, context, PLAIN)

    assert executed == []
    assert read == await _answers(usual_schema, context, PLAIN)
    assert set(executed) == set(Kind) - {Kind.RELEASED, Kind.EXPIRED, Kind.ARTIFACT, Kind.NOTE}


@pytest.mark.parametrize(
    ("selected", "left"),
    [
        ("... on JobProgress { job { rawPayload } }", {Kind.PROGRESS}),
        ("job { ... on UnknownJob { rawPayload } }", {Kind.QUEUED, Kind.STARTED, Kind.FAILED}),
    ],
)
async def test_what_has_a_resolver_leaves_only_its_own_events_to_the_executor(
    schema: JobsSchema, context: Context, executed: list[Kind], selected: str, left: set[Kind]
) -> None:
    await _answers(schema, context, f'subscription {{ jobEvents(after: "0") {{ cursor {selected} }} }}')

    assert set(executed) == left
