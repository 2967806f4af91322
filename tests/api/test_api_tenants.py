"""Whose a job is and who did what with it, as clients are shown it."""

from gql_jobs.jobs.viewer import Scope
from tests.api.operations import create
from tests.serving import ServedApi
from tests.stories import request
from tests.viewers import viewer

WHOSE = "query ($id: ID!) { job(id: $id) { tenant createdBy events { __typename actor job { tenant createdBy } } } }"
BY_ADA = {"tenant": "red", "createdBy": "ada"}


async def test_a_job_says_its_tenant_and_creator_and_each_event_who_caused_it(api: ServedApi) -> None:
    commands = api.runtime.commands
    job = (await commands.create(request(), viewer("ada", "red"))).job
    await commands.cancel(job.id, viewer("bob", "red"))
    await api.runtime.feed.read_back(await commands.retry(job.id, viewer("root")))
    shown = (await api.ask(WHOSE, id=job.id))["job"]
    assert {"tenant": shown["tenant"], "createdBy": shown["createdBy"]} == BY_ADA
    assert [(event["__typename"], event["actor"]) for event in shown["events"]] == [
        ("JobQueued", "ada"),
        ("JobCancelled", "bob"),
        ("JobQueued", "root"),
    ]
    assert all(event["job"] == BY_ADA for event in shown["events"])


async def test_without_authentication_nobody_is_named(api: ServedApi) -> None:
    shown = (await api.ask(WHOSE, id=(await create(api))["id"]))["job"]
    assert (shown["tenant"], shown["createdBy"]) == (None, None)
    assert [event["actor"] for event in shown["events"]] == [None]


async def test_a_page_and_its_total_are_of_those_who_ask(api: ServedApi) -> None:
    commands, reader = api.runtime.commands, api.runtime.reader
    red, own = viewer("ada", "red"), viewer("bob", "red", Scope.CREATE)
    last = [await commands.create(request(), asked) for asked in (red, own, viewer("eve", "blue"), viewer("root"))][-1]
    await api.runtime.feed.read_back(last)
    everything = (await api.ask("{ jobs { totalCount nodes { tenant } } }"))["jobs"]
    assert everything["totalCount"] == 4
    assert [job["tenant"] for job in everything["nodes"]] == [None, "blue", "red", "red"]
    for asked, number in ((red, 2), (own, 1)):
        counts = await reader.queue_counts(asked.visibility)
        assert {queue: sum(of.values()) for queue, of in counts.items() if sum(of.values())} == {"default": number}
