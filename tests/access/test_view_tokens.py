"""Keys and view tokens on a real server: who is let in, who is not, and who is not any more."""

import asyncio
import base64
import json
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import jwt
import pytest

from gql_jobs import clock
from gql_jobs.access.authentication import Authentication, open_authentication
from gql_jobs.access.view_tokens import MAX_CHAIN
from gql_jobs.jetstream.connection import connect
from gql_jobs.jobs.errors import Forbidden, InvalidArgument, Unauthenticated
from gql_jobs.jobs.viewer import ANYBODY, NO_LIMITS, Scope, Viewer, ViewLimits
from gql_jobs.settings import Settings
from tests.access.conftest import MakeKey, is_accepted
from tests.deadline import until

READ = frozenset({Scope.READ})
_LONG = 30 * 86_400


def tagged(*tags: str) -> ViewLimits:
    return ViewLimits(tags=frozenset(tags))


async def test_a_view_token_says_whose_it_is_and_what_it_is_limited_to(
    access: Authentication, other: Authentication, make_key: MakeKey
) -> None:
    viewer = await access.viewer_of(await make_key(tenant="acme"))
    assert (viewer.subject, viewer.tenant, viewer.actor) == ("key:shop", "acme", "key:shop")
    issued = access.issue(viewer, tagged("a"), READ, 60)
    assert repr(issued) == f"<IssuedToken {issued.id}>"
    for process in (access, other):
        await until(lambda p=process: is_accepted(p, issued.token), "it knows the key", within=1.0)  # type: ignore[misc]
        seen = await process.viewer_of(issued.token)
        assert (seen.subject, seen.tenant, seen.scopes, seen.limits) == ("key:shop", "acme", READ, tagged("a"))
        assert seen.expires_at == issued.expires_at
        assert seen.credentials == (issued.id, *viewer.credentials)
        assert await process.viewer_of(issued.token) is seen, "checked once"


async def test_a_view_token_is_never_wider_than_its_maker(access: Authentication, make_key: MakeKey) -> None:
    limits = ViewLimits(tags=frozenset({"a", "b"}), queues=frozenset({"default"}))
    viewer = await access.viewer_of(await make_key(scopes=frozenset({Scope.READ, Scope.CREATE}), limits=limits))
    for wider in (tagged("c"), tagged("a", "c"), ViewLimits(queues=frozenset({"slow"}))):
        with pytest.raises(Forbidden):
            access.issue(viewer, wider, READ, 60)
    for scopes in ({Scope.CONTROL}, {Scope.OPERATE}, set(Scope)):
        with pytest.raises(Forbidden):
            access.issue(viewer, NO_LIMITS, scopes, 60)
    seen = await access.viewer_of(access.issue(viewer, tagged("a"), READ, 60).token)
    assert seen.limits == ViewLimits(tags=frozenset({"a"}), queues=frozenset({"default"})), "what is not said stays"
    nothing = await access.viewer_of(access.issue(viewer, ViewLimits(ids=frozenset()), (), 60).token)
    assert (nothing.limits.ids, nothing.scopes) == (frozenset(), frozenset())


async def test_a_view_token_lasts_as_long_as_was_asked_and_no_longer_than_its_maker(
    access: Authentication, make_key: MakeKey
) -> None:
    for seconds in (0, -1, _LONG + 1, 10**30):
        with pytest.raises(InvalidArgument):
            access.issue(ANYBODY, NO_LIMITS, READ, seconds)
    ends = datetime.now(UTC) + timedelta(hours=1)
    viewer = await access.viewer_of(await make_key(expires_at=ends))
    assert access.issue(viewer, NO_LIMITS, READ, _LONG).expires_at <= ends
    issued = access.issue(viewer, NO_LIMITS, READ, 1)
    await until(lambda: _is_refused(access, issued.token), "its second is over", within=2.0)


async def _is_refused(access: Authentication, token: str) -> bool:
    return not await is_accepted(access, token)


