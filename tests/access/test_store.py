"""The bucket of credentials while things go wrong: NATS is away, the bucket is deleted, wiped, or written by others."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gql_jobs.access import store as store_module
from gql_jobs.access.authentication import Authentication, open_authentication
from gql_jobs.access.records import new_key
from gql_jobs.access.store import STALE_AFTER, CredentialStore, open_credential_store
from gql_jobs.jetstream.connection import connect
from gql_jobs.jobs.errors import QueueUnavailable, Unauthenticated
from gql_jobs.jobs.viewer import NO_LIMITS, Scope, Viewer
from gql_jobs.settings import Settings
from tests.access.conftest import is_accepted
from tests.by_hand import RestartingServer
from tests.deadline import until

READ = frozenset({Scope.READ})
STREAM = "KV_gql-jobs-access"


class Clock:
    """Seconds that the test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def settings(server: RestartingServer, tmp_path: Path) -> Settings:
    """Settings under which whoever asks needs a key or a token, of a server that can be taken away."""
    started = await server.start()
    return Settings(nats_url=started.url, data_dir=tmp_path / "data", auth="required")


@pytest.fixture
async def access(settings: Settings, clock: Clock) -> AsyncIterator[Authentication]:
    async with connect(settings, "test") as connection, open_authentication(connection, settings, clock) as opened:
        yield opened


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[CredentialStore]:
    """The store as ``gql-jobs keys`` uses it."""
    async with connect(settings, "keys") as connection, open_credential_store(connection, 1) as opened:
        yield opened


async def _key(store: CredentialStore, access: Authentication) -> str:
    text, record = new_key("shop", frozenset(Scope))
    await store.add_key(record)
    await until(lambda: is_accepted(access, text), "the process knows the key", within=1.0)
    return text


async def _asked(access: Authentication, token: str) -> str:
    try:
        await access.viewer_of(token)
    except (QueueUnavailable, Unauthenticated) as error:
        return error.code.value
    return "OK"


async def test_without_nats_keys_and_view_tokens_are_good_for_half_a_minute_and_again_once_it_is_back(
    server: RestartingServer, store: CredentialStore, access: Authentication, clock: Clock
) -> None:
    text = await _key(store, access)
    viewer = await access.viewer_of(text)
    token = access.issue(viewer, NO_LIMITS, READ, 600).token
    url = access.artifact_url(viewer, "a", "b", "c").partition("=")[2]
    assert await _asked(access, token) == "OK"
    await server.stop()
    clock.now += STALE_AFTER
    assert await _asked(access, text) == "OK"
    assert await _asked(access, token) == "OK"
    clock.now += 0.1
    for known in (text, token):
        assert await _asked(access, known) == "QUEUE_UNAVAILABLE"
    assert await _asked(access, text[:-1] + "0") == "QUEUE_UNAVAILABLE"
    with pytest.raises(QueueUnavailable):
        access.issue(viewer, NO_LIMITS, READ, 60)
    with pytest.raises(QueueUnavailable):
        access.artifact_viewer("a", "b", url)
    with pytest.raises(QueueUnavailable):
        await access.ticket(viewer, "{ a }", None, None)
    with pytest.raises(QueueUnavailable):
        await access.revoke(viewer, text.split("_")[1])
    await server.start()

    async def is_back() -> bool:
        return await _asked(access, token) == "OK"

    await until(is_back, "the bucket is followed again", within=20)
    assert await _asked(access, text) == "OK"


async def test_what_ends_nothing_is_told_to_nobody(store: CredentialStore, access: Authentication) -> None:
    viewer = await access.viewer_of(await _key(store, access))
    looks: list[int] = []

    def watched() -> Viewer:
        looks.append(1)
        return viewer

    with access.watch(watched, lambda: None):
        seen = len(looks)
        another = await _key(store, access)
        await store.rotate()
        assert len(looks) == seen
        assert await store.revoke_key(another.split("_")[1])
        await until(lambda: len(looks) > seen, "they are asked whether it was theirs")


