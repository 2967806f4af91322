"""Who may begin a root field is decided in one place, for the executor and the fast path alike."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from graphql import GraphQLObjectType, get_introspection_query

from gql_jobs.graphql.context import Context, Session
from gql_jobs.graphql.engine.documents import OperationRequest
from gql_jobs.graphql.engine.operations import Result
from gql_jobs.graphql.engine.strawberry_internals import core_schema
from gql_jobs.graphql.permissions import PERMISSIONS, named, permit
from gql_jobs.graphql.schema import SECRETS, JobsSchema
from gql_jobs.jobs.errors import Unauthenticated
from gql_jobs.jobs.viewer import Scope, Viewer
from tests.graphql.sample_jobs import IDS
from tests.running import ROOT

TOKEN = "gjv_abcdefghijklmnopqrstuvwxyz"  # noqa: S105 -- of nobody
_META = {"Query.__typename", "Query.__schema", "Query.__type", "Mutation.__typename"}


@pytest.fixture(params=[True, False], ids=["fast", "usual"])
def either_schema(request: pytest.FixtureRequest, schema: JobsSchema, usual_schema: JobsSchema) -> JobsSchema:
    return schema if request.param else usual_schema


def _as(context: Context, *scopes: Scope, has_ended: bool = False) -> Context:
    """The context of a viewer with these scopes."""
    session = Session(Viewer("ada", frozenset(scopes)))
    session.has_ended = has_ended
    return Context(context.services, session)


def _answer(schema: JobsSchema, text: str, context: Context, **variables: Any) -> Result:
    return asyncio.run(schema.execute(text, variables, context))


def _codes(result: Result) -> list[tuple[str, Any]]:
    return [(error["extensions"]["code"], error.get("path")) for error in result.formatted_errors]


def test_every_root_field_has_its_permission_and_no_other_one_has(schema: JobsSchema) -> None:
    core = core_schema(schema)
    roots = [root for root in (core.query_type, core.mutation_type, core.subscription_type) if root is not None]
    assert set(PERMISSIONS) == {f"{root.name}.{field}" for root in roots for field in root.fields} | _META


def test_the_guide_lists_what_each_scope_lets_a_viewer_ask_for() -> None:
    listed = (ROOT / "docs" / "security.md").read_text().split("<!-- permissions -->\n")[1].split("<!-- /perm")[0]
    rows = [line.strip("| ").split(" | ") for line in listed.splitlines()[2:]]
    told = {scopes: fields.replace("`", "").split(", ") for fields, scopes in rows}
    meant: dict[str, set[str]] = {}
    for name, scopes in PERMISSIONS.items():
        needed = named(scopes) or "any, or none"
        meant.setdefault(needed, set()).add(name.partition(".")[2])
    assert told == {needed: sorted(fields) for needed, fields in meant.items()}


def test_a_field_that_the_viewer_lacks_a_scope_for_is_an_error_of_that_field_alone(
    either_schema: JobsSchema, context: Context
) -> None:
    result = _answer(
        either_schema, f'{{ viewer {{ subject }} mine: job(id: "{IDS[0]}") {{ id }} }}', _as(context, Scope.CONTROL)
    )
    assert result.data == {"viewer": {"subject": "ada"}, "mine": None}
    (error,) = result.formatted_errors
    assert error["message"] == "job needs the scope READ or CREATE, which this key or token does not have."
    assert (error["path"], error["extensions"]) == (["mine"], {"code": "FORBIDDEN"})


@pytest.mark.parametrize("scopes", [(Scope.CONTROL,), (Scope.CONTROL, Scope.OPERATE), (Scope.READ,), (Scope.CREATE,)])
def test_whoever_controls_jobs_may_see_them_too(
    either_schema: JobsSchema, context: Context, scopes: tuple[Scope, ...]
) -> None:
    for text in (
        "mutation($id: ID!) { cancelJob(id: $id) { job { id rawPayload } } }",
        "mutation($id: ID!) { retryJob(id: $id) { job { id rawPayload } } }",
        "mutation($id: ID!) { retryJobs(filter: { ids: [$id] }) { retriedCount } }",
    ):
        result = _answer(either_schema, text, _as(context, *scopes), id=IDS[0])
        (error,) = result.formatted_errors
        assert (result.data, error["extensions"]) == (None, {"code": "FORBIDDEN"})
        assert "needs the scope CONTROL, and READ or CREATE, which" in error["message"]


def test_a_field_without_a_permission_is_begun_by_nobody(
    either_schema: JobsSchema, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(PERMISSIONS, "Query.job")
    for session in (context.session, _as(context, *Scope).session):
        result = _answer(either_schema, f'{{ job(id: "{IDS[0]}") {{ id }} }}', Context(context.services, session))
        assert (result.data, _codes(result)) == ({"job": None}, [("FORBIDDEN", ["job"])])


def test_a_fragment_an_alias_or_a_condition_is_no_way_around(either_schema: JobsSchema, context: Context) -> None:
    text = """query($yes: Boolean!) { ...A ... on Query @include(if: $yes) { b: workers { id } } }
    fragment A on Query { a: jobs { totalCount } }"""
    for yes in (True, False):
        result = _answer(either_schema, text, _as(context, Scope.CONTROL, Scope.OPERATE), yes=yes)
        assert result.data is None
        assert {code for code, _ in _codes(result)} == {"FORBIDDEN"}


def test_a_mutation_is_refused_before_it_is_begun_and_says_nothing_of_its_arguments(
    either_schema: JobsSchema, context: Context
) -> None:
    begun: list[None] = []

    def services() -> Any:
        begun.append(None)
        return context.services()

    session = _as(context, Scope.READ).session
    for text in (
        'mutation { createJob(input: { payload: { probe: {} }, tags: ["a"] }) { job { id } } }',
        f'mutation {{ cancelJob(id: "{IDS[0]}") {{ job {{ id }} }} }}',
        'mutation { cancelJob(id: "no id") { job { id } } }',
        f'mutation {{ retryJob(id: "{IDS[3]}") {{ job {{ id }} }} }}',
        "mutation { retryJobs(filter: {}) { retriedCount } }",
    ):
        result = _answer(either_schema, text, Context(services, session))
        assert [code for code, _ in _codes(result)] == ["FORBIDDEN"]
    assert begun == []


async def test_a_subscription_is_refused_before_it_is_opened(either_schema: JobsSchema, context: Context) -> None:
    for text in (
        f'subscription {{ jobProgress(id: "{IDS[0]}") {{ cursor }} }}',
        "subscription { all: jobEvents { at } }",
    ):
        stream = await either_schema.subscribe(text, None, _as(context, Scope.CONTROL))
        async with aclosing(stream) as results:
            (result,) = [result async for result in results]
        assert result.refused
        assert [code for code, _ in _codes(result)] == ["FORBIDDEN"]


@pytest.mark.parametrize("text", [get_introspection_query(), '{ __type(name: "Query") { name } }', "{ __typename }"])
def test_the_schema_is_shown_to_whoever_is_known_and_to_nobody_else(
    either_schema: JobsSchema, context: Context, text: str
) -> None:
    known = _answer(either_schema, text, _as(context))
    assert (known.errors, bool(known.data)) == (None, True)
    ended = _answer(either_schema, text, _as(context, *Scope, has_ended=True))
    assert [code for code, _ in _codes(ended)] == ["UNAUTHENTICATED"]
    assert not any((ended.data or {}).values())


def test_once_a_credential_has_ended_nothing_is_begun_but_a_renewal(context: Context) -> None:
    ended = _as(context, *Scope, has_ended=True)
    for name in PERMISSIONS.keys() - {"Mutation.renewAccess"}:
        with pytest.raises(Unauthenticated):
            permit(ended, *name.split("."))


async def test_a_subscription_that_runs_is_authorised_anew_for_another_viewer(
    schema: JobsSchema, context: Context
) -> None:
    running = _as(context, Scope.READ)
    request = OperationRequest("subscription { first: jobEvents { cursor } }")
    operation = schema.operations.operation(request, running)
    assert await schema.operations.authorise(operation) == []
    running.session.viewer = Viewer("ada", frozenset({Scope.CREATE}))
    assert await schema.operations.authorise(operation) == []
    running.session.viewer = Viewer("ada", frozenset({Scope.CONTROL}))
    (error,) = await schema.operations.authorise(operation)
    assert (error.formatted["path"], error.formatted["extensions"]) == (["first"], {"code": "FORBIDDEN"})


@pytest.mark.parametrize(
    "text",
    [
        f'mutation {{ renewAccess(token: "{TOKEN}") {{ viewer {{ subject }} }} }}',
        f'mutation {{ a: renewAccess(token: """{TOKEN}""") {{ __typename }} }}',
        f'mutation M($t: String! = "{TOKEN}") {{ renewAccess(token: $t) {{ __typename }} }}',
        f'mutation {{ ...F }} fragment F on Mutation {{ renewAccess(token: "{TOKEN}") {{ __typename }} }}',
        f"mutation {{ renewAccess(token: {TOKEN}) {{ __typename }} }}",
    ],
)
def test_a_token_in_a_document_is_refused_and_nothing_of_it_is_kept(
    context: Context, text: str, schema: JobsSchema, caplog: pytest.LogCaptureFixture
) -> None:
    documents = schema.operations.documents
    kept = documents._refusals._refusals  # noqa: SLF001 -- there is no other way to look
    before = len(documents), len(kept)
    for _ in range(2):
        result = _answer(schema, text, context)
        assert result.refused
        (error,) = result.formatted_errors
        assert error["extensions"] == {"code": "BAD_REQUEST"}
        assert "renewAccess(token) is a secret" in error["message"]
        assert TOKEN not in str(error)
    assert (len(documents), len(kept)) == before
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("given", [f'("{TOKEN}")', f'(token: $t, also: "{TOKEN}")', f'(token: $t) {{ "{TOKEN}" }}'])
def test_of_a_document_that_is_no_valid_one_and_may_have_a_token_no_refusal_is_kept(
    context: Context, given: str, schema: JobsSchema
) -> None:
    kept = schema.operations.documents._refusals._refusals  # noqa: SLF001 -- there is no other way to look
    before = len(kept)
    assert _answer(schema, f"mutation ($t: String!) {{ renewAccess{given} }}", context).refused
    assert len(kept) == before


def test_each_secret_argument_is_one_of_the_schema(schema: JobsSchema) -> None:
    mutations = core_schema(schema).mutation_type
    assert isinstance(mutations, GraphQLObjectType)
    assert all(argument in mutations.fields[field].args for field, argument in SECRETS.items())
