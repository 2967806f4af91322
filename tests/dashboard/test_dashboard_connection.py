"""What the dashboard says of its connection: lost at once, marked while it is, and what it has caught up with."""

import re
from contextlib import AsyncExitStack, aclosing

import pytest
from playwright.async_api import Page, expect

from gql_jobs.jetstream.server import EmbeddedServer
from gql_jobs.settings import Settings
from tests.by_hand import frozen
from tests.dashboard.conftest import OpenPage
from tests.dashboard.line import Line
from tests.dashboard.test_dashboard_now import count_of
from tests.deadline import until
from tests.serving import ServedApi, serving, subscribed

CREATE = "mutation { createJob(input: { payload: { probe: {} } }) { job { id } } }"
LOST = re.compile("Connection lost at .* Trying again")


async def is_live(page: Page) -> None:
    """Wait until the page says that it is connected."""
    await expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=20_000)


async def _completed(page: Page, number: str) -> None:
    """Wait until the queue of the probe jobs shows so many completed ones."""
    await expect(count_of(page, "Completed")).to_have_text(number, timeout=20_000)


@pytest.mark.usefixtures("worker")
async def test_a_cut_line_is_said_and_marked_at_once_and_what_was_missed_is_said_when_it_is_back(
    api: ServedApi, open_page: OpenPage
) -> None:
    async with Line(api.port).listening() as line:
        page = await open_page(port=line.port)
        await is_live(page)
        await api.ask(CREATE)
        await _completed(page, "1")
        line.cut()
        await expect(page.get_by_text(LOST)).to_be_visible(timeout=2000)
        await expect(page.locator("main[data-stale]")).to_be_visible()
        await api.ask(CREATE)
        await api.ask(CREATE)
        line.mend()
        await is_live(page)
        await expect(page.locator("main[data-stale]")).to_have_count(0)
        await _completed(page, "3")
        said = page.get_by_role("status").filter(has_text="Back at")
        await expect(said).to_contain_text(re.compile(r"after .* Queues: \d jobs? completed\."))
        await said.get_by_role("button", name="Dismiss").click()
        await expect(said).to_have_count(0)


@pytest.mark.usefixtures("worker")
async def test_a_line_that_stands_with_nothing_passing_is_noticed(api: ServedApi, open_page: OpenPage) -> None:
    async with Line(api.port).listening() as line:
        page = await open_page(port=line.port)
        await is_live(page)
        line.freeze()
        await expect(page.get_by_text(LOST)).to_be_visible(timeout=12_000)
        await api.ask(CREATE)
        line.mend()
        await is_live(page)
        await _completed(page, "1")


@pytest.mark.usefixtures("worker")
async def test_a_browser_that_is_offline_says_so_at_once_and_comes_back_by_itself(page: Page, api: ServedApi) -> None:
    await page.context.set_offline(True)
    await expect(page.get_by_text(LOST)).to_be_visible(timeout=2000)
    await api.ask(CREATE)
    await page.context.set_offline(False)
    await is_live(page)
    await _completed(page, "1")


async def test_a_page_goes_on_with_the_next_process_of_the_api(settings: Settings, open_page: OpenPage) -> None:
    async with Line(0).listening() as line:
        async with serving(settings) as first:
            line.upstream = first.port
            page = await open_page(port=line.port)
            await is_live(page)
        await expect(page.get_by_text(LOST)).to_be_visible()
        async with serving(settings) as second:
            line.upstream = second.port
            await is_live(page)
            await second.ask(CREATE)
            await expect(count_of(page, "Queued")).to_have_text("1")


@pytest.mark.usefixtures("worker")
async def test_a_tab_that_was_left_alone_for_a_week_comes_back_right(api: ServedApi, open_page: OpenPage) -> None:
    async with Line(api.port).listening() as line:
        page = await open_page(port=line.port)
        await is_live(page)
        await page.clock.install()
        line.cut()
        await expect(page.get_by_text(LOST)).to_be_visible()
        await page.clock.fast_forward(7 * 86_400_000)
        await api.ask(CREATE)
        line.mend()
        await page.clock.resume()
        await is_live(page)
        await expect(page.get_by_role("status").filter(has_text="Back at")).to_contain_text("after 7 d")
        await _completed(page, "1")


async def test_everything_works_below_a_path_of_a_proxy(api: ServedApi, open_page: OpenPage) -> None:
    async with Line(api.port, "/tools/jobs").listening() as line:
        page = await open_page(port=line.port, path="/tools/jobs/")
        await is_live(page)
        await page.get_by_role("link", name="New job").click()
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert (
            await page.get_by_role("link", name="GraphiQL").evaluate("link => link.pathname") == "/tools/jobs/graphql"
        )


async def test_a_server_that_cannot_reach_nats_is_not_called_live(
    api: ServedApi, nats: EmbeddedServer, page: Page
) -> None:
    with frozen(nats):
        said = page.get_by_role("status").filter(has_text="The server has not reached NATS since")
        await expect(said).to_be_visible(timeout=20_000)
        await expect(page.locator("main[data-stale]")).to_be_visible()
    await is_live(page)
    back = page.get_by_role("status").filter(has_text="Back at")
    await expect(back).to_contain_text("reaches NATS again")
    await expect(back).to_contain_text("Queues: no job has ended.")
    await api.ask(CREATE)
    await expect(count_of(page, "Queued")).to_have_text("1")


