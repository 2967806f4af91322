"""Two tenants on one server: nothing that one of them is answered, over any way in, tells what the other one does."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

import httpx
import pytest

from gql_jobs.jobs.model import job_id_for_key, new_job_id
from gql_jobs.jobs.viewer import Scope, ViewLimits
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.guarded import READ, GuardedApi, guarded
from tests.serving import Data, hear, say

pytestmark = pytest.mark.usefixtures("worker")
MARK = "of-red-alone"
FACTS = """id type queue status priority progress attempt error { message } tags tenant createdBy createdAt updatedAt
  rawPayload rawResult artifacts { name sha256 } events { cursor actor } cancellation { workerId }"""
FILED = {"artifact": "a.txt", "artifactBytes": 9}
CREATE = "mutation ($input: CreateJobInput!) { createJob(input: $input) { job { id } } }"
JOB = f"query ($id: ID!) {{ job(id: $id) {{ {FACTS} }} }}"
BATTERY = (
    f"{{ jobs(first: 500) {{ totalCount nodes {{ {FACTS} }} pageInfo {{ hasNextPage endCursor }} }} }}",
    "{ jobs(orderBy: { field: PRIORITY }, offset: 1) { totalCount nodes { id } pageInfo { hasNextPage endCursor } } }",
    f"""{{
      tagged: jobs(filter: {{ tags: ["a"] }}) {{ totalCount }}
      theirs: jobs(filter: {{ tags: ["{MARK}"] }}) {{ totalCount }}
      done: jobs(filter: {{ status: [COMPLETED], type: ["probe"] }}) {{ totalCount nodes {{ id }} }}
      early: jobs(filter: {{ createdAfter: "2020-01-01T00:00:00Z" }}) {{ totalCount }}
    }}""",
    """{ queues { name counts { status count } oldestQueuedAt workers unservedTypes } jobTypes { name } workers { id }
      viewer { subject tenant } }""",
    "mutation { retryJobs(filter: { status: [DEAD_LETTER] }) { retriedCount remainingCount } }",
)
"""What is asked again and again, of which nothing changes while oneself does nothing."""
ABOUT_A_JOB = (
    JOB,
    "query ($id: ID!) { jobs(filter: { ids: [$id] }) { totalCount nodes { id } pageInfo { endCursor } } }",
    f"mutation ($id: ID!) {{ cancelJob(id: $id) {{ job {{ {FACTS} }} }} }}",
    f"mutation ($id: ID!) {{ retryJob(id: $id) {{ job {{ {FACTS} }} }} }}",
    """mutation ($id: ID!) {
      retryJobs(filter: { ids: [$id] }) { retriedCount remainingCount } again: cancelJob(id: $id) { job { id } }
    }""",
)
WATCHED = (
    "subscription ($id: ID!) { jobProgress(id: $id) { cursor actor } }",
    'subscription ($id: ID!) { jobProgress(id: $id, after: "0") { cursor } }',
    'subscription ($id: ID!) { jobProgress(id: $id, after: "99999999") { cursor } }',
)
CONDITIONS: tuple[dict[str, str], ...] = (
    {},
    {"Range": "bytes=0-3"},
    {"If-None-Match": "*"},
    {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
)


def tomorrow() -> str:
    """When jobs are to run that wait."""
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


class Tenants(NamedTuple):
    """A server, the key of a tenant with jobs, and the keys and tokens of those who try to learn of them."""

    shop: GuardedApi
    red: str
    blue: str
    others: dict[str, str]

    async def asked(self, token: str, text: str, **variables: Any) -> Data:
        """The whole answer to an operation over HTTP."""
        answer: Data = (await self.shop.post(text, token, variables=variables)).json()
        return answer

    async def create(self, token: str, **asked: Any) -> str:
        """The id of a new job."""
        payload = {"saves": MARK if token == self.red else "of blue", **asked.pop("payload", {})}
        answer = await self.asked(token, CREATE, input={"payload": {"probe": payload}, **asked})
        return str(answer["data"]["createJob"]["job"]["id"])

    async def ended(self, token: str, **asked: Any) -> str:
        """The id of a new job, once it has ended."""
        job_id = await self.create(token, **asked)

        async def has_ended() -> bool:
            job = (await self.asked(token, JOB, id=job_id))["data"]["job"]
            return job["status"] in {"COMPLETED", "DEAD_LETTER"}

        await until(has_ended, "the job has ended")
        return job_id


@pytest.fixture
async def tenants(settings: Settings) -> AsyncIterator[Tenants]:
    async with guarded(settings) as shop:
        red, blue = [await shop.new_key(name, tenant=name) for name in ("red", "blue")]
        tagged = ViewLimits(tags=frozenset({"a"}))
        none = ViewLimits(tags=frozenset({"none"}))
        create, control = frozenset({Scope.CREATE}), frozenset({Scope.CONTROL})
        others = {
            "a tenant": blue,
            "a subject of that name in another tenant": await shop.new_key("red", tenant="blue"),
            "a creator": await shop.new_key("maker", create, tenant="blue"),
            "a creator without a tenant": await shop.new_key("red", create),
            "limited by a tag": await shop.new_key("tagged", tenant="blue", limits=tagged),
            "limited without a tenant": await shop.new_key("none", limits=none),
            "who may control alone": (await shop.token(scopes=control)).token,
            "a browser": (await shop.token(key=blue, scopes=READ, limits=tagged)).token,
        }
        await until(lambda: bool(shop.api.runtime.presence.workers()), "the worker is known")
        yield Tenants(shop, red, blue, others)


async def _there(found: Tenants) -> list[str]:
    """The ids of jobs of red: done with a file and a key, waiting, and failed."""
    done = await found.ended(
        found.red, payload={"artifact": "a.txt", "artifactBytes": 9}, idempotencyKey="key", tags=["a", MARK]
    )
    waiting = await found.create(found.red, runAt=tomorrow(), tags=["a", MARK])
    failed = await found.ended(found.red, payload={"permanent": True}, tags=[MARK])
    return [done, waiting, failed]


async def test_nothing_that_a_tenant_is_answered_follows_from_what_others_do(tenants: Tenants) -> None:
    own = await tenants.ended(tenants.blue, payload=FILED, idempotencyKey="key", tags=["a"])
    await tenants.create(tenants.blue, runAt=tomorrow(), tags=["a"])

    async def answers() -> dict[str, list[str]]:
        return {
            who: [json.dumps(await tenants.asked(token, text)) for text in BATTERY]
            for who, token in tenants.others.items()
        }

    before = await answers()
    assert own in before["a tenant"][0]
    assert own in before["limited by a tag"][0]
    ids = await _there(tenants)
    await tenants.asked(tenants.red, "mutation ($id: ID!) { cancelJob(id: $id) { job { id } } }", id=ids[1])
    after = await answers()
    for who, told in after.items():
        assert told == before[who], who
    assert not any(told in answer for told in (MARK, *ids) for of_one in after.values() for answer in of_one)


async def test_a_hidden_job_is_answered_as_an_unknown_one_over_each_way_in(tenants: Tenants) -> None:
    of_red, unknown = await _there(tenants), new_job_id()
    assert of_red[0] == job_id_for_key("key", "red"), "others can work out the id"
    for who, token in tenants.others.items():
        hidden = of_red if who == "a tenant" else of_red[:1]
        headers = {"Authorization": f"Bearer {token}"}

        async def file(job_id: str, method: str, condition: Data, given: Data = headers) -> tuple[Any, ...]:
            asked = {**given, **condition}
            answer = await tenants.shop.api.http.request(method, f"/artifacts/{job_id}/a.txt", headers=asked)
            told = {name: value for name, value in answer.headers.items() if name != "date"}
            return answer.status_code, answer.text, told

        of_unknown = [await tenants.asked(token, text, id=unknown) for text in ABOUT_A_JOB]
        for job_id in hidden:
            of_hidden = [await tenants.asked(token, text, id=job_id) for text in ABOUT_A_JOB]
            assert json.dumps(of_hidden).replace(job_id, unknown) == json.dumps(of_unknown), who
        for method, condition in ((method, condition) for method in ("GET", "HEAD") for condition in CONDITIONS):
            assert await file(hidden[0], method, condition) == await file(unknown, method, condition), who
        async with tenants.shop.initialised(token) as opened:
            for text in WATCHED:
                told = []
                for number, job_id in enumerate((*hidden, unknown)):
                    payload = {"query": text, "variables": {"id": job_id}}
                    await say(opened, id=str(number), type="subscribe", payload=payload)
                    message = await hear(opened)
                    assert (message.pop("id"), message["type"]) == (str(number), "error"), who
                    told.append(json.dumps(message).replace(job_id, unknown))
                assert len(set(told)) == 1, who


async def test_streams_and_cursors_of_others_bring_nothing_of_theirs(tenants: Tenants) -> None:
    await _there(tenants)
    cursors = [
        event["cursor"]
        for node in (await tenants.asked(tenants.red, BATTERY[0]))["data"]["jobs"]["nodes"]
        for event in node["events"]
    ]
    text = "subscription Same($after: String) { jobEvents(after: $after) { cursor job { id rawPayload } } }"
    own = await tenants.create(tenants.blue, tags=["a"], runAt=tomorrow())
    for after in islice(sorted(set(cursors), key=float), 0, None, 3):
        # The same document runs for red at the same time, whose results are shared with nobody else.
        async with tenants.shop.initialised(tenants.red) as theirs, tenants.shop.initialised(tenants.blue) as opened:
            for socket in theirs, opened:
                await say(socket, id="1", type="subscribe", payload={"query": text, "variables": {"after": after}})
            told = (await hear(opened))["payload"]["data"]["jobEvents"]
            assert told["job"] == {"id": own, "rawPayload": {"saves": "of blue"}}
    page = (await tenants.asked(tenants.red, "{ jobs(first: 1) { pageInfo { endCursor } } }"))["data"]["jobs"]
    behind = "query ($after: String) { jobs(after: $after) { totalCount nodes { id } } }"
    for token in tenants.others.values():
        answer = await tenants.asked(token, behind, after=page["pageInfo"]["endCursor"])
        assert {job["id"] for job in ((answer["data"] or {}).get("jobs") or {"nodes": []})["nodes"]} <= {own}


async def test_a_ticket_and_an_address_of_a_file_are_for_what_they_were_made_for_whoever_brings_them(
    tenants: Tenants,
) -> None:
    done, waiting, _ = await _there(tenants)
    http, blue = tenants.shop.api.http, {"Authorization": f"Bearer {tenants.blue}"}
    url = (await tenants.asked(tenants.red, "query ($id: ID!) { job(id: $id) { artifacts { url } } }", id=done))["data"]
    signature = url["job"]["artifacts"][0]["url"].partition("?")[2]
    for path in f"/artifacts/{waiting}/a.txt", f"/artifacts/{done}/b.txt", f"/artifacts/{new_job_id()}/a.txt":
        refused: httpx.Response = await http.get(f"{path}?{signature}", headers=blue)
        assert refused.status_code == 401, path
    ticket = (await tenants.shop.post("{ jobs { totalCount } }", tenants.red, "/tickets")).json()["ticket"]
    other = await http.get("/graphql", params={"ticket": ticket, "query": "{ jobs { nodes { id } } }"}, headers=blue)
    assert (other.status_code, done in other.text) == (401, False)