async def test_a_token_that_is_too_long_for_a_header_is_not_made(access: Authentication) -> None:
    with pytest.raises(InvalidArgument, match="too long for a header"):
        access.issue(ANYBODY, tagged(*(f"tag {number:0100}" for number in range(100))), READ, 60)
    with pytest.raises(InvalidArgument):
        access.issue(ANYBODY, tagged(*map(str, range(1001))), READ, 60)
    with pytest.raises(InvalidArgument):
        access.issue(ANYBODY, tagged("a\nb"), READ, 60)


async def test_tokens_made_with_tokens_are_few_and_end_with_any_of_those_they_go_back_to(
    access: Authentication, other: Authentication, make_key: MakeKey
) -> None:
    viewer = await access.viewer_of(await make_key())
    made = []
    for _ in range(MAX_CHAIN - 1):
        issued = access.issue(viewer, NO_LIMITS, READ, 60)
        viewer = await access.viewer_of(issued.token)
        made.append(issued)
    with pytest.raises(Forbidden):
        access.issue(viewer, NO_LIMITS, READ, 60)
    assert await access.revoke(viewer, made[2].id)
    for process in (access, other):
        await until(lambda p=process: _is_refused(p, made[-1].token), "the last one has ended", within=1.0)  # type: ignore[misc]
        assert await is_accepted(process, made[1].token)
        for issued in made[2:]:
            assert not await is_accepted(process, issued.token)


async def test_the_end_of_a_key_ends_its_tokens_and_is_told_to_those_who_watch_on_every_process(
    access: Authentication, other: Authentication, make_key: MakeKey
) -> None:
    operator = await access.viewer_of(await make_key("operator"))
    text, another = await make_key(), await make_key("another")
    token = access.issue(await access.viewer_of(text), NO_LIMITS, READ, 60).token
    ended: list[str] = []
    with ExitStack() as watches:
        for number, process in enumerate((access, other)):
            await until(lambda p=process: is_accepted(p, another), "it knows the keys")  # type: ignore[misc]
            for name, credential in (("key", text), ("token", token), ("another", another)):
                viewer = await process.viewer_of(credential)
                tell = partial(ended.append, f"{name} {number}")
                watches.enter_context(process.watch(partial(_same, viewer), tell))
        assert await access.revoke(operator, text.split("_")[1])
        assert await access.revoke(operator, text.split("_")[1]), "once more changes nothing"
        await until(lambda: len(ended) == 4, "both processes have told it", within=1.0)
    assert not access._watched  # noqa: SLF001
    assert sorted(ended) == ["key 0", "key 1", "token 0", "token 1"]
    for process in (access, other):
        assert not await is_accepted(process, text)
        assert not await is_accepted(process, token)
        assert await is_accepted(process, another)
    with pytest.raises(Unauthenticated):
        access.issue(Viewer("key:shop", READ, credentials=(text.split("_")[1],)), NO_LIMITS, READ, 60)


def _same(viewer: Viewer) -> Viewer:
    return viewer


async def test_whoever_watches_what_has_ended_already_is_told_at_once_and_once(
    access: Authentication, make_key: MakeKey
) -> None:
    viewer = await access.viewer_of(await make_key())
    issued = access.issue(viewer, NO_LIMITS, READ, 60)
    seen = await access.viewer_of(issued.token)
    assert await access.revoke(viewer, issued.id)
    told: list[int] = []
    with access.watch(lambda: seen, lambda: told.append(1)):
        assert told == [1]
        assert await access.revoke(viewer, access.issue(viewer, NO_LIMITS, READ, 60).id)
        assert told == [1]


async def test_a_renewed_viewer_is_the_one_who_is_watched(access: Authentication, make_key: MakeKey) -> None:
    viewer = await access.viewer_of(await make_key())
    first, second = (access.issue(viewer, NO_LIMITS, READ, 60) for _ in range(2))
    current = await access.viewer_of(first.token)
    told: list[str] = []
    with access.watch(lambda: current, lambda: told.append(current.credentials[0])):
        current = await access.viewer_of(second.token)
        assert await access.revoke(viewer, first.id)
        assert told == []
        assert await access.revoke(viewer, second.id)
        assert told == [second.id]