async def test_a_list_that_the_server_refuses_for_now_is_said_and_comes_by_itself(
    api: ServedApi, open_page: OpenPage
) -> None:
    async with api.socket() as session, AsyncExitStack() as watched:
        for number in range(64):  # all lists that one client may watch
            document = f'subscription {{ jobsChanged(filter: {{ tags: ["{number}"] }}) {{ totalCount }} }}'
            changes = await watched.enter_async_context(aclosing(subscribed(session, document)))
            await anext(changes)
        page = await open_page("jobs")
        said = page.get_by_role("status").filter(has_text="Part of this page is not live:")
        await expect(said).to_contain_text("Trying again")
    await expect(said).to_have_count(0)
    await expect(page.get_by_text("There are no jobs yet.")).to_be_visible()


async def test_a_proxy_that_passes_no_websockets_is_said_to_be_at_fault(api: ServedApi, open_page: OpenPage) -> None:
    async with Line(api.port, sockets=False).listening() as line:
        page = await open_page(port=line.port)
        said = page.get_by_role("status").filter(has_text="There is no live connection: the server answers")
        await expect(said).to_be_visible(timeout=20_000)
        await expect(page.locator("main[data-stale]")).to_be_visible()


async def test_an_open_dialog_says_itself_that_the_connection_is_lost(api: ServedApi, open_page: OpenPage) -> None:
    async with Line(api.port).listening() as line:
        page = await open_page(port=line.port)
        await is_live(page)
        await page.get_by_role("button", name="Help").click()
        dialog = page.get_by_role("dialog", name="Help")
        line.cut()
        # The line at the top is behind it, and whoever listens hears nothing from there.
        await expect(dialog.get_by_role("status")).to_contain_text(LOST)
        await expect(page.locator("dialog[data-stale]")).to_be_visible()
        line.mend()
        await expect(dialog.get_by_text(LOST)).to_have_count(0)


async def test_a_connection_that_neither_opens_nor_fails_is_given_up_for_another(
    api: ServedApi, open_page: OpenPage
) -> None:
    async with Line(api.port).listening() as line:
        page = await open_page(port=line.port)
        await is_live(page)
        line.freeze()
        await expect(page.get_by_text(LOST)).to_be_visible(timeout=20_000)
        begun = line.served
        await until(lambda: line.served > begun, "it tries again", within=20)
        line.strand()
        await is_live(page)


async def test_an_action_whose_answer_never_comes_ends_and_is_not_said_to_have_failed(
    api: ServedApi, open_page: OpenPage
) -> None:
    job_id = (await api.ask(CREATE))["createJob"]["job"]["id"]
    async with Line(api.port).listening() as line:
        page = await open_page(f"jobs/{job_id}", port=line.port)
        await is_live(page)
        await page.get_by_role("button", name="Cancel the job").click()
        line.freeze()
        dialog = page.get_by_role("dialog", name="Cancel this job?")
        await dialog.get_by_role("button", name="Cancel the job").click()
        await expect(page.get_by_text(LOST).first).to_be_visible(timeout=12_000)
        line.strand()
        await is_live(page)
        problem = page.get_by_role("alert").filter(has_text="It is not known here whether this was done")
        await expect(problem).to_be_visible(timeout=20_000)
        await page.get_by_role("button", name="Cancel the job").click()
        await dialog.get_by_role("button", name="Cancel the job").click()
        await expect(page.get_by_role("status").filter(has_text="Cancelled")).to_be_visible(timeout=20_000)
        await expect(problem).to_have_count(0)


@pytest.mark.usefixtures("worker")
async def test_a_page_that_is_opened_without_a_connection_comes_by_itself_when_there_is_one(
    api: ServedApi, open_page: OpenPage
) -> None:
    await api.ask("mutation { createJob(input: { payload: { probe: { permanent: true } } }) { job { id } } }")
    async with Line(api.port).listening() as line:
        page = await open_page("dead-letters", port=line.port)
        await is_live(page)
        group = await page.get_by_role("link", name="probe: PermanentError").get_attribute("href")
        await page.wait_for_load_state("networkidle")  # the other pages are loaded when there is time
        line.cut()
        await expect(page.get_by_text(LOST)).to_be_visible()
        await page.get_by_role("link", name="New job").click()
        await expect(page.get_by_role("alert")).to_contain_text("There is no connection to the server.")
        line.mend()
        await expect(page.get_by_label("type")).to_be_visible(timeout=20_000)
        line.cut()
        await expect(page.get_by_text(LOST)).to_be_visible()
        await page.evaluate("address => { location.hash = address }", group)
        await expect(page.get_by_text("Looking for dead letters")).to_be_visible()
        line.mend()
        await expect(page.get_by_role("region", name="Error", exact=True)).to_contain_text("This can never work.")


async def test_a_bar_and_the_mark_of_what_may_be_out_of_date_are_seen_in_colours_of_the_users_own(
    api: ServedApi, open_page: OpenPage
) -> None:
    async with Line(api.port).listening() as line:
        page = await open_page(port=line.port, forced_colors="active")
        await is_live(page)
        await page.evaluate(
            "document.querySelector('main').insertAdjacentHTML('beforeend', '<i class=bar><span/></i>')"
        )
        await expect(page.locator(".bar")).to_have_css("border-top-style", "solid")
        ground = "one => getComputedStyle(one).backgroundColor"
        assert await page.locator(".bar > span").evaluate(ground) != await page.locator("body").evaluate(ground)
        line.cut()
        await expect(page.locator("main[data-stale]")).to_have_css("outline-style", "dashed")
