"""The TypeScript client in a browser: what it creates, watches and lists, over cuts and restarts."""

import signal
from pathlib import Path

import pytest
from playwright.async_api import Page, Route

from gql_jobs.jobs.requests import JobRequest
from gql_jobs.settings import Settings
from tests.dashboard.line import Line
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.serving import Api, ServedApi, api_process, free_port
from tests.stories import accepted
from tests.typescript.conftest import ORIGINS, OpenPage

WATCH = """(payload) => {
  Object.assign(window, { seen: [], states: new Set(), ended: false });
  const client = connect();
  client.connection.subscribe(() => states.add(client.connection.value));
  (async () => {
    const job = await client.create('probe', payload);
    window.id = job.id;
    for await (const { cursor } of client.watch(job.id)) seen.push(cursor);
    window.ended = true;
  })();
}"""
HISTORY = "query ($id: ID!) { job(id: $id) { events { cursor } } }"


async def _saw_every_event(page: Page, api: Api) -> None:
    seen: list[str] = await page.evaluate("seen")
    job = (await api.ask(HISTORY, id=await page.evaluate("id")))["job"]
    kept = [event["cursor"] for event in job["events"]]
    assert [cursor for cursor in kept if int(cursor) >= int(seen[0]) and cursor not in seen] == []
    assert seen == sorted(set(seen), key=int), "none came twice or too late"
    assert seen[-1] == kept[-1], "it ended with the job"