@pytest.mark.usefixtures("movable_clock")
async def test_the_end_of_a_key_s_time_is_told(access: Authentication, make_key: MakeKey) -> None:
    text = await make_key(expires_at=datetime.now(UTC) + timedelta(hours=1))
    viewer = await access.viewer_of(text)
    told = asyncio.Event()
    with access.watch(lambda: viewer, told.set):
        await asyncio.sleep(0)
        assert not told.is_set()
        clock.advance(timedelta(hours=1))
        await asyncio.wait_for(told.wait(), 5)
    assert not await is_accepted(access, text)


async def test_only_its_owner_and_operators_of_its_tenant_may_revoke_a_token(
    access: Authentication, make_key: MakeKey
) -> None:
    plain = READ | {Scope.CREATE}
    acme = await access.viewer_of(await make_key("shop", plain, "acme"))
    issued = access.issue(acme, NO_LIMITS, READ, 60)
    strangers = [
        await access.viewer_of(await make_key("other", plain, "acme")),
        await access.viewer_of(await make_key("shop", plain, "globex")),
        await access.viewer_of(await make_key("shop", plain)),
        await access.viewer_of(await make_key("shop", tenant="globex")),
        await access.viewer_of(await make_key("operator", tenant="acme", limits=tagged("a"))),
    ]
    for stranger in strangers:
        assert not await access.revoke(stranger, issued.id), stranger
        assert not await access.revoke(stranger, acme.credentials[0]), "a key"
    assert await is_accepted(access, issued.token)
    operators = [await make_key("operator", tenant="acme"), await make_key("operator")]
    for owner in [acme, *[await access.viewer_of(one) for one in operators]]:
        again = access.issue(acme, NO_LIMITS, READ, 60)
        assert await access.revoke(owner, again.id), owner
        assert not await is_accepted(access, again.token)
    assert not await access.revoke(await access.viewer_of(operators[0]), acme.credentials[0]), "keys are no tenant's"


async def test_an_id_that_was_made_up_revokes_nothing_and_stores_nothing(
    access: Authentication, make_key: MakeKey
) -> None:
    viewer = await access.viewer_of(await make_key())
    issued = access.issue(viewer, NO_LIMITS, READ, 60)
    last = issued.id[-1]
    made_up = [
        issued.id[:-1] + ("A" if last != "A" else "B"),
        issued.id + "A",
        issued.id[:-4],
        issued.id[:8] + "A" * (len(issued.id) - 8),
        "A" * len(issued.id),
        "",
        "*",
        ">",
        "x.y",
        "key.*",
        "é" * 70,
        "0" * 12,
        "A" * 100_000,
    ]
    version = access._store.version  # noqa: SLF001
    for one in made_up:
        assert not await access.revoke(viewer, one), one
    assert access._store.version == version  # noqa: SLF001
    assert await is_accepted(access, issued.token)
    short = access.issue(viewer, NO_LIMITS, READ, 1)
    await until(lambda: _is_refused(access, short.token), "it has ended", within=2.0)
    assert not await access.revoke(viewer, short.id), "what has ended need not be stored"


