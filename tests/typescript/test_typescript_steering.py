"""The TypeScript client steers: jobs are held back, changed, deleted and run anew, queues limited, schedules kept."""

from pathlib import Path

import pytest
from playwright.async_api import Page, Route

from gql_jobs.jobs.viewer import ViewLimits
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.guarded import EVERY, guarded
from tests.serving import ServedApi
from tests.typescript.conftest import OpenPage

SAID = """
Object.assign(window, {
  said: ({ code, field }) => [code, field],
  tomorrow: new Date(Date.now() + 86_400_000),
  none: '00000000-0000-4000-8000-000000000000',
});
"""


async def lose_answers(page: Page, operation: str) -> list[str]:
    """Have the first answer to an operation be lost, once it is done; what is returned is every request of it."""
    asked: list[str] = []

    async def lose_the_first(route: Route) -> None:
        if operation not in (route.request.post_data or ""):
            await route.continue_()
            return
        asked.append(route.request.post_data or "")
        if len(asked) > 1:
            await route.continue_()
        else:
            await route.fetch()
            await route.abort("connectionreset")

    await page.route("**/graphql", lose_the_first)
    return asked


@pytest.mark.usefixtures("worker")
async def test_a_key_is_returned_refused_or_replaced_while_another_job_has_it(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port, init=SAID)
    program = """async () => {
      const client = connect();
      const create = (payload, key, options) => client.create('probe', payload, { key, runAt: tomorrow, ...options });
      const first = await create({ resultBytes: 1 }, { value: 'shop 7' }, { idempotencyKey: 'first' });
      const again = await create({ resultBytes: 2 }, { value: 'shop 7', policy: 'RETURN' });
      const refused = await create({}, { value: 'shop 7', policy: 'REJECT' }).catch((error) => error);
      const replaced = await create({ resultBytes: 3 }, { value: 'shop 7', policy: 'REPLACE', maxDelaySeconds: 60 },
        { runAt: new Date() });
      const empty = await create({}, { value: '' }).catch(said);
      const both = await create({}, { value: 'shop 8' }, { idempotencyKey: '' }).catch(said);
      return [
        [again, replaced].map(({ id, deduplicated }) => id === first.id && deduplicated),
        [refused.code, refused.extensions.jobId === first.id],
        [(await replaced.result()).text, (await first.state()).key],
        [empty, both],
      ];
    }"""
    assert await page.evaluate(program) == [
        [True, True],
        ["KEY_TAKEN", True],
        ["xxx", "shop 7"],
        [["INVALID_ARGUMENT", "key.value"], ["INVALID_ARGUMENT", "idempotencyKey"]],
    ]


