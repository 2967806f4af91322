"""The bucket of credentials, followed into memory, so that no request reads it; and the writes into it.

What cannot be known is refused: a key that is not there (any more) has ended, and a process that has not heard of the
bucket for ``STALE_AFTER`` seconds answers nobody who comes with a key or a view token.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime

import msgspec
from msgspec.structs import replace

from gql_jobs import clock
from gql_jobs.access.records import (
    ACCESS_BUCKET,
    KEY_ID_LENGTH,
    LONGEST_LIFE,
    MAX_RECORD_BYTES,
    SIGNING_ID_LENGTH,
    KeyRecord,
    RevocationRecord,
    SigningKey,
    encode_record,
    new_hash_key,
    new_signing_key,
)
from gql_jobs.jetstream.connection import Connection, open_publisher
from gql_jobs.jetstream.errors import ApiError, FenceRefused, JetStreamError
from gql_jobs.jetstream.key_value import KeyValueBucket, newest_values
from gql_jobs.jetstream.ordered_consumer import StreamMessage
from gql_jobs.jetstream.stored_messages import NO_STREAM
from gql_jobs.jobs.errors import QueueUnavailable
from gql_jobs.jobs.payload_codec import HashKey
from gql_jobs.processes.event_loop import in_background

log = logging.getLogger(__name__)

STALE_AFTER = 30.0
"""Seconds without a word of the bucket after which keys and view tokens are not trusted any more."""
CHECK_EVERY = 2.0
"""Seconds between two comparisons of the bucket with what is known of it: what is purged is announced to nobody."""
_START_TIMEOUT = 10.0
"""Seconds that reading the bucket may take at the start."""
_TRIES = 5
"""How often a record that others write at the same time is read and written again."""
_FOLLOWED = ("key.*", "signing.*", "revoked.*")
_HASH_KEYS = "hmac.*"


class _Known:
    """What the bucket holds, by the ids."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyRecord] = {}
        self.signing: dict[str, SigningKey] = {}
        self.revoked: dict[str, float] = {}
        self.seen: set[str] = set()
        """The keys of the bucket that were brought, deleted ones too, but for those of revocations."""
        self.last_seq = 0

    def take(self, key: str, message: StreamMessage) -> bool:
        """Take a value over, and return whether it may have ended something, as one does that cannot be read."""
        kind, _, credential_id = key.partition(".")
        self.last_seq = message.seq
        try:
            if kind == "revoked":
                until = msgspec.json.decode(message.data, type=RevocationRecord).until
                self.revoked[credential_id] = until.timestamp()
                return True
            self.seen.add(key)
            self.keys.pop(credential_id, None)
            self.signing.pop(credential_id, None)
            if message.data and kind == "key":
                key_record = self.keys[credential_id] = msgspec.json.decode(message.data, type=KeyRecord)
                return key_record.ends_at != float("inf")
            if message.data:
                self.signing[credential_id] = msgspec.json.decode(message.data, type=SigningKey)
                return False
        except (msgspec.MsgspecError, ValueError):
            if message.data:
                if kind == "revoked":
                    self.revoked[credential_id] = (clock.now() + LONGEST_LIFE).timestamp()
                log.error("%s in the bucket %s cannot be read: what it was about is refused", key, ACCESS_BUCKET)  # noqa: TRY400
        return True