async def test_credentials_that_are_swapped_or_forged_are_refused(access: Authentication, make_key: MakeKey) -> None:
    one, two = await make_key(), await make_key("two")
    viewer = await access.viewer_of(one)
    issued = access.issue(viewer, NO_LIMITS, READ, 60)
    ticket, _ = await access.ticket(viewer, "{ __typename }", None, None)
    url = access.artifact_url(viewer, "0" * 32, "a.txt", "f" * 64)
    head, body, signature = issued.token.removeprefix("gjv_").split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    kid = {"kid": issued.id[:8]}
    hashed = access._store.keys[one.split("_")[1]].hash  # noqa: SLF001
    forged = {
        "the id of one, the secret of another": "_".join(("gj", one.split("_")[1], two.split("_")[2])),
        "half a key": one[:-1],
        "a key with more": one + "a",
        "its hash": hashed,
        "its hash as a key": f"gj_{one.split('_')[1]}_{hashed[:43]}",
        "an unknown id": f"gj_{'0' * 12}_{one.split('_')[2]}",
        "no secret": f"gj_{one.split('_')[1]}_",
        "a key as a view token": one.replace("gj_", "gjv_"),
        "a view token as a key": issued.token.replace("gjv_", "gj_"),
        "a view token as one of the provider": issued.token.removeprefix("gjv_"),
        "a ticket": ticket,
        "a ticket as a key": ticket.replace("gjt_", "gj_"),
        "a ticket as a view token": ticket.replace("gjt_", "gjv_"),
        "a signature": url.partition("=")[2],
        "a signature as a view token": "gjv_" + url.partition("=")[2],
        "an id": issued.id,
        "no signature": f"gjv_{head}.{body}.",
        "another signature": f"gjv_{head}.{body}.{signature[:-2]}AA",
        "no algorithm": "gjv_" + jwt.encode(claims, None, "none", kid),  # type: ignore[arg-type]
        "another secret": "gjv_" + jwt.encode(claims, "s" * 64, "HS256", kid),
        "another algorithm": "gjv_" + jwt.encode(claims, "s" * 64, "HS512", kid),
        "an unknown signer": "gjv_" + jwt.encode(claims, "s" * 64, "HS256", {"kid": "AAAAAAAA"}),
        "no signer": "gjv_" + jwt.encode(claims, "s" * 64, "HS256"),
        "another spelling": issued.token + "=",
        "a space behind it": issued.token + " ",
        "nothing": "gjv_",
        "dots": "gjv_..",
        "deep": "gjv_" + base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.c2ln",
        "empty": "",
        "spaces": f" {one}",
        "two": f"{one},{one}",
        "long": one + "A" * 100_000,
    }
    for name, token in forged.items():
        assert not await is_accepted(access, token), name
    for token in (one, two, issued.token):
        assert await is_accepted(access, token)
    for text in (issued.token, one, url):
        with pytest.raises(Unauthenticated):
            await access.use_ticket(text)
        with pytest.raises(Unauthenticated):
            access.artifact_viewer("0" * 32, "a.txt", text)


async def test_whatever_is_made_of_good_credentials_is_refused_and_nothing_else_happens(
    access: Authentication, make_key: MakeKey
) -> None:
    key = await make_key()
    viewer = await access.viewer_of(key)
    issued = access.issue(viewer, tagged("a"), READ, 600)
    signature = access.artifact_url(viewer, "job", "a.txt", "f" * 64).partition("=")[2]
    drawn = Random(7)  # noqa: S311 - the same texts each time
    for _ in range(1500):
        assert not await is_accepted(access, _damaged(key, drawn))
        assert not await is_accepted(access, _damaged(issued.token, drawn))
        assert not await access.revoke(viewer, _damaged(issued.id, drawn))
        with pytest.raises(Unauthenticated):
            access.artifact_viewer("job", "a.txt", _damaged(signature, drawn))
    assert await is_accepted(access, issued.token)


def _damaged(text: str, drawn: Random) -> str:
    """Another text, of the same letters and some odd ones."""
    while True:
        at, letter = drawn.randrange(len(text)), drawn.choice(text + "._-=/+ *\0\n{é\udc80")
        other = drawn.choice(
            [text[:at], text[at:], text[:at] + letter + text[at + 1 :], text[:at] + letter + text[at:]]
        )
        # The last letter of a key within a token may stand for bits that are not used.
        if other != text:
            return other