@pytest.mark.usefixtures("worker")
async def test_a_job_runs_after_others_or_says_why_it_was_cancelled(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(api.port, init=SAID)
    begun = """async (gate) => {
      window.client = connect();
      window.first = await client.create('probe', { gate });
      window.second = await client.create('probe', {}, { after: [first] });
      window.third = await client.create('probe', {}, { after: [second.id], concurrencyKey: 'shop 7' });
      return (await third.state()).status;
    }"""
    assert await page.evaluate(begun, str(tmp_path / "gate")) == "WAITING"
    (tmp_path / "gate").touch()
    ended = """async () => {
      const late = await client.create('probe', {}, { runAt: tomorrow });
      const never = await client.create('probe', {}, { after: [late] });
      const all_the_same = await client.create('probe', {}, { after: [late], afterPolicy: 'RUN' });
      await late.cancel();
      const { message, job } = await never.result().catch((error) => error);
      const startBefore = new Date(+tomorrow + 1000);
      const ahead = await client.create('probe', {}, { runAt: tomorrow, startBefore });
      return [
        [(await third.result()).attempt, (await third.state()).concurrencyKey],
        [job.status, message.endsWith(job.cancelReason), job.cancelReason.includes(late.id)],
        (await all_the_same.result()).attempt,
        Date.parse((await ahead.state()).startBefore) === +startBefore,
        await client.create('probe', {}, { after: [first, none] }).catch(said),
        await client.create('probe', {}, { runAt: tomorrow, startBefore: new Date() }).catch(said),
      ];
    }"""
    assert await page.evaluate(ended) == [
        [1, "shop 7"],
        ["CANCELLED", True, True],
        1,
        True,
        ["INVALID_ARGUMENT", "after.1"],
        ["INVALID_ARGUMENT", "startBefore"],
    ]


@pytest.mark.usefixtures("worker")
async def test_a_job_that_has_not_started_is_changed_and_one_that_has_is_not(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port, init=SAID)
    program = """async () => {
      const client = connect();
      const job = await client.create('probe', { resultBytes: 1 }, { runAt: tomorrow, tags: ['a'] });
      const refused = [
        await job.update({ payload: { steps: 'many' } }).catch(said),
        await job.update({ tags: ['a', ''] }).catch(said),
        await client.update(job.id, { name: 'probeThread', payload: {} }).catch(said),
        await client.update(none, { priority: 'LOW' }).catch(said),
      ];
      const { __typename, status, priority, tags, result, runAt } =
        await client.update(job.id, { name: 'probe', payload: { resultBytes: 3 }, priority: 'HIGH', tags: ['b'] });
      const shown = [__typename, status, priority, tags, result, Date.parse(runAt) === +tomorrow];
      const { status: then } = await job.update({ runAt: null });
      const { text } = await job.result();
      return [refused, shown, then, text, await job.update({ tags: [] }).catch(said)];
    }"""
    refused, shown, then, text, too_late = await page.evaluate(program)
    assert refused == [
        ["INVALID_PAYLOAD", "steps"],
        ["INVALID_ARGUMENT", "tags.1"],
        ["INVALID_ARGUMENT", "payload"],
        ["NOT_FOUND", None],
    ]
    assert shown == ["ProbeJob", "SCHEDULED", "HIGH", ["b"], None, True]
    assert (then, text, too_late) == ("QUEUED", "xxx", ["INVALID_STATE", None])


@pytest.mark.usefixtures("worker")
async def test_a_job_that_has_failed_is_run_again_with_another_payload_once(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(api.port, init=SAID)
    program = """async (trace) => {
      const client = connect();
      const job = await client.create('probe', { permanent: true, trace });
      await job.result().catch(said);
      const refused = await client.retry(job.id, { name: 'probe', payload: { steps: 'many' } }).catch(said);
      await job.retry({ payload: { trace, resultBytes: 2 } });
      const { text } = await job.result();
      const next = await client.create('probe', { permanent: true, trace });
      await next.result().catch(said);
      window.next = next;
      return [refused, text];
    }"""
    trace = tmp_path / "trace"
    assert await page.evaluate(program, str(trace)) == [["INVALID_PAYLOAD", "steps"], "xx"]
    asked = await lose_answers(page, "retryJob")
    assert await page.evaluate("next.retry({ payload: {} }).catch(said)") == ["UNREACHABLE", None]
    assert await page.evaluate("next.result().then(({ attempt }) => attempt)") == 1
    assert len(asked) == 1
    assert len(trace.read_text().splitlines()) == 3


@pytest.mark.usefixtures("worker")
async def test_a_job_is_deleted_for_good_unless_it_runs(api: ServedApi, open_page: OpenPage, tmp_path: Path) -> None:
    page = await open_page(api.port, init=SAID)
    program = """async (gate) => {
      const client = connect();
      const running = await client.create('probe', { gate });
      for await (const { job: { status } } of running.watch()) if (status === 'PROCESSING') break;
      const refused = await running.delete().catch(said);
      const job = await client.create('probe', {}, { runAt: tomorrow, key: 'once' });
      const watched = job.watch();
      await watched.next();
      const end = (async () => { for await (const { cursor } of watched) window.seen = cursor; })().catch(said);
      const deleted = [await job.delete(), await client.delete(job.id)];
      const outcome = [await end, await job.state()];
      const again = await client.create('probe', { steps: 1 }, { runAt: tomorrow, key: 'once' });
      window.again = again;
      return [refused, deleted, ...outcome, again.deduplicated, await client.delete(none).catch(said)];
    }"""
    assert await page.evaluate(program, str(tmp_path / "gate")) == [
        ["INVALID_STATE", None],
        [True, False],
        ["NOT_FOUND", None],
        None,
        False,
        ["NOT_FOUND", None],
    ]
    asked = await lose_answers(page, "deleteJob")
    assert await page.evaluate("again.delete()") is True, "it may have been there"
    assert len(asked) == 2


@pytest.mark.usefixtures("worker")
async def test_a_queue_is_paused_and_limited_while_it_is_used(
    api: ServedApi, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(api.port, init=SAID)
    program = """async (gate) => {
      const client = connect();
      const until = new Date(Math.floor(+tomorrow / 1000) * 1000);
      const { reason, until: end, by } = await client.pauseQueue('default', { reason: 'it moves', until });
      const job = await client.create('probe', {});
      const waits = await client.pauseQueue('default');
      await client.resumeQueue('default');
      await job.result();
      const limits = await client.setQueueLimits('default', { concurrency: 1, perSecond: 100 });
      window.jobs = [await client.create('probe', { gate }), await client.create('probe', {})];
      for await (const { job: { status } } of jobs[0].watch()) if (status === 'PROCESSING') break;
      const waiting = (await jobs[1].state()).status;
      const free = await client.setQueueLimits('default', {});
      return [
        [reason, Date.parse(end) === +until, by, waits.reason],
        [limits, waiting, free.concurrency],
        await client.setQueueLimits('default', { concurrency: 0 }).catch(said),
        await client.setQueueLimits('nowhere', {}).catch(said),
        await client.pauseQueue('default', { reason: 'x'.repeat(501) }).catch(said),
      ];
    }"""
    paused, limited, *refused = await page.evaluate(program, str(tmp_path / "gate"))
    assert paused == ["it moves", True, None, None]
    assert limited == [
        {"concurrency": 1, "concurrencyPerKey": None, "perSecond": 100, "ungated": 0},
        "WAITING",
        None,
    ]
    assert refused == [
        ["INVALID_ARGUMENT", "concurrency"],
        ["INVALID_ARGUMENT", "name"],
        ["INVALID_ARGUMENT", "reason"],
    ]
    (tmp_path / "gate").touch()
    assert await page.evaluate("Promise.all(jobs.map((job) => job.result())).then(({ length }) => length)") == 2


async def test_a_schedule_is_defined_once_shown_paused_and_deleted(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page(api.port, init=SAID)
    program = """async () => {
      const client = window.client = connect();
      const options = { cron: '30 2 * * *', timeZone: 'Europe/Berlin', overlap: 'CANCEL_OTHER', catchUpSeconds: 300,
        spreadSeconds: 30, priority: 'HIGH', tags: ['night'] };
      const made = await client.upsertSchedule('nightly', 'probe', { steps: 2 }, options);
      const again = await client.upsertSchedule('nightly', 'probe', { steps: 2 }, options);
      await client.upsertSchedule('hourly', 'probeThread', {}, { everySeconds: 3600, paused: true });
      const paused = await client.pauseSchedule('nightly');
      const resumed = await client.resumeSchedule('nightly');
      const found = await client.schedule('nightly');
      const names = (await client.schedules()).map(({ name, type }) => [name, type]);
      const deleted = [await client.deleteSchedule('nightly'), await client.deleteSchedule('nightly')];
      const { nextRuns, changedAt, payload, createdAt, createdBy, definedBy, ...rest } = made;
      return [
        rest,
        [nextRuns.length, payload.steps, again.changedAt === changedAt],
        [paused.paused, paused.nextRuns, resumed.paused, found.createdAt === createdAt],
        names,
        deleted,
        await client.schedule('nightly'),
      ];
    }"""
    shown, more, paused, names, deleted, gone = await page.evaluate(program)
    assert shown == {
        "name": "nightly",
        "type": "probe",
        "cron": "30 2 * * *",
        "everySeconds": None,
        "timeZone": "Europe/Berlin",
        "overlap": "CANCEL_OTHER",
        "catchUpSeconds": 300,
        "spreadSeconds": 30,
        "priority": "HIGH",
        "tags": ["night"],
        "paused": False,
        "lastJob": None,
        "skipped": 0,
    }
    assert more == [5, 2, True]
    assert paused == [True, [], False, True]
    assert names == [["hourly", "probe_thread"], ["nightly", "probe"]]
    assert (deleted, gone) == ([True, False], None)
    asked = await lose_answers(page, "deleteSchedule")
    assert await page.evaluate("client.deleteSchedule('hourly')") is True, "it may have been there"
    assert len(asked) == 2


@pytest.mark.usefixtures("worker")
async def test_a_schedule_is_run_at_once_and_its_job_gives_a_result_of_its_type(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port)
    program = """async () => {
      const client = window.client = connect();
      await client.upsertSchedule('yearly', 'probeThread', {}, { cron: '0 0 1 1 *' });
      const job = await client.runSchedule('yearly');
      const { attempt } = await job.result();
      const { schedule, __typename, result } = await job.state();
      const untyped = await connect({ types: undefined }).runSchedule('yearly');
      const older = await connect({ types: { types: {} } }).runSchedule('yearly');
      const others = [await untyped.result(), await older.result()].map((found) => found.attempt);
      return [job.name, attempt, schedule, __typename, result.attempt, others];
    }"""
    assert await page.evaluate(program) == ["probeThread", 1, "yearly", "ProbeThreadJob", 1, [1, 1]]
    asked = await lose_answers(page, "runSchedule")
    assert await page.evaluate("client.runSchedule('yearly').catch(({ code }) => code)") == "UNREACHABLE"
    assert len(asked) == 1
    total = "client.jobs({ type: ['probe_thread'] }).then(({ totalCount }) => totalCount)"
    await until(lambda: _is(page, total, 4), "the one whose answer was lost has run")


async def _is(page: Page, program: str, expected: int) -> bool:
    return bool(await page.evaluate(program) == expected)


async def test_all_schedules_are_listed_however_many_there_are(api: ServedApi, open_page: OpenPage) -> None:
    page = await open_page(api.port)
    program = """async () => {
      const client = connect();
      const names = Array.from({ length: 101 }, (_, number) => `every-${String(number).padStart(3, '0')}`);
      for (const name of names) await client.upsertSchedule(name, 'probe', {}, { everySeconds: 3600, paused: true });
      return (await client.schedules()).map(({ name }) => name).join() === names.join();
    }"""
    assert await page.evaluate(program)


async def test_a_preview_tells_when_a_schedule_would_be_due_and_what_can_be_none_is_refused_with_its_field(
    api: ServedApi, open_page: OpenPage
) -> None:
    page = await open_page(api.port, init=SAID)
    program = """async () => {
      const client = connect();
      const cron = '30 2 * * *';
      const timeZone = 'Europe/Berlin';
      const upsert = (options, payload = {}) => client.upsertSchedule('nightly', 'probe', payload, options).catch(said);
      return [
        await client.schedulePreview({ cron, timeZone, first: 2, after: '2027-03-27T12:00:00Z' }),
        (await client.schedulePreview({ everySeconds: 60 })).length,
        await client.schedulePreview({ cron, first: 0 }).catch(said),
        [
          await upsert({ cron: 'never' }),
          await upsert({ everySeconds: 0 }),
          await upsert({ cron, timeZone: 'Europe/Atlantis' }),
          await upsert({ cron, catchUpSeconds: -1 }),
          await upsert({ cron, tags: [''] }),
          await upsert({ cron }, { steps: 'many' }),
        ],
        [await client.runSchedule('nobody').catch(said), await client.pauseSchedule('nobody').catch(said)],
      ];
    }"""
    moments, many, none, refused, unknown = await page.evaluate(program)
    assert moments == ["2027-03-28T01:00:00+00:00", "2027-03-29T00:30:00+00:00"]
    assert (many, none) == (5, ["INVALID_ARGUMENT", "first"])
    assert [field for _, field in refused] == ["cron", "everySeconds", "timeZone", "catchUpSeconds", "tags.0", "steps"]
    assert {code for code, _ in refused} == {"INVALID_ARGUMENT", "INVALID_PAYLOAD"}
    assert [code for code, _ in unknown] == ["NOT_FOUND", "NOT_FOUND"]


async def test_whoever_sees_some_jobs_only_is_refused_to_steer_what_all_share(
    settings: Settings, open_page: OpenPage
) -> None:
    async with guarded(settings) as shop:
        page = await open_page(shop.api.port, init=SAID)
        program = """async ([key, token]) => {
          await connect({ token: key }).upsertSchedule('nightly', 'probe', {}, { everySeconds: 3600 });
          const client = connect({ token });
          const job = await client.create('probe', {}, { runAt: tomorrow });
          return [
            await Promise.all([
              client.pauseQueue('default'),
              client.setQueueLimits('default', {}),
              client.upsertSchedule('nightly', 'probe', {}, { everySeconds: 60 }),
              client.deleteSchedule('nightly'),
            ].map((asked) => asked.catch(({ code }) => code))),
            [await client.schedules(), await client.schedule('nightly')],
            (await job.update({ priority: 'LOW' })).priority,
          ];
        }"""
        token = (await shop.token(600, EVERY, ViewLimits(types=frozenset({"probe"})))).token
        assert await page.evaluate(program, [shop.key, token]) == [["FORBIDDEN"] * 4, [[], None], "LOW"]