class CredentialStore:
    """The keys, signing keys and revocations as this process knows them.

    ``version`` grows with each change, so that what was derived of them can be kept until then. ``on_change`` is called
    after each one that may have ended a credential.
    """

    def __init__(self, bucket: KeyValueBucket, replicas: int, clock: Callable[[], float]) -> None:
        """:param clock: seconds that only grow."""
        self._bucket = bucket
        self._replicas = replicas
        self._clock = clock
        self._known = _Known()
        self._heard = float("-inf")
        self._is_read = asyncio.Event()
        self._created = ""
        self.version = 0
        self.on_change: list[Callable[[], None]] = []

    @property
    def keys(self) -> dict[str, KeyRecord]:
        """The API keys by their ids."""
        return self._known.keys

    def check_fresh(self) -> None:
        """Check that this process follows the bucket.

        :raises QueueUnavailable: if it has heard nothing of it for ``STALE_AFTER`` seconds.
        """
        if self._clock() - self._heard > STALE_AFTER:
            raise QueueUnavailable("Whether keys and view tokens are still valid cannot be known without NATS.")

    def has_ended(self, credential_id: str, now: float) -> bool:
        """Return whether a key or a view token was revoked; a key also if there is none, or if its time is over.

        A view token has ended also with the key that it was signed with, which its id begins with.
        """
        if len(credential_id) == KEY_ID_LENGTH:
            key = self._known.keys.get(credential_id)
            return key is None or key.ends_at <= now
        return credential_id in self._known.revoked or credential_id[:SIGNING_ID_LENGTH] not in self._known.signing

    @property
    def newest_signing_key(self) -> SigningKey:
        """The key to sign with.

        :raises QueueUnavailable: if there is none at the moment.
        """
        usable = [key for key in self._known.signing.values() if key.retired_at is None]
        if not usable:
            raise QueueUnavailable("There is no key to sign view tokens with yet; try again.")
        return max(usable, key=lambda key: (key.created_at, key.id))

    def signing_key(self, key_id: str) -> SigningKey | None:
        """Return a key that signatures may still be of, or None."""
        key = self._known.signing.get(key_id)
        if key is None or (key.retired_at is not None and key.retired_at + LONGEST_LIFE < clock.now()):
            return None
        return key

    # Following.

    async def run(self) -> None:
        """Follow the bucket, and make it anew if it vanishes; never ends by itself."""
        while True:
            try:
                await self.make()
                await self._follow()
            except (JetStreamError, QueueUnavailable) as error:
                log.debug("the bucket %s cannot be followed yet: %s", ACCESS_BUCKET, error)
                await asyncio.sleep(0.5)

    async def make(self) -> None:
        """Make the bucket and a key to sign with, where they are missing.

        :raises JetStreamError: if the server refuses or does not answer.
        """
        await self._bucket.ensure(self._replicas, MAX_RECORD_BYTES)
        self._created = (await self._bucket.state()).created
        names = await self._bucket.keys("signing.*")
        for name in names:
            if await self._bucket.get(name) is not None:
                return
        key = new_signing_key()
        try:
            # A deleted one has left its mark, over which none could be made any more.
            fence = None if names else "signing.*"
            await self._bucket.put(f"signing.{key.id}", encode_record(key), expected=0, fence=fence)
        except FenceRefused:
            log.debug("another process has made the key to sign with")

    async def _follow(self) -> None:
        """Read the bucket from its beginning and follow it, until it has to be read anew."""
        checking = asyncio.ensure_future(self._until_unlike())
        following = asyncio.ensure_future(self._take_all())
        try:
            await asyncio.wait((checking, following), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
        finally:
            for task in (checking, following):
                task.cancel()
            await asyncio.gather(checking, following, return_exceptions=True)

    async def _take_all(self) -> None:
        """Take all values over, then each change; what was known is replaced once all of them are there."""
        known, is_whole = _Known(), False
        # A revocation that was lost with the bucket stays one.
        known.revoked = dict(self._known.revoked)
        async for batch in self._bucket.follow(_FOLLOWED).batches():
            self._heard = self._clock()
            has_ended = False
            for message in batch:
                has_ended |= known.take(self._bucket.key_of(message.subject), message)
            if not is_whole and (not batch or batch[-1].pending == 0):
                is_whole, self._known = True, known
                self._changed()
                self._is_read.set()
            elif is_whole and batch:
                self._changed(has_ended=has_ended)

    async def _until_unlike(self) -> None:
        """Return once the bucket is another one than what is known of it, twice in a row."""
        was_unlike = False
        while True:
            await asyncio.sleep(CHECK_EVERY)
            known = self._known
            self._forget_ended(known)
            try:
                state = await self._bucket.state()
                present = await self._bucket.keys("key.*") | await self._bucket.keys("signing.*")
            except ApiError as error:
                if error.err_code != NO_STREAM:
                    continue
                log.error(  # noqa: TRY400 - the traceback would say nothing
                    "the bucket %s is gone, with all keys and view tokens; it is made anew, empty "
                    "(docs/operations.md: The bucket of credentials)",
                    ACCESS_BUCKET,
                )
                self._forget_all()
                return
            except JetStreamError:
                continue
            is_unlike = state.created != self._created or state.last_seq < known.last_seq or present != known.seen
            is_unlike |= not known.signing
            if is_unlike and was_unlike:
                log.warning("the bucket %s was changed by other means than gql-jobs, and is read anew", ACCESS_BUCKET)
                return
            was_unlike = is_unlike

    def _forget_all(self) -> None:
        revoked = self._known.revoked
        self._known = _Known()
        self._known.revoked = revoked
        self._changed()

    def _forget_ended(self, known: _Known) -> None:
        now = clock.timestamp()
        for credential_id in [one for one, until in known.revoked.items() if until < now]:
            del known.revoked[credential_id]

    def _changed(self, *, has_ended: bool = True) -> None:
        self.version += 1
        if not has_ended:
            return
        for callback in self.on_change:
            callback()

    # Writing.

    async def add_key(self, record: KeyRecord) -> None:
        """Store a new API key.

        :raises QueueUnavailable: if it may not be stored.
        """
        with bucket_errors():
            await self._bucket.put(f"key.{record.id}", encode_record(record), expected=0)

    async def revoke_key(self, key_id: str) -> bool:
        """End an API key; return False if there is none.

        :raises QueueUnavailable: if it may not have ended.
        """
        for _ in range(_TRIES):
            with bucket_errors():
                found = await self._bucket.get(f"key.{key_id}")
                if found is None:
                    return False
                try:
                    record = msgspec.json.decode(found[0], type=KeyRecord)
                except msgspec.MsgspecError:
                    # Of a version that knows more of keys than this one; that it ends is all that counts.
                    await self._bucket.delete(f"key.{key_id}")
                    return True
                if record.revoked_at is None:
                    record = replace(record, revoked_at=clock.now())
                    try:
                        await self._bucket.put(f"key.{key_id}", encode_record(record), expected=found[1])
                    except FenceRefused:
                        continue
            self._known.keys[key_id] = record
            self._changed()
            return True
        raise QueueUnavailable("Others write this key at the same time; try again.")

    async def revoke_token(self, token_id: str, until: datetime) -> None:
        """End a view token, which would end by itself at ``until``.

        :raises QueueUnavailable: if it may not have ended.
        """
        left = max(int((until - clock.now()).total_seconds()) + 60, 60)
        with bucket_errors():
            await self._bucket.put(f"revoked.{token_id}", encode_record(RevocationRecord(until)), ttl=left)
        self._known.revoked[token_id] = until.timestamp()
        self._changed()

    async def rotate(self, *, drop_older: bool = False) -> SigningKey:
        """Sign with a new key from now on, and return it; older ones verify until all they have signed has ended.

        :param drop_older: remove them at once, which ends all view tokens that there are.
        :raises QueueUnavailable: if it may not be done.
        """
        key = new_signing_key()
        with bucket_errors():
            older = await self._bucket.keys("signing.*")
            await self._bucket.put(f"signing.{key.id}", encode_record(key), expected=0)
            for name in sorted(older):
                if drop_older:
                    await self._bucket.delete(name)
                elif (found := await self._bucket.get(name)) is not None:
                    await self._retire(name, *found)
        return key

    async def _retire(self, name: str, stored: bytes, seq: int) -> None:
        record = msgspec.json.decode(stored, type=SigningKey)
        if record.retired_at is None:
            retired = replace(record, retired_at=clock.now())
            ttl = int(LONGEST_LIFE.total_seconds()) + 3600
            await self._bucket.put(name, encode_record(retired), expected=seq, ttl=ttl)

    async def hash_key(self) -> HashKey:
        """Return the key to hash confidential payloads with, made by whichever process comes first, and kept for good.

        :raises QueueUnavailable: if it cannot be read or made.
        """
        with bucket_errors():
            for _ in range(_TRIES):
                names = sorted(await self._bucket.keys(_HASH_KEYS))
                for name in names:
                    found = await self._bucket.get(name)
                    if found is not None:
                        return msgspec.json.decode(found[0], type=HashKey)
                key = new_hash_key()
                try:
                    # A deleted one has left its mark, over which none could be made any more.
                    fence = None if names else _HASH_KEYS
                    await self._bucket.put(f"hmac.{key.id}", encode_record(key), expected=0, fence=fence)
                except FenceRefused:
                    continue
                return key
        raise QueueUnavailable("Others write the key of hashes at the same time; try again.")

    # Tickets and runs of bulk actions, which are not followed but read where somebody asks for one.

    async def keep(self, name: str, value: bytes, seconds: int, *, replace: bool = False) -> bool:
        """Store a value for a time; return False if there is one of that name.

        :param replace: store it in the place of that one instead.
        :raises QueueUnavailable: if it may not be stored.
        """
        with bucket_errors():
            try:
                await self._bucket.put(name, value, expected=None if replace else 0, ttl=seconds)
            except FenceRefused:
                return False
        return True

    async def kept(self, name: str) -> bytes | None:
        """Return such a value, or None.

        :raises QueueUnavailable: if it cannot be read.
        """
        with bucket_errors():
            found = await self._bucket.get(name)
        return found[0] if found is not None else None

    async def read(self) -> None:
        """Wait until the bucket has been read.

        :raises QueueUnavailable: if that takes too long.
        """
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await self._is_read.wait()
        except TimeoutError:
            raise QueueUnavailable("The bucket of keys cannot be read.") from None


async def known_hash_key(connection: Connection) -> HashKey | None:
    """Return the key to hash confidential payloads with; None if no API process has made it yet. Nothing is made.

    It needs no right to read anything else of the bucket.

    :raises QueueUnavailable: if it cannot be read.
    """
    with bucket_errors():
        try:
            found = await newest_values(connection, ACCESS_BUCKET, _HASH_KEYS)
        except ApiError as error:
            if error.err_code == NO_STREAM:
                return None
            raise
    return msgspec.json.decode(found[min(found)], type=HashKey) if found else None


@contextmanager
def bucket_errors() -> Iterator[None]:
    """Turn what JetStream raises into an error that clients may see.

    :raises QueueUnavailable: instead of it.
    """
    try:
        yield
    except JetStreamError as error:
        log.warning("the bucket %s: %s", ACCESS_BUCKET, error)
        raise QueueUnavailable("The bucket of keys cannot be reached; nothing is known to have changed.") from error


@asynccontextmanager
async def open_credential_store(
    connection: Connection, replicas: int, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[CredentialStore]:
    """Yield the store, which follows the bucket until the block ends; the bucket is made if there is none.

    :raises QueueUnavailable: if the server refuses or does not answer.
    """
    async with AsyncExitStack() as stack:
        with bucket_errors():
            publisher = await stack.enter_async_context(open_publisher(connection))
            store = CredentialStore(KeyValueBucket(connection, publisher, ACCESS_BUCKET), replicas, clock)
            await store.make()
        await stack.enter_async_context(in_background(store.run()))
        await store.read()
        yield store
