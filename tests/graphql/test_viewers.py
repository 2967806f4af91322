"""Viewers as the API shows them, and the tokens that they have made: never wider than themselves, ended by their id."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.access.authentication import Authentication
from gql_jobs.graphql.context import Context, Session
from gql_jobs.graphql.schema import JobsSchema, build_schema
from gql_jobs.graphql.viewers import LARGEST_LIMITS
from gql_jobs.jobs.errors import Unauthenticated
from gql_jobs.jobs.model import new_job_id
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.viewer import ANYBODY, Scope, Viewer, ViewLimits
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.deadline import until
from tests.running import JOB_TYPES
from tests.viewers import viewer

CREATE = (
    "mutation($input: CreateViewTokenInput!) { createViewToken(input: $input) { viewToken { token id expiresAt } } }"
)
REVOKE = "mutation($id: ID!) { revokeToken(id: $id) { revoked } }"
JOB = "mutation { createJob(input: { payload: { probe: {} } }) { job { id } %s } }"
ADA = viewer("ada", "acme")


@pytest.fixture
async def required(settings: Settings) -> AsyncIterator[Runtime]:
    """A process that asks for keys and tokens."""
    async with open_runtime(settings.model_copy(update={"auth": "required"}), JOB_TYPES) as opened:
        yield opened


async def _answer(schema: JobsSchema, runtime: Runtime, who: Viewer, text: str, **variables: Any) -> Any:
    """The value of the one root field, or the error."""
    result = await schema.execute(text, variables, Context(lambda: runtime, Session(who)))
    if result.errors:
        (error,) = result.formatted_errors
        return error["extensions"]
    assert result.data is not None
    ((_, value),) = result.data.items()
    return value


def test_a_viewer_is_shown_as_the_credential_says() -> None:
    schema = build_schema(load_job_types(JOB_TYPES))
    ends = datetime(2027, 1, 31, 12, tzinfo=UTC)
    limits = ViewLimits(ids=frozenset(), types=frozenset({"probe", "email"}))
    who = Viewer("key:shop", frozenset({Scope.CREATE, Scope.READ}), "acme", limits, ends, ("one",))
    text = "{ viewer { subject scopes tenant limitedTo { ids tags types queues } expiresAt } }"

    def shown(by: Viewer) -> Any:
        return asyncio.run(_answer(schema, None, by, text))  # type: ignore[arg-type]

    assert shown(who) == {
        "subject": "key:shop",
        "scopes": ["READ", "CREATE"],
        "tenant": "acme",
        "limitedTo": {"ids": [], "tags": None, "types": ["email", "probe"], "queues": None},
        "expiresAt": ends.isoformat(),
    }
    assert shown(ANYBODY) == {
        "subject": "anonymous",
        "scopes": ["READ", "CREATE", "CONTROL", "OPERATE"],
        "tenant": None,
        "limitedTo": None,
        "expiresAt": None,
    }


async def test_a_view_token_is_for_what_was_said_and_reads_for_a_quarter_of_an_hour_where_nothing_was(
    schema: JobsSchema, required: Runtime
) -> None:
    job_id = new_job_id()
    given = {"limitedTo": {"ids": [job_id.upper(), "no id"], "tags": ["a"]}}
    before = datetime.now(UTC)
    made = (await _answer(schema, required, ADA, CREATE, input=given))["viewToken"]
    seen = await required.access.viewer_of(made["token"])
    assert (seen.subject, seen.tenant) == ("ada", "acme")
    assert seen.scopes == {Scope.READ}
    assert seen.limits == ViewLimits(ids=frozenset({job_id}), tags=frozenset({"a"}))
    lasts = datetime.fromisoformat(made["expiresAt"]) - before
    assert timedelta(seconds=898) < lasts < timedelta(seconds=930)
    nothing = await _answer(schema, required, ADA, CREATE, input={"limitedTo": {}, "scopes": None, "ttlSeconds": None})
    assert (await required.access.viewer_of(nothing["viewToken"]["token"])).limits == ViewLimits()


@pytest.mark.parametrize(
    ("who", "given"),
    [
        (viewer("ada", "acme", Scope.READ), {"limitedTo": {}, "scopes": ["CONTROL"]}),
        (viewer("ada", "acme", Scope.CREATE), {"limitedTo": {}}),
        (viewer("ada", "acme", tags=["a"]), {"limitedTo": {"tags": ["a", "b"]}}),
        (viewer("ada", "acme", ids=[]), {"limitedTo": {"ids": [new_job_id()]}}),
    ],
)
async def test_a_view_token_is_never_wider_than_who_makes_it(
    schema: JobsSchema, required: Runtime, who: Viewer, given: dict[str, Any]
) -> None:
    assert await _answer(schema, required, who, CREATE, input=given) == {"code": "FORBIDDEN"}


@pytest.mark.parametrize("seconds", [0, -1, 30 * 86_400 + 1])
async def test_a_view_token_lasts_a_second_to_thirty_days(schema: JobsSchema, required: Runtime, seconds: int) -> None:
    refused = await _answer(schema, required, ADA, CREATE, input={"limitedTo": {}, "ttlSeconds": seconds})
    assert refused["code"] == "INVALID_ARGUMENT"
    assert "ttlSeconds" in refused["argument"]


@pytest.mark.parametrize("kind", LARGEST_LIMITS)
async def test_the_limits_of_a_view_token_have_limits(schema: JobsSchema, required: Runtime, kind: str) -> None:
    most = LARGEST_LIMITS[kind]
    for given, place in (([str(n) for n in range(most + 1)], kind), (["x" * 256], f"{kind}.0"), ([""], f"{kind}.0")):
        refused = await _answer(schema, required, ADA, CREATE, input={"limitedTo": {kind: given}})
        assert refused == {"code": "INVALID_ARGUMENT", "argument": f"input.limitedTo.{place}"}
    literal = (
        f"mutation {{ createViewToken(input: {{ limitedTo: {{ {kind}: {['x'] * (most + 1)} }} }}) {{ __typename }} }}"
    )
    refused = await _answer(schema, required, ADA, literal.replace("'", '"'))
    assert refused == {"code": "INVALID_ARGUMENT", "argument": f"input.limitedTo.{kind}"}


async def test_a_view_token_is_ended_by_its_id_by_who_made_it_and_by_nobody_of_another_tenant(
    schema: JobsSchema, required: Runtime
) -> None:
    made = (await _answer(schema, required, ADA, CREATE, input={"limitedTo": {}}))["viewToken"]
    for who in (viewer("bob", "bolt"), viewer("eve", "acme", Scope.READ)):
        assert await _answer(schema, required, who, REVOKE, id=made["id"]) == {"revoked": False}
    assert await _answer(schema, required, ADA, REVOKE, id="no token") == {"revoked": False}
    await required.access.viewer_of(made["token"])
    assert await _answer(schema, required, ADA, REVOKE, id=made["id"]) == {"revoked": True}

    async def has_ended() -> bool:
        try:
            await required.access.viewer_of(made["token"])
        except Unauthenticated:
            return True
        return False

    await until(has_ended, "the token has ended", within=1)


async def test_the_token_of_a_created_job_is_for_that_job_and_made_only_if_it_is_selected(
    schema: JobsSchema, required: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    issue = Authentication.issue

    def counting(self: Authentication, *arguments: Any) -> Any:
        made.append(arguments)
        return issue(self, *arguments)

    monkeypatch.setattr(Authentication, "issue", counting)
    creator = viewer("kim", "acme", Scope.CREATE)
    await _answer(schema, required, creator, JOB % "deduplicated")
    assert made == []
    created = await _answer(schema, required, creator, JOB % "viewToken { token expiresAt }")
    assert len(made) == 1
    seen = await required.access.viewer_of(created["viewToken"]["token"])
    assert seen.scopes == {Scope.READ}
    assert seen.limits == ViewLimits(ids=frozenset({created["job"]["id"]}))
    lasts = datetime.fromisoformat(created["viewToken"]["expiresAt"]) - datetime.now(UTC)
    assert timedelta(seconds=3500) < lasts <= timedelta(seconds=3601)
    text = "{ jobs { totalCount nodes { id } } }"
    assert (await _answer(schema, required, seen, text))["nodes"] == [created["job"]]


async def test_a_token_of_a_created_job_is_for_no_job_that_somebody_else_creates_with_its_key(
    schema: JobsSchema, required: Runtime
) -> None:
    """A creator sees its own jobs alone, so whoever has its token sees no more, whatever becomes of the id."""
    created = await _answer(schema, required, viewer("kim", "acme", Scope.CREATE), JOB % "viewToken { token }")
    seen = await required.access.viewer_of(created["viewToken"]["token"])
    narrower = required.access.issue(seen, ViewLimits(), [Scope.READ], 60).token
    job = await required.job(created["job"]["id"], seen.visibility)
    assert job is not None
    for token in (created["viewToken"]["token"], narrower):
        visibility = (await required.access.viewer_of(token)).visibility
        assert visibility.admits(job.id, job.spec)
        assert not visibility.admits(job.id, replace(job.spec, created_by="eve"))


async def test_a_token_of_a_created_job_that_is_refused_leaves_the_job_and_names_it(
    schema: JobsSchema, required: Runtime
) -> None:
    creator = viewer("kim", "acme", Scope.CREATE)
    for arguments, code in (("scopes: [CONTROL]", "FORBIDDEN"), ("ttlSeconds: 0", "INVALID_ARGUMENT")):
        refused = await _answer(schema, required, creator, JOB % f"viewToken({arguments}) {{ id }}")
        assert refused["code"] == code
        assert await required.job(refused["jobId"], creator.visibility) is not None


async def test_without_authentication_tokens_are_made_alike(schema: JobsSchema, runtime: Runtime) -> None:
    created = await _answer(schema, runtime, ANYBODY, JOB % "viewToken { token id }")
    assert created["viewToken"]["token"].startswith("gjv_")
    made = await _answer(schema, runtime, ANYBODY, CREATE, input={"limitedTo": {}})
    assert made["viewToken"]["token"].startswith("gjv_")


async def test_access_is_renewed_on_a_socket_only(schema: JobsSchema, required: Runtime) -> None:
    text = "mutation($t: String!) { renewAccess(token: $t) { viewer { subject } } }"
    assert await _answer(schema, required, ADA, text, t="gjv_x") == {"code": "BAD_REQUEST"}

    class Renewing(Session):
        async def renew(self, token: str) -> Viewer:
            self.viewer = await required.access.viewer_of(token)
            self.has_ended = False
            return self.viewer

    session = Renewing(ADA)
    session.has_ended = True
    token = required.access.issue(viewer("ada", "acme"), ViewLimits(), [Scope.READ], 60).token
    result = await schema.execute(text, {"t": token}, Context(lambda: required, session))
    assert result.data == {"renewAccess": {"viewer": {"subject": "ada"}}}
    assert session.viewer.scopes == {Scope.READ}