async def test_a_quiet_bucket_is_heard_of_all_the_same(
    store: CredentialStore, access: Authentication, clock: Clock
) -> None:
    text = await _key(store, access)
    clock.now += STALE_AFTER + 1

    async def is_heard() -> bool:
        return await _asked(access, text) == "OK"

    await until(is_heard, "a heartbeat has come")


@pytest.mark.parametrize("way", ["deleted", "purged", "key purged", "key deleted by a client"])
async def test_a_key_that_was_taken_out_of_the_bucket_is_refused_and_told(
    way: str, store: CredentialStore, access: Authentication, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECK_EVERY", 0.1)
    text = await _key(store, access)
    viewer = await access.viewer_of(text)
    issued = access.issue(viewer, NO_LIMITS, READ, 600)
    seen = await access.viewer_of(issued.token)
    told = asyncio.Event()
    async with connect(settings, "operator") as operator:
        with access.watch(lambda: seen, told.set):
            match way:
                case "deleted":
                    await operator.api(f"STREAM.DELETE.{STREAM}")
                case "purged":
                    await operator.api(f"STREAM.PURGE.{STREAM}")
                case "key purged":
                    await operator.purge(STREAM, f"$KV.gql-jobs-access.key.{text.split('_')[1]}")
                case _:
                    await store._bucket.delete(f"key.{text.split('_')[1]}")  # noqa: SLF001
            await asyncio.wait_for(told.wait(), 10)
        assert await _asked(access, text) == "UNAUTHENTICATED"
        assert await _asked(access, issued.token) == "UNAUTHENTICATED"

        async def is_made_anew() -> bool:
            try:
                return await is_accepted(access, await _key(store, access))
            except (QueueUnavailable, AssertionError):
                return False

        await until(is_made_anew, "new keys work without a restart", within=20)
        assert await _asked(access, text) == "UNAUTHENTICATED"
        assert await _asked(access, issued.token) == "UNAUTHENTICATED"


async def test_a_signing_key_that_an_operator_deletes_ends_its_tokens_and_is_made_anew(
    store: CredentialStore, access: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECK_EVERY", 0.1)
    text = await _key(store, access)
    viewer = await access.viewer_of(text)
    issued = access.issue(viewer, NO_LIMITS, READ, 600)
    await store._bucket.delete(f"signing.{issued.id[:8]}")  # noqa: SLF001

    def is_made() -> bool:
        try:
            return access.issue(viewer, NO_LIMITS, READ, 600).id[:8] != issued.id[:8]
        except QueueUnavailable:
            return False

    await until(is_made, "another key signs")
    assert await _asked(access, issued.token) == "UNAUTHENTICATED"
    assert await _asked(access, text) == "OK"


async def test_a_view_token_that_was_revoked_stays_so_when_the_record_of_it_is_lost(
    store: CredentialStore, access: Authentication, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECK_EVERY", 0.1)
    viewer = await access.viewer_of(await _key(store, access))
    issued = access.issue(viewer, NO_LIMITS, READ, 600)
    assert await access.revoke(viewer, issued.id)
    async with connect(settings, "operator") as operator:
        await operator.purge(STREAM, "$KV.gql-jobs-access.revoked.*")
        await operator.purge(STREAM, f"$KV.gql-jobs-access.key.{await _another(store, access)}")
    version = access._store.version  # noqa: SLF001
    await until(lambda: access._store.version > version, "the bucket is read anew")  # noqa: SLF001
    assert await _asked(access, issued.token) == "UNAUTHENTICATED"


async def test_a_revocation_that_cannot_be_read_is_one(
    store: CredentialStore, access: Authentication, settings: Settings
) -> None:
    viewer = await access.viewer_of(await _key(store, access))
    issued = access.issue(viewer, NO_LIMITS, READ, 600)
    # As whoever may send requests can have the server write its answers there.
    await store._bucket.put(f"revoked.{issued.id}", b'{"type": "io.nats.jetstream.api.v1.stream_info_response"}')  # noqa: SLF001
    async with connect(settings, "another") as connection, open_authentication(connection, settings) as started_later:
        await until(lambda: _is_refused(access, issued.token), "the token is refused", within=1.0)
        assert await _is_refused(started_later, issued.token)


async def _is_refused(access: Authentication, token: str) -> bool:
    return await _asked(access, token) == "UNAUTHENTICATED"


async def _another(store: CredentialStore, access: Authentication) -> str:
    return (await _key(store, access)).split("_")[1]


async def test_a_record_that_cannot_be_read_ends_its_key_alone(store: CredentialStore, access: Authentication) -> None:
    text, another = await _key(store, access), await _key(store, access)
    key_id = text.split("_")[1]
    stored = await store._bucket.get(f"key.{key_id}")  # noqa: SLF001
    assert stored is not None
    record = json.loads(stored[0])
    unreadable: list[object] = [{**record, "onlyAtNight": True}, {**record, "limits": {"rooms": ["a"]}}, {}, [], "key"]
    for value in unreadable:
        await store._bucket.put(f"key.{key_id}", json.dumps(value).encode())  # noqa: SLF001

        async def is_refused() -> bool:
            return await _asked(access, text) == "UNAUTHENTICATED"

        await until(is_refused, "the unreadable record is taken over", within=1.0)
        assert await _asked(access, another) == "OK"
        await store._bucket.put(f"key.{key_id}", stored[0])  # noqa: SLF001
        await until(lambda: is_accepted(access, text), "the readable record is taken over", within=1.0)
    await store._bucket.put(f"key.{key_id}", b"no JSON")  # noqa: SLF001
    assert await store.revoke_key(key_id), "it can be ended all the same"
    assert await _asked(access, another) == "OK"


async def test_processes_that_start_together_make_one_key_to_sign_with(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connect(settings, "test")) for _ in range(8)]
        opening = [stack.enter_async_context(open_credential_store(one, 1)) for one in connections]
        stores = [await one for one in opening]
        assert {store.newest_signing_key.id for store in stores} == {stores[0].newest_signing_key.id}
        assert len(await stores[0]._bucket.keys("signing.*")) == 1  # noqa: SLF001


async def test_nothing_that_is_stored_is_a_secret_that_lets_in_and_repr_shows_none(
    store: CredentialStore, access: Authentication
) -> None:
    text = await _key(store, access)
    stored = await store._bucket.get(f"key.{text.split('_')[1]}")  # noqa: SLF001
    assert stored is not None
    assert text.split("_")[2].encode() not in stored[0]
    key = store.newest_signing_key
    for shown in (repr(key), str(key), repr(store.keys), f"{key}"):
        assert str(key.secret) not in shown
        assert "secret" not in shown
        assert text not in shown


async def test_a_bucket_that_an_operator_has_made_is_given_what_it_lacks_and_keeps_the_rest(settings: Settings) -> None:
    async with connect(settings, "operator") as operator:
        config = {
            "name": STREAM,
            "subjects": ["$KV.gql-jobs-access.>"],
            "max_msgs_per_subject": 1,
            "allow_rollup_hdrs": True,
            "description": "made by hand",
            "max_bytes": 1 << 26,
            "storage": "memory",
        }
        await operator.api(f"STREAM.CREATE.{STREAM}", config)
        async with open_authentication(operator, settings) as access:
            info = json.loads(await operator.api(f"STREAM.INFO.{STREAM}"))["config"]
            assert (info["description"], info["max_bytes"], info["storage"]) == ("made by hand", 1 << 26, "memory")
            assert info["allow_msg_ttl"]
            viewer = Viewer("ada", READ)
            ticket, _ = await access.ticket(viewer, "{ a }", None, None)
            assert (await access.use_ticket(ticket)).viewer == viewer
