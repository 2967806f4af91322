"""``examples/react`` in a real browser: a page watches its own job, is renewed, is revoked, and sees nobody else's."""

import asyncio
import json
import shutil
import time
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from graphql import GraphQLObjectType, build_schema
from playwright.async_api import Browser, async_playwright

from gql_jobs.jetstream.server import embedded_server
from gql_jobs.settings import Settings
from tests.chromium import CHROMIUM, FLAGS
from tests.deadline import until
from tests.examples.reports_site import REACT, ReportsSite, Visitor, reports_site, visit, visitor
from tests.running import ROOT

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is not installed"),
    pytest.mark.skipif(not (REACT / "node_modules").is_dir(), reason="its packages are not installed: make examples"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]

ANSWERED = {
    "Query.job": "query ($id: ID!) { job(id: $id) { id tags events { cursor } artifacts { url } } }",
    "Query.jobs": "{ jobs(first: 100) { totalCount nodes { id tags createdBy } edges { cursor } } }",
    "Query.queues": "{ queues { name counts { status count } } }",
    "Query.workers": "{ workers { id } }",
    "Query.jobTypes": "{ jobTypes { name } }",
    "Query.deadLetterGroups": "{ deadLetterGroups { key count sample { id } } }",
    "Query.bulkRun": "query ($id: ID!) { bulkRun(id: $id) { id } }",
    "Query.schedules": "{ schedules { name } }",
    "Query.schedule": '{ schedule(name: "nightly") { name } }',
    "Query.schedulePreview": '{ schedulePreview(cron: "0 3 * * *", timeZone: "Europe/Berlin") }',
    "Query.serverStatus": "{ serverStatus { storeReachable since } }",
    "Query.viewer": "{ viewer { subject tenant scopes limitedTo { ids tags } } }",
    "Mutation.createViewToken": (
        "mutation ($id: ID!) { createViewToken(input: { limitedTo: { ids: [$id] } }) { viewToken { expiresAt } } }"
    ),
}
"""What a page may ask."""
REFUSED = {
    "Mutation.createJob": (
        'mutation { createJob(input: { payload: { email: { to: "a@b.example", subject: "Hello", body: "" } } })'
        " { job { id } } }"
    ),
    "Mutation.createJobs": "mutation { createJobs(inputs: []) { jobs { id } } }",
    "Mutation.createRawJobs": "mutation { createRawJobs(inputs: []) { jobs { id } } }",
    "Mutation.cancelJob": "mutation ($id: ID!) { cancelJob(id: $id) { job { id } } }",
    "Mutation.retryJob": "mutation ($id: ID!) { retryJob(id: $id) { job { id } } }",
    "Mutation.deleteJob": "mutation ($id: ID!) { deleteJob(id: $id) { deleted } }",
    "Mutation.updateJob": "mutation ($id: ID!) { updateJob(id: $id, input: {}) { job { id } } }",
    "Mutation.retryJobs": "mutation { retryJobs(filter: {}) { retriedCount } }",
    "Mutation.planBulk": "mutation { planBulk(action: CANCEL) { count sample { id } } }",
    "Mutation.runBulk": 'mutation { runBulk(token: "a.b.c") { id } }',
    "Mutation.stopBulk": "mutation ($id: ID!) { stopBulk(id: $id) { id } }",
    "Mutation.pauseQueue": 'mutation { pauseQueue(name: "mail") { queue { name } } }',
    "Mutation.resumeQueue": 'mutation { resumeQueue(name: "mail") { queue { name } } }',
    "Mutation.upsertSchedule": (
        'mutation { upsertSchedule(input: { name: "n", everySeconds: 60, payload: { email: '
        '{ to: "a@b.example", subject: "Hello", body: "" } } }) { schedule { name } } }'
    ),
    "Mutation.upsertRawSchedule": (
        'mutation { upsertRawSchedule(input: { name: "n", everySeconds: 60, type: "email", payload: "{}" })'
        " { schedule { name } } }"
    ),
    "Mutation.pauseSchedule": 'mutation { pauseSchedule(name: "nightly") { schedule { name } } }',
    "Mutation.deleteSchedule": 'mutation { deleteSchedule(name: "nightly") { deleted } }',
    "Mutation.runSchedule": 'mutation { runSchedule(name: "nightly") { job { id } } }',
    "Mutation.setQueueLimits": 'mutation { setQueueLimits(name: "mail", limits: {}) { queue { name } } }',
    "Mutation.renewAccess": "mutation ($id: String!) { renewAccess(token: $id) { viewer { subject } } }",
}
"""What it is refused, whatever it is about."""
ELSEWHERE = {
    *("Mutation.revokeToken", "Subscription.jobProgress", "Subscription.jobEvents", "Subscription.jobsChanged"),
    *("Subscription.queuesChanged", "Subscription.workersChanged", "Subscription.bulkProgress"),
    "Subscription.serverStatusChanged",
}
"""What a test says more of, and subscriptions, which are tried field by field in ``test_doors``."""
LISTEN = """([url, token, id]) => new Promise((opened) => {
  const socket = new WebSocket(url.replace('http', 'ws'), 'graphql-transport-ws');
  const subscribe = (id, query) => socket.send(JSON.stringify({ id, type: 'subscribe', payload: { query } }));
  window.overheard = [];
  socket.onopen = () => socket.send(JSON.stringify({ type: 'connection_init', payload: { authorization: token } }));
  socket.onmessage = ({ data }) => {
    overheard.push(JSON.parse(data));
    if (JSON.parse(data).type !== 'connection_ack') return;
    subscribe('feed', 'subscription { jobEvents { __typename job { id } } }');
    subscribe('job', `subscription { jobProgress(id: "${id}") { job { id } } }`);
    subscribe('last', '{ viewer { subject } }');
    opened();
  };
})"""