@pytest.mark.usefixtures("worker")
async def test_a_job_is_created_by_its_name_and_gives_its_result(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page(api.port)
    program = """async () => {
      const client = connect();
      const job = await client.create('probe', { resultBytes: 3 }, { tags: ['a'], priority: 'HIGH' });
      const result = await job.result();
      const { __typename, type, tags, priority, result: found } = await client.job(job.id);
      return [result, [__typename, type, tags, priority, found], await client.job(crypto.randomUUID())];
    }"""
    result, found, unknown = await page.evaluate(program)
    assert (result["attempt"], result["text"]) == (1, "xxx")
    assert found == ["ProbeJob", "probe", ["a"], "HIGH", result]
    assert unknown is None


@pytest.mark.usefixtures("worker")
async def test_a_job_that_is_watched_over_a_line_that_is_cut_again_and_again_is_seen_whole(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with Line(api.port).listening() as line:
        page = await open_page(line.port)
        await page.evaluate(WATCH, {"gate": str(gate), "steps": 3})
        for _ in range(3):
            await page.wait_for_function("states.has('live')")
            line.cut()
            await page.wait_for_function("states.has('reconnecting')")
            await page.evaluate("states.clear()")
            line.mend()
        await page.wait_for_function("states.has('live')")
        line.strand()
        gate.touch()
        await page.wait_for_function("ended", timeout=60_000)
        await _saw_every_event(page, api)


@pytest.mark.usefixtures("worker")
async def test_a_browser_that_is_offline_notices_at_once_and_comes_back_at_once(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(api.port)
    await page.evaluate(WATCH, {"gate": str(tmp_path / "gate")})
    await page.wait_for_function("states.has('live') && seen.length")
    # However long it would wait by itself.
    await page.evaluate("Math.random = () => 100")
    await page.context.set_offline(True)
    await page.wait_for_function("states.has('reconnecting')", timeout=3000)
    await page.evaluate("states.clear()")
    (tmp_path / "gate").touch()
    await page.context.set_offline(False)
    await page.wait_for_function("ended", timeout=10_000)
    await _saw_every_event(page, api)


@pytest.mark.usefixtures("worker")
async def test_a_job_is_watched_to_its_end_though_the_api_is_killed_and_refuses_connections_for_a_while(
    settings: Settings, open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GQL_JOBS_CORS_ORIGINS", ",".join(ORIGINS))
    port, gate = free_port(), tmp_path / "gate"
    refused: list[str] = []
    async with api_process(settings, port) as (_, process):
        page = await open_page(port)
        page.on("console", lambda said: refused.append(said.text) if "ERR_CONNECTION_REFUSED" in said.text else None)
        await page.evaluate(WATCH, {"gate": str(gate)})
        await page.wait_for_function("seen.length > 0")
        process.send_signal(signal.SIGKILL)
        await until(lambda: refused, "a connection was refused", within=30)
    gate.touch()
    async with api_process(settings, port) as (api, _):
        await page.wait_for_function("ended", timeout=60_000)
        await _saw_every_event(page, api)


async def test_whoever_stops_watching_awaits_nothing_and_leaves_no_subscription(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port)
    await page.evaluate("""async () => {
      const client = connect();
      const job = await client.create('probe', {});
      const left = client.watch(job.id);
      await left.next();
      window.stopped = new AbortController();
      const aborted = client.watch(job.id, { signal: stopped.signal });
      await aborted.next();
      const closed = client.watchJobs();
      await closed.next();
      Object.assign(window, { client, left, waiting: [left.next(), aborted.next(), closed.next()] });
    }""")
    await api.subscribers(2)
    assert len(api.runtime.windows) == 1
    outcome = """async () => {
      const what = (promise) => promise.catch((reason) => reason.code ?? reason.name);
      left.return();
      stopped.abort();
      client.close();
      return [...await Promise.all(waiting.map(what)), await what(client.create('probe', {}))];
    }"""
    left, *others = await page.evaluate(outcome)
    assert left["done"]
    assert others[0] == 20, "the code of an AbortError"
    assert others[1:] == ["CLOSED", "CLOSED"]
    await api.subscribers(0)
    await until(lambda: not len(api.runtime.windows), "no list is watched any more")


async def test_a_creation_whose_answer_is_lost_is_asked_for_again_and_makes_no_second_job(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port)
    lost: list[str] = []

    async def lose_the_first(route: Route) -> None:
        if lost or route.request.method != "POST":
            await route.continue_()
        else:
            lost.append(await (await route.fetch()).text())
            await route.abort("connectionreset")

    await page.route("**/graphql", lose_the_first)
    job = await page.evaluate("connect().create('probe', {}).then(({ id, deduplicated }) => ({ id, deduplicated }))")
    assert job["id"] in lost[0]
    assert job["deduplicated"] is False
    assert (await api.ask("{ jobs { totalCount } }"))["jobs"]["totalCount"] == 1
    program = "async (key) => { const { id, deduplicated } = await connect().create('probe', {}, { key });"
    first = await page.evaluate(program + " return [id, deduplicated]; }", "welcome")
    again = await page.evaluate(program + " return [id, deduplicated]; }", "welcome")
    assert (first[1], again) == (False, [first[0], True])


async def test_a_job_that_comes_after_its_id_is_known_is_waited_for_as_long_as_it_may_take(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port)
    probe = api.runtime.registry.get("probe")
    assert probe is not None
    request = JobRequest.of(probe, accepted(ProbePayload()), idempotency_key="later")
    program = """async (id) => {
      window.client = connect();
      window.first = client.watch(id, { appearsWithin: 60_000 }).next();
      return await client.watch(id, { appearsWithin: 1200 }).next().catch(({ code }) => code);
    }"""
    assert await page.evaluate(program, request.job_id(None)) == "NOT_FOUND"
    await api.runtime.commands.create(request)
    assert await page.evaluate("first.then(({ value }) => value.job.status)") == "QUEUED"


async def test_a_refusal_has_a_code_a_sentence_and_the_field_at_fault(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page(api.port)
    program = """async () => {
      const client = connect();
      const nobody = connect({ url: 'http://127.0.0.1:1', patience: 1 });
      const file = connect({ url: new URL('/index.html', location.href).href });
      const none = '00000000-0000-4000-8000-000000000000';
      const all = {
        payload: client.create('probe', { steps: 'many' }),
        key: client.create('probe', {}, { key: '' }),
        tries: client.create('probe', {}, { maxRetries: 1000 }),
        unknown: client.watch(none).next(),
        retry: client.retry(none),
        closed: nobody.create('probe', {}),
        elsewhere: file.create('probe', {}),
      };
      const said = (error) => [error instanceof JobsError, error.code, error.field];
      const each = Object.entries(all).map(async ([name, promise]) => [name, await promise.then(String, said)]);
      return Object.fromEntries(await Promise.all(each));
    }"""
    assert await page.evaluate(program) == {
        "payload": [True, "INVALID_PAYLOAD", "steps"],
        "key": [True, "INVALID_ARGUMENT", "key"],
        "tries": [True, "INVALID_ARGUMENT", "maxRetries"],
        "unknown": [True, "NOT_FOUND", None],
        "retry": [True, "NOT_FOUND", None],
        "closed": [True, "UNREACHABLE", None],
        "elsewhere": [True, "BAD_RESPONSE", None],
    }


@pytest.mark.usefixtures("worker")
async def test_a_job_that_fails_for_good_or_is_cancelled_has_no_result_but_says_why(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(api.port)
    program = """async (gate) => {
      const client = connect();
      const said = ({ code, message, job }) => [code, message, job.status];
      const failed = await client.create('probe', { permanent: true });
      const cancelled = await client.create('probe', { gate });
      const outcome = cancelled.result().catch(said);
      await cancelled.cancel();
      await client.cancel(cancelled.id);
      return [await failed.result().catch(said), (await outcome).toSpliced(1, 1)];
    }"""
    assert await page.evaluate(program, str(tmp_path / "gate")) == [
        ["JOB_FAILED", "This can never work.", "DEAD_LETTER"],
        ["JOB_CANCELLED", "CANCELLED"],
    ]


@pytest.mark.usefixtures("worker")
async def test_integers_that_a_number_cannot_hold_keep_their_digits_both_ways(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port)
    program = """async () => {
      const client = connect();
      const job = await client.create('probe', { saves: [9007199254740993n, -5, 0.1, '9007199254740993'] });
      const over_the_socket = (await job.result()).saved;
      const over_http = (await client.job(job.id)).result.saved;
      return [over_the_socket, over_http].map((saved) => saved.map((value) => `${typeof value} ${value}`));
    }"""
    exact = ["bigint 9007199254740993", "number -5", "number 0.1", "string 9007199254740993"]
    program = program.replace("{ saves:", "{ failAttempts: 1, saves:")
    assert await page.evaluate(program) == [exact, exact]


async def test_a_list_is_what_the_query_answers_after_each_change_also_of_a_server_that_does_not_tell_changes(
    api: ServedApi, open_page: OpenPage
) -> None:
    program = """async (all) => {
      const client = connect();
      const first = await client.create('probe', {});
      const lists = client.watchJobs({ type: ['probe'] }, { first: 2, maxPerSecond: 10, pollEvery: 100 });
      const said = ({ jobs, totalCount }) => JSON.stringify([jobs, totalCount]);
      await lists.next();
      for (let made = 0; made < 3; made += 1) await client.create('probe', {});
      await client.cancel(first.id);
      for await (const list of lists)
        if (said(list) === said(await client.jobs({ type: ['probe'] }, { first: 2 })) && list.totalCount === all) break;
      client.close();
      const page = await connect().jobs({ type: ['probe'] }, { first: 3 });
      const rest = await connect().jobs({ type: ['probe'] }, { first: 3, after: page.next });
      return [page.jobs.length, rest.jobs.length, rest.next && true];
    }"""
    page = await open_page(api.port)
    assert await page.evaluate(program, 4) == [3, 1, None]
    older = await open_page(api.port, init=OLDER)
    assert await older.evaluate(program, 8) == [3, 3, True]


OLDER = """
const { send } = WebSocket.prototype;
WebSocket.prototype.send = function (text) { send.call(this, text.replaceAll('jobsChanged(', 'jobsNotChanged(')); };
"""
"""Has the server be asked for a field that it does not know, as ``jobsChanged`` on an older one."""
