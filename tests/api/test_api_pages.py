"""jobs: filters that combine, an order that is total, pages that stay right while jobs arrive."""

from typing import Any

import pytest

from tests.api.operations import CANCEL, asked, create, create_many, example, page
from tests.serving import Data, ServedApi

OLDEST_FIRST = """{ jobs(orderBy: {direction: ASC}) {
  nodes { id type queue status priority tags createdAt }
} }"""
ALL = ("LOW", "NORMAL", "HIGH", "CRITICAL")


@pytest.fixture
async def shop(api: ServedApi) -> list[Data]:
    """Jobs of two types with all priorities and two tags, some cancelled, oldest first."""
    inputs = [
        asked(
            kind="probe" if number % 2 else "probeThread",
            priority=ALL[number // 4],
            tags=[f"tag-{number % 3}", *(["odd"] if number % 2 else [])],
        )
        for number in range(16)
    ]
    for job_id in (await create_many(api, inputs))[::5]:
        await api.ask(CANCEL, id=job_id)
    jobs: list[Data] = (await api.ask(OLDEST_FIRST))["jobs"]["nodes"]
    return jobs


def _ids(jobs: list[Data]) -> list[str]:
    return [job["id"] for job in jobs]


async def test_filters_combine(api: ServedApi, shop: list[Data]) -> None:
    middle = shop[7]["createdAt"]
    cases: list[tuple[Data, Any]] = [
        ({}, lambda _: True),
        ({"status": ["CANCELLED"]}, lambda j: j["status"] == "CANCELLED"),
        ({"status": ["CANCELLED", "QUEUED"], "type": ["probe"]}, lambda j: j["type"] == "probe"),
        ({"queue": ["threads"], "priority": ["HIGH", "LOW"]}, _is_in("threads", "HIGH", "LOW")),
        ({"tags": ["odd", "tag-1"]}, lambda j: {"odd", "tag-1"} <= set(j["tags"])),
        ({"tags": ["odd"], "status": ["QUEUED"]}, lambda j: "odd" in j["tags"] and j["status"] == "QUEUED"),
        ({"createdAfter": middle}, lambda j: j["createdAt"] > middle),
        ({"createdBefore": middle, "type": ["probe_thread"]}, _is_thread_before(middle)),
        ({"ids": [shop[3]["id"], shop[4]["id"].upper(), "nobody"]}, lambda j: j in shop[3:5]),
        ({"ids": _ids(shop[:6]), "status": ["CANCELLED"]}, lambda j: j in (shop[0], shop[5])),
        ({"status": []}, lambda _: False),
        ({"type": ["nobody"]}, lambda _: False),
    ]
    for meant, matches in cases:
        expected = [job for job in reversed(shop) if matches(job)]
        found = await page(api, filter=meant)
        assert _ids(found["nodes"]) == _ids(expected), meant
        assert found["totalCount"] == len(expected), meant


def _is_in(queue: str, *priorities: str) -> Any:
    return lambda job: job["queue"] == queue and job["priority"] in priorities


def _is_thread_before(moment: str) -> Any:
    return lambda job: job["type"] == "probe_thread" and job["createdAt"] < moment


async def test_the_classic_list_is_expressible(api: ServedApi, shop: list[Data]) -> None:
    assert (await api.ask(example("jobs_by_offset")))["jobs"] == {"totalCount": 0, "edges": []}
    cancelled = [job for job in reversed(shop) if job["status"] == "CANCELLED"]
    found = await page(api, filter={"status": "CANCELLED", "type": "probe"}, first=50, offset=0)
    assert _ids(found["nodes"]) == _ids([job for job in cancelled if job["type"] == "probe"])
    second = await page(api, filter={"status": ["CANCELLED"]}, first=2, offset=2)
    assert _ids(second["nodes"]) == _ids(cancelled[2:4])
    assert second["totalCount"] == 4
    assert second["pageInfo"]["hasPreviousPage"] is True
    assert (await page(api, offset=100))["nodes"] == []


async def test_pages_of_every_order_hold_each_job_once(api: ServedApi, shop: list[Data]) -> None:
    sort_keys: dict[str, Any] = {
        "CREATED_AT": lambda job: job["createdAt"],
        "UPDATED_AT": lambda job: job["updatedAt"],
        "FINISHED_AT": lambda job: job["finishedAt"] or "",
        "PRIORITY": lambda job: (ALL.index(job["priority"]), job["createdAt"]),
    }
    for field, key in sort_keys.items():
        for direction in "ASC", "DESC":
            seen = await _all_pages(api, {"field": field, "direction": direction}, len(shop))
            assert sorted(_ids(seen)) == sorted(_ids(shop))
            keys = [key(job) for job in seen]
            assert keys == sorted(keys, reverse=direction == "DESC")


async def _all_pages(api: ServedApi, order: Data, number: int) -> list[Data]:
    seen: list[Data] = []
    after = None
    while True:
        found = await page(api, orderBy=order, first=5, after=after)
        seen += found["nodes"]
        info = found["pageInfo"]
        assert found["totalCount"] == number
        assert info["hasPreviousPage"] is (after is not None)
        assert [edge["node"]["id"] for edge in found["edges"]] == _ids(found["nodes"])
        assert (info["startCursor"], info["endCursor"]) == (found["edges"][0]["cursor"], found["edges"][-1]["cursor"])
        if not info["hasNextPage"]:
            return seen
        after = info["endCursor"]


async def test_pages_stay_right_while_jobs_arrive(api: ServedApi) -> None:
    old = await create_many(api, [asked() for _ in range(30)])
    seen: list[str] = []
    after = None
    for _ in range(6):
        found = await page(api, first=5, after=after)
        seen += _ids(found["nodes"])
        after = found["pageInfo"]["endCursor"]
        await create_many(api, [asked() for _ in range(7)])
    assert seen == old[::-1]
    assert found["pageInfo"]["hasNextPage"] is False
    assert (await page(api, first=0))["totalCount"] == 30 + 6 * 7


async def test_created_at_orders_totally(api: ServedApi) -> None:
    ids = await create_many(api, [asked() for _ in range(60)])
    for _ in range(20):
        ids.append((await create(api))["id"])
    created = [node["createdAt"] for node in (await page(api, first=500))["nodes"]]
    assert len(set(created)) == 80
    found = await page(api, first=500, orderBy={"field": "CREATED_AT", "direction": "ASC"})
    assert _ids(found["nodes"]) == ids


async def test_a_page_holds_at_most_500_jobs(api: ServedApi) -> None:
    ids = await create_many(api, [asked() for _ in range(501)])
    found = await page(api, first=500)
    assert _ids(found["nodes"]) == ids[:0:-1]
    assert found["pageInfo"]["hasNextPage"] is True
    none = await page(api, first=0)
    assert (none["nodes"], none["totalCount"], none["pageInfo"]["endCursor"]) == ([], 501, None)
    assert len((await api.ask("{ jobs { nodes { id } } }"))["jobs"]["nodes"]) == 50
    refusal = await api.refusal("{ jobs(first: 501) { totalCount } }")
    assert (refusal["extensions"]["code"], refusal["extensions"]["argument"]) == ("INVALID_ARGUMENT", "first")