HEARD_THE_END = "() => overheard.some(({ payload }) => payload?.data?.jobEvents?.__typename === 'JobCompleted')"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReportsSite]:
    folder = tmp_path_factory.mktemp("site")
    async with (
        embedded_server(folder / "store", max_store_bytes=1 << 30) as server,
        reports_site(Settings(nats_url=server.url, data_dir=folder / "data"), folder) as running,
    ):
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        await launched.close()


async def test_a_page_watches_its_job_to_the_end_over_one_socket_though_its_first_tokens_have_expired(
    site: ReportsSite, browser: Browser
) -> None:
    async with site.back_end(token_seconds=6) as url, visitor(browser) as ada:
        await ada.sign_in(url, "ada")
        job = await ada.make_report()
        await until(lambda: _renewals(ada.heard) >= 3, "it has been renewed beyond its first token", within=60)
        async with site.worker():
            await ada.status("It has ended.")
        await _saw_every_event(site, job, ada)
        assert sum('"connection_init"' in frame for frame in ada.sent) == 1
        assert not any("Unauthorized" in frame or "UNAUTHENTICATED" in frame for frame in ada.heard)
        async with ada.page.expect_download() as file:
            await ada.page.get_by_role("button", name="Save it").click()
        assert (await (await file.value).path()).read_bytes().startswith(b"PK")


async def test_a_page_that_was_not_renewed_in_time_comes_back_after_4403_and_misses_nothing(
    site: ReportsSite, browser: Browser
) -> None:
    async with site.back_end(token_seconds=2) as url, visitor(browser) as ada:
        await ada.sign_in(url, "ada")
        await ada.page.route("**/api/view-tokens", lambda route: route.abort())
        job = await ada.make_report()
        await until(lambda: _was_closed_with_4403(ada), "the socket is closed when its token has ended", within=30)
        async with site.worker():
            await until(lambda: site.has_ended(job), "the job is complete", within=60)
        await ada.page.unroute("**/api/view-tokens")
        await ada.status("It has ended.")
        await _saw_every_event(site, job, ada)


async def test_a_page_whose_access_is_revoked_says_so_within_a_second_and_sees_nothing_more(
    site: ReportsSite, browser: Browser
) -> None:
    async with site.back_end(token_seconds=600) as url, visitor(browser) as ada:
        await ada.sign_in(url, "ada")
        job = await ada.make_report()
        elsewhere = await visit(await ada.page.context.new_page())
        await elsewhere.page.goto(url)
        begin = time.monotonic()
        async with elsewhere.page.expect_response("**/api/session", timeout=10_000):
            await elsewhere.page.get_by_role("button", name="Sign out everywhere").click()
        await ada.status("Your access has been ended", within=1)
        assert time.monotonic() - begin < 2
        shown, heard = await ada.cursors(), len(ada.heard)
        async with site.worker():
            await until(lambda: site.has_ended(job), "the job is complete", within=60)
        assert (await ada.cursors(), ada.heard[heard:]) == (shown, [])
        assert len(await site.cursors(job)) > len(shown)


