"""The TypeScript client where the API asks who calls: tokens that are renewed, end, or are revoked under it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page

from gql_jobs.settings import Settings
from tests.deadline import until
from tests.guarded import EVERY, GuardedApi, guarded
from tests.typescript.conftest import OpenPage

WATCH = """(options) => {
  Object.assign(window, { seen: [], asked: 0, outcome: null, client: connect({
    getToken: async () => { asked += 1; return await newToken(); },
  }) });
  (async () => {
    const job = await client.create('probe', options);
    for await (const { __typename } of client.watch(job.id)) seen.push(__typename);
  })().then(() => { outcome = 'ended'; }, (error) => { outcome = error.code; });
}"""
COUNT_SOCKETS = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    sockets.push(this);
    this.addEventListener('close', ({ code }) => { this.closed = code; });
  }
};
"""


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[GuardedApi]:
    """An API that asks who calls."""
    async with guarded(settings) as opened:
        yield opened


async def _open(open_page: OpenPage, shop: GuardedApi, seconds: int) -> tuple[Page, list[str]]:
    """A page whose back end gives it tokens that last so long, and the ids of these.

    ``away`` among them has the back end not be reached, ``signed out`` has it give no more.
    """
    page, made = await open_page(shop.api.port, init=COUNT_SOCKETS), []

    async def new_token() -> str | None:
        if "signed out" in made:
            return None
        if "away" in made:
            raise ConnectionError
        issued = await shop.token(seconds, EVERY)
        made.append(issued.id)
        return issued.token

    await page.expose_function("newToken", new_token)
    return page, made


@pytest.mark.usefixtures("worker")
async def test_access_is_renewed_on_the_open_socket_for_as_long_as_something_is_watched(
    shop: GuardedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page, made = await _open(open_page, shop, 4)
    await page.evaluate(WATCH, {"gate": str(tmp_path / "gate")})
    await until(lambda: len(made) >= 5, "it was renewed beyond the end of its first tokens", within=30)
    assert await page.evaluate("client.jobs().then(({ totalCount }) => totalCount)") == 1
    (tmp_path / "gate").touch()
    await page.wait_for_function("outcome")
    assert await page.evaluate("[outcome, seen.at(-1), sockets.length]") == ["ended", "JobCompleted", 1]


@pytest.mark.usefixtures("worker")
async def test_a_client_whose_token_ended_unrenewed_comes_back_with_another_one(
    shop: GuardedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page, made = await _open(open_page, shop, 3)
    await page.evaluate(WATCH, {"gate": str(tmp_path / "gate")})
    await page.wait_for_function("seen.includes('JobStarted')")
    made.append("away")
    await page.wait_for_function("sockets.some(({ closed }) => closed === 4403)", timeout=30_000)
    (tmp_path / "gate").touch()
    made.remove("away")
    await page.wait_for_function("outcome", timeout=30_000)
    assert await page.evaluate("[outcome, seen.at(-1)]") == ["ended", "JobCompleted"]
    assert len(made) >= 2


@pytest.mark.usefixtures("worker")
async def test_a_token_that_is_revoked_is_replaced_and_nobody_signed_in_ends_it(
    shop: GuardedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page, made = await _open(open_page, shop, 600)
    await page.evaluate(WATCH, {"gate": str(tmp_path / "gate")})
    await page.wait_for_function("seen.includes('JobStarted')")
    viewer = await shop.access.viewer_of(shop.key)
    assert await shop.access.revoke(viewer, made[-1])
    await until(lambda: len(made) == 2, "another token was asked for")
    await shop.api.subscribers(1)
    assert await page.evaluate("[outcome, sockets.length]") == [None, 1]
    made.append("signed out")
    assert await shop.access.revoke(viewer, made[1])
    await page.wait_for_function("outcome")
    assert await page.evaluate("outcome") == "UNAUTHENTICATED"
    assert await page.evaluate("client.jobs().catch(({ code }) => code)") == "UNAUTHENTICATED"


@pytest.mark.usefixtures("worker")
async def test_a_token_of_somebody_else_is_used_on_another_connection(
    shop: GuardedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(shop.api.port, init=COUNT_SOCKETS)
    tokens = iter([(await shop.token(3, EVERY)).token, await shop.new_key("other")])
    # Playwright marks its handlers, which a method of an iterator does not allow.
    await page.expose_function("newToken", lambda: next(tokens))
    await page.evaluate(WATCH, {"gate": str(tmp_path / "gate")})
    await page.wait_for_function("sockets.length === 2")
    (tmp_path / "gate").touch()
    await page.wait_for_function("outcome")
    assert await page.evaluate("[outcome, seen.at(-1), sockets.length]") == ["ended", "JobCompleted", 2]


async def test_a_client_that_watches_nothing_is_given_another_token_when_its_own_has_ended(
    shop: GuardedApi, open_page: OpenPage
) -> None:
    page, made = await _open(open_page, shop, 1)
    await page.evaluate("window.client = connect({ getToken: newToken }); client.create('probe', {})")

    async def is_another_asked_for() -> bool:
        page_of_jobs = await page.evaluate("client.jobs()")
        assert page_of_jobs["totalCount"] == 1
        return len(made) == 2

    await until(is_another_asked_for, "the first token has ended")
    assert await page.evaluate("sockets.length") == 0


async def test_a_token_that_was_never_valid_is_refused_at_once_over_both_ways(
    shop: GuardedApi, open_page: OpenPage
) -> None:
    page = await open_page(shop.api.port)
    program = """async () => {
      const said = [];
      for (const options of [{ token: 'gj_wrong' }, { getToken: () => 'gj_wrong' }, {}]) {
        const client = connect(options);
        const none = '00000000-0000-4000-8000-000000000000';
        said.push(await client.create('probe', {}).catch(({ code }) => code));
        said.push(await client.watch(none).next().catch(({ code }) => code));
        client.close();
      }
      return said;
    }"""
    assert await page.evaluate(program) == ["UNAUTHENTICATED"] * 6


async def test_a_back_end_that_cannot_give_a_token_for_a_moment_is_asked_again(
    shop: GuardedApi, open_page: OpenPage
) -> None:
    page = await open_page(shop.api.port)
    program = """async (token) => {
      let asked = 0;
      const getToken = async () => {
        asked += 1;
        if (asked % 2) throw new TypeError('Failed to fetch');
        return token;
      };
      const client = connect({ getToken });
      const job = await client.create('probe', {}, { viewToken: { ttlSeconds: 60 } });
      const visitor = connect({ token: job.viewToken.token });
      const { value } = await visitor.watch(job.id).next();
      const other = connect({ getToken });
      const { value: again } = await other.watch(job.id).next();
      return [value.job.status, again.job.status, await visitor.create('probe', {}).catch(({ code }) => code)];
    }"""
    assert await page.evaluate(program, (await shop.token(600, EVERY)).token) == ["QUEUED", "QUEUED", "FORBIDDEN"]