async def test_a_claim_that_this_version_does_not_know_is_refused_although_it_is_signed(
    access: Authentication, make_key: MakeKey
) -> None:
    """A later version may narrow tokens by it."""
    issued = access.issue(await access.viewer_of(await make_key()), NO_LIMITS, READ, 60)
    claims = json.loads(base64.urlsafe_b64decode(issued.token.split(".")[1] + "=="))
    key = access._store.newest_signing_key  # noqa: SLF001

    def signed(more: dict[str, Any]) -> str:
        return "gjv_" + jwt.encode(claims | more, key.derived("view token"), "HS256", {"kid": key.id})

    assert await is_accepted(access, signed({}))
    for more in ({"new": 1}, {"lim": {"rooms": ["a"]}}, {"scp": ["everything"]}, {"sub": 1}, {"exp": 1e300}):
        assert not await is_accepted(access, signed(more)), more
    for missing in ("exp", "sub", "jti", "scp"):
        rest = {name: value for name, value in claims.items() if name != missing}
        text = jwt.encode(rest, key.derived("view token"), "HS256", {"kid": key.id})
        assert not await is_accepted(access, "gjv_" + text), missing


async def test_without_authentication_everybody_is_anybody_and_what_is_made_then_is_nothing_under_it(
    settings: Settings, access: Authentication
) -> None:
    async with connect(settings, "test") as connection, open_authentication(connection, settings) as free:
        assert await free.viewer_of("anything") is ANYBODY
        issued = free.issue(ANYBODY, tagged("a"), READ, 60)
        assert await free.viewer_of(issued.token) is ANYBODY
        assert free.artifact_url(ANYBODY, "0" * 32, "a b/ü.txt", "f" * 64) == f"/artifacts/{'0' * 32}/a%20b/%C3%BC.txt"
        assert free.artifact_viewer("0" * 32, "a.txt", "") is ANYBODY
        ticket, seconds = await free.ticket(ANYBODY, "{ a }", {"b": 1}, "c")
        stolen, _ = await free.ticket(ANYBODY, "{ a }", None, None)
        used = await free.use_ticket(ticket)
        assert (used.viewer, used.query, used.variables, used.operation_name) == (ANYBODY, "{ a }", {"b": 1}, "c")
        assert used.viewer is ANYBODY
        assert seconds == 60
        assert await free.revoke(ANYBODY, issued.id)
    assert not await is_accepted(access, issued.token)
    with pytest.raises(Unauthenticated):
        await access.use_ticket(stolen)


async def test_ten_thousand_wrong_keys_take_the_same_time_whether_their_id_is_known(
    access: Authentication, make_key: MakeKey
) -> None:
    text = await make_key()
    known = [text[:-4] + f"{number:04}" for number in range(5000)]
    unknown = [f"gj_{number:012}_{text.split('_')[2]}" for number in range(5000)]
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    for pair in zip(known, unknown, strict=True):
        for kind, key in zip(times, pair, strict=True):
            began = time.perf_counter()
            assert not await is_accepted(access, key)
            times[kind].append(time.perf_counter() - began)
    fastest = {kind: sorted(taken)[len(taken) // 4] for kind, taken in times.items()}
    assert fastest["known"] == pytest.approx(fastest["unknown"], rel=0.25)
    assert len(access._known) == 0, "nothing of them is kept"  # noqa: SLF001
    assert await is_accepted(access, text)


async def test_what_is_remembered_of_tokens_is_bounded(
    access: Authentication, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gql_jobs.access.authentication.MAX_KNOWN", 10)
    viewer = await access.viewer_of(await make_key())
    tokens = [access.issue(viewer, NO_LIMITS, READ, 60).token for _ in range(30)]
    for token in tokens * 2:
        assert await is_accepted(access, token)
    assert len(access._known) == 10  # noqa: SLF001
    monkeypatch.setattr("gql_jobs.access.authentication.MAX_KNOWN_CHARACTERS", 2000)
    for token in tokens:
        assert await is_accepted(access, token)
    assert access._known_size <= 2000  # noqa: SLF001
    assert access._known_size == sum(known.size for known in access._known.values())  # noqa: SLF001
