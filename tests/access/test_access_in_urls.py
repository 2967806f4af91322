"""What may stand in a URL: tickets work once, on whichever process; signatures are of one file, for five minutes."""

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from gql_jobs.access import tickets
from gql_jobs.access.authentication import Authentication
from gql_jobs.access.tickets import MAX_TICKET_BYTES, Ticket
from gql_jobs.jobs.errors import PayloadTooLarge, RateLimited, Unauthenticated
from gql_jobs.jobs.viewer import NO_LIMITS, Scope, ViewLimits
from tests.access.conftest import MakeKey
from tests.deadline import until
from tests.viewers import viewer

READ = frozenset({Scope.READ})
JOB = "3f2c1b5e-0000-4000-8000-000000000001"
OTHER_JOB = "3f2c1b5e-0000-4000-8000-000000000002"
DIGEST = "ab" * 32


def signature(url: str) -> str:
    return parse_qs(urlsplit(url).query)["signature"][0]


async def test_a_ticket_works_once_among_all_processes_that_try_at_the_same_time(
    access: Authentication, other: Authentication, make_key: MakeKey
) -> None:
    viewer = await access.viewer_of(await make_key(tenant="acme", limits=ViewLimits(tags=frozenset({"a"}))))
    ticket, seconds = await access.ticket(viewer, "subscription S { a }", {"id": [1, None]}, "S")
    assert seconds == 60
    await until(lambda: viewer.credentials[0] in other._store.keys, "the other one knows the key")  # noqa: SLF001
    tries = [process.use_ticket(ticket) for process in (access, other) for _ in range(10)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    used = [answer for answer in answers if isinstance(answer, Ticket)]
    assert used == [Ticket(viewer, "subscription S { a }", {"id": [1, None]}, "S")]
    assert all(isinstance(answer, Unauthenticated) for answer in answers if answer is not used[0])


async def test_a_ticket_that_is_stored_cannot_be_read_out_of_the_bucket(
    access: Authentication, make_key: MakeKey
) -> None:
    ticket, _ = await access.ticket(await access.viewer_of(await make_key()), "{ a }", None, None)
    keys = await access._store._bucket.keys("ticket.*")  # noqa: SLF001
    assert len(keys) == 1
    assert ticket not in str(keys)
    for stored in (*keys, next(iter(keys)).partition(".")[2], "gjt_" + next(iter(keys)).partition(".")[2][:43]):
        with pytest.raises(Unauthenticated):
            await access.use_ticket(stored)


async def test_a_ticket_ends_with_its_time_and_with_its_viewer(
    access: Authentication, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = await access.viewer_of(await make_key())
    issued = access.issue(viewer, NO_LIMITS, READ, 60)
    ticket, _ = await access.ticket(await access.viewer_of(issued.token), "{ a }", None, None)
    assert await access.revoke(viewer, issued.id)
    with pytest.raises(Unauthenticated):
        await access.use_ticket(ticket)
    monkeypatch.setattr(tickets, "TICKET_SECONDS", 1)
    ticket, _ = await access.ticket(viewer, "{ a }", None, None)

    async def is_gone() -> bool:
        return not await access._store._bucket.keys(f"ticket.{tickets._hash_of(ticket)}")  # noqa: SLF001

    await until(is_gone, "the server has removed it")
    with pytest.raises(Unauthenticated):
        await access.use_ticket(ticket)


@pytest.mark.parametrize("text", ["", "gjt_", "gjt_" + "a" * 43, "a" * 47, "gjt_" + "é" * 43, "*", ">", "x" * 100_000])
async def test_what_is_no_ticket_is_refused(access: Authentication, text: str) -> None:
    with pytest.raises(Unauthenticated):
        await access.use_ticket(text)


async def test_tickets_are_bounded_in_bytes_and_number(
    access: Authentication, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = await access.viewer_of(await make_key())
    with pytest.raises(PayloadTooLarge):
        await access.ticket(viewer, "x" * MAX_TICKET_BYTES, None, None)
    with pytest.raises(PayloadTooLarge):
        await access.ticket(viewer, "{ a }", {"a": "x" * MAX_TICKET_BYTES}, None)
    large, _ = await access.ticket(viewer, "x" * (MAX_TICKET_BYTES - 1000), None, None)
    assert len((await access.use_ticket(large)).query) == MAX_TICKET_BYTES - 1000
    monkeypatch.setattr("gql_jobs.access.authentication.MAX_TICKETS_BYTES", 16 * (MAX_TICKET_BYTES + 7000))
    for _ in range(7):
        await access.ticket(viewer, "{ a }", None, None)
    with pytest.raises(RateLimited) as refusal:
        await access.ticket(viewer, "{ a }", None, None)
    assert refusal.value.extensions["retryAfter"] == 60
    another = await access.viewer_of(access.issue(viewer, NO_LIMITS, READ, 60).token)
    await access.ticket(another, "{ a }", None, None)


async def test_the_tickets_of_one_subject_are_counted_for_its_tenant(
    access: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.access.authentication.MAX_TICKETS_BYTES", 16 * 1024)
    red, blue = viewer("ada", "red"), viewer("ada", "blue")
    await access.ticket(red, "{ a }", None, None)
    with pytest.raises(RateLimited):
        await access.ticket(red, "{ a }", None, None)
    await access.ticket(blue, "{ a }", None, None)


async def test_a_signature_is_of_one_file_and_shows_only_its_job(
    access: Authentication, other: Authentication, make_key: MakeKey
) -> None:
    viewer = await access.viewer_of(await make_key(tenant="acme"))
    url = access.artifact_url(viewer, JOB, "out/ä b.png", DIGEST)
    assert urlsplit(url).path == f"/artifacts/{JOB}/out/%C3%A4%20b.png"
    await until(lambda: viewer.credentials[0] in other._store.keys, "the other one knows the key")  # noqa: SLF001
    for process in (access, other):
        seen = process.artifact_viewer(JOB, "out/ä b.png", signature(url))
        assert seen.limits == ViewLimits(ids=frozenset({JOB}))
        assert (seen.scopes, seen.credentials) == (READ, viewer.credentials)
        assert seen.expires_at is not None
        assert timedelta(minutes=3) < seen.expires_at - datetime.now(UTC) <= timedelta(minutes=5)
    text = signature(url)
    body, mac = text.split(".")
    for job, name, given in (
        (OTHER_JOB, "out/ä b.png", text),
        (JOB, "out/ä b.jpg", text),
        (JOB, "out/ä b.png/", text),
        (f"{JOB}\0out", "ä b.png", text),
        (JOB, "out/ä b.png", text + "A"),
        (JOB, "out/ä b.png", f"{body}."),
        (JOB, "out/ä b.png", f"{body[:-2]}AA.{mac}"),
        (JOB, "out/ä b.png", f"{body}.{mac}.{mac}"),
        (JOB, "out/ä b.png", "."),
        (JOB, "out/ä b.png", ""),
        (JOB, "out/ä b.png", "é"),
        (JOB, "out/ä b.png", "A" * 100_000),
        (JOB, "\udc80", text),
    ):
        with pytest.raises(Unauthenticated):
            access.artifact_viewer(job, name, given)
    assert "acme" not in text
    assert viewer.subject not in text


async def test_a_signature_ends_with_its_time_and_with_whoever_it_was_made_for(
    access: Authentication, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = await access.viewer_of(await make_key())
    issued = access.issue(viewer, NO_LIMITS, READ, 60)
    seen = await access.viewer_of(issued.token)
    text = signature(access.artifact_url(seen, JOB, "a", DIGEST))
    ends = access.artifact_viewer(JOB, "a", text).expires_at
    assert ends is not None
    assert ends <= issued.expires_at
    assert await access.revoke(viewer, issued.id)
    with pytest.raises(Unauthenticated):
        access.artifact_viewer(JOB, "a", text)
    monkeypatch.setattr(tickets, "SIGNATURE_SECONDS", -60)
    with pytest.raises(Unauthenticated):
        access.artifact_viewer(JOB, "a", signature(access.artifact_url(viewer, JOB, "a", DIGEST)))


async def test_another_content_has_another_address_and_the_same_one_keeps_it_for_a_while(
    access: Authentication, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = await access.viewer_of(await make_key())

    class Noon(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Noon":  # noqa: ARG003
            return cls(2040, 1, 1, 12, tzinfo=UTC)

    monkeypatch.setattr(tickets, "datetime", Noon)
    assert access.artifact_url(viewer, JOB, "a", DIGEST) == access.artifact_url(viewer, JOB, "a", DIGEST)
    assert access.artifact_url(viewer, JOB, "a", DIGEST) != access.artifact_url(viewer, JOB, "a", DIGEST[::-1])