async def test_a_second_users_page_sees_nothing_of_the_first_ones_job_whatever_it_asks(
    site: ReportsSite, browser: Browser
) -> None:
    assert set(ANSWERED) | set(REFUSED) | ELSEWHERE == _root_fields()
    async with site.back_end(token_seconds=600) as url, visitor(browser) as ada, visitor(browser) as bob:
        await ada.sign_in(url, "ada")
        await bob.sign_in(url, "bob")
        adas, bobs = await ada.make_report(), await bob.make_report()
        for job in adas, bobs:
            token = await bob.page.evaluate(
                """async (job) => {
                  const headers = { 'Content-Type': 'application/json' };
                  const body = JSON.stringify({ job });
                  return (await (await fetch('/api/view-tokens', { method: 'POST', headers, body })).json()).token;
                }""",
                job,
            )
            await _sees_only(site, token, {bobs} if job == bobs else set(), adas)
        await bob.page.evaluate(LISTEN, [site.api_url, token, adas])
        await until(lambda: bob.page.evaluate("() => overheard.some(({ id }) => id === 'last')"), "all is begun")
        async with site.worker():
            for page in ada, bob:
                await page.status("It has ended.")
        await until(lambda: bob.page.evaluate(HEARD_THE_END), "the feed has heard of the end of a job")
        overheard = await bob.page.evaluate("overheard")
        (refusal,) = (message for message in overheard if message.get("id") == "job")
        assert (refusal["type"], refusal["payload"][0]["extensions"]["code"]) == ("error", "NOT_FOUND")
        others = json.dumps([message for message in overheard if message is not refusal])
        assert bobs in others
        assert adas not in others
        await _sees_only(site, token, {bobs}, adas)


async def _sees_only(site: ReportsSite, token: str, visible: set[str], hidden: str) -> None:
    """Each answer about a hidden job is the one about a job that there never was, and lists have the visible ones."""
    unknown = str(uuid.uuid4())
    for field, query in ANSWERED.items():
        about = {"id": hidden} if "$id" in query else {}
        answer, other = await asyncio.gather(
            site.ask(query, token, **about), site.ask(query, token, **{**about, **({"id": unknown} if about else {})})
        )
        assert answer.status_code == 200, field
        if field != "Mutation.createViewToken":
            assert answer.text.replace(hidden, unknown) == other.text.replace(hidden, unknown), field
        assert "user:ada" not in answer.text
    page = (await site.ask(ANSWERED["Query.jobs"], token)).json()["data"]["jobs"]
    assert {job["id"] for job in page["nodes"]} == visible
    assert page["totalCount"] == len(visible)
    assert (await site.ask(ANSWERED["Query.job"], token, id=hidden)).json() == {"data": {"job": None}}
    for field, query in REFUSED.items():
        answer = await site.ask(query, token, **({"id": hidden} if "$id" in query else {}))
        codes = [error["extensions"]["code"] for error in answer.json()["errors"]]
        assert codes in (["FORBIDDEN"], ["BAD_REQUEST"]), (field, codes)


async def _was_closed_with_4403(visitor: Visitor) -> bool:
    return 4403 in await visitor.close_codes()


def _renewals(heard: list[str]) -> int:
    return sum('"renewAccess"' in frame for frame in heard)


async def _saw_every_event(site: ReportsSite, job: str, watching: Visitor) -> None:
    shown, kept = await watching.cursors(), await site.cursors(job)
    assert set(kept) <= set(shown), "none was missed"
    assert shown == sorted(set(shown), key=int), "none came twice or too late"


def _root_fields() -> set[str]:
    schema = build_schema((ROOT / "schema.graphql").read_text())
    roots = [schema.query_type, schema.mutation_type, schema.subscription_type]
    return {f"{root.name}.{name}" for root in roots if isinstance(root, GraphQLObjectType) for name in root.fields}
