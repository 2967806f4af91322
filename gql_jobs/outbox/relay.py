"""The relay: moves the rows of an outbox into the log, each once by its key, and reports those that it cannot move.

A row that is being sent may become a job at any moment, whatever this process hears of it, so its first attempt is
written down before. Sent again, the key makes it the same job for as long as the log keeps that: the retention at
least. A row that may have become a job longer ago than half of that is looked up instead of being sent again.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec
from sqlalchemy.exc import DBAPIError

from gql_jobs import clock
from gql_jobs.client import errors
from gql_jobs.client.errors import ClientError, PartlyCreated, leaves_doubt
from gql_jobs.client.transport import CreatedJob, Creation, Transport
from gql_jobs.jobs.errors import shortened
from gql_jobs.jobs.registry import Registry
from gql_jobs.logs import job_fields, redact
from gql_jobs.outbox.database import Backlog, ClaimedRow, Moved, OutboxDatabase, Outcome, PutBack, SetAside
from gql_jobs.outbox.rows import RowOptions

log = logging.getLogger(__name__)

UNKNOWN_OUTCOME = "UNKNOWN_OUTCOME"
"""The code of a row of which nobody can tell any more whether it was a job."""
_MOST_ROWS = 100
"""Rows that are claimed at once."""
_CLAIMED_FOR = 60.0
"""Seconds for which they are: what a relay that was killed had claimed waits for so long."""
_SEND_WITHIN = 40.0
"""Seconds after which what is being sent is given up; less than a claim lasts."""
_POLL_INTERVAL = 0.5
"""Seconds between two looks at an outbox in which nothing was due."""
_LONGEST_PAUSE = 15.0
"""Seconds between two tries, at most, while the server or the database is away."""
_LONGEST_DELAY = 300.0
"""Seconds after which a row that was refused for the time being is sent again, at most."""
_UNREGISTERED_DELAY = 30.0
"""Seconds after which a row of a type that is not registered here is due again; another relay may know the type."""
_COUNTED_EVERY = 15.0
"""Seconds between two counts of what stands in the outbox."""
_LONGEST_ERROR = 2000
"""Characters of an error that are kept with a row."""

_AWAY = (
    *(errors.Unreachable, errors.QueueUnavailable, errors.QueueFull, errors.RateLimited),
    *(errors.ServerStopping, errors.Unauthenticated),
)
"""What is no row's fault: nothing is sent for a while."""
_FOR_GOOD = (
    *(errors.InvalidPayload, errors.PayloadTooLarge, errors.InvalidArgument, errors.IdempotencyConflict),
    *(errors.Unrepresentable, errors.BadRequest, errors.TooComplex),
)
"""What would be refused again. All other refusals may be mended at their other end: what a key may do, a server that
does not know the type yet, a mistake of the server's."""
_NOT_STORED = (errors.Forbidden, errors.ValidationFailed, errors.InvalidArgument)
"""What among these means that nothing was stored."""
_Sent = tuple[ClaimedRow, Creation]


class OutboxStopped(Exception):
    """A relay cannot go on; the message is a sentence."""


class OtherTenant(OutboxStopped):
    """The rows of an outbox and the key of a relay belong to different tenants; the message says what to do."""


class OutboxAway(OutboxStopped):
    """The server or the database is away."""


class Relay:
    """Moves rows. Several may run on one outbox.

    ``counts``: rows since the start by what became of them: ``moved``, ``repeated`` (the log had the job already),
    ``set_aside``. ``backlog``: what stood in the outbox a moment ago, None if that is not known yet. ``away``: why
    nothing can be moved now, None if nothing is known to be in the way.

    :param retention: seconds for which the log keeps a job that has ended.
    """

    def __init__(self, database: OutboxDatabase, transport: Transport, registry: Registry, retention: float) -> None:
        self.counts: Counter[str] = Counter({"moved": 0, "repeated": 0, "set_aside": 0})
        self.backlog: Backlog | None = None
        self.away: str | None = None
        self._database = database
        self._transport = transport
        self._registry = registry
        self._too_old = retention / 2
        self._is_of_tenant = False
        self._unregistered: set[str] = set()
        self._counted_at = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Move rows until ``stop`` is set; what is being sent then is settled first.

        :raises OtherTenant: if the rows are of another tenant than the key that is used here.
        """
        tries = 0
        while not stop.is_set():
            try:
                pause = 0.0 if await self._step() else _POLL_INTERVAL
                tries = 0
                if self.away is not None:
                    log.info("rows of the outbox are moved again")
                    self.away = None
            except (_Away, DBAPIError) as error:
                pause = max(min(_POLL_INTERVAL * 2**tries, _LONGEST_PAUSE), getattr(error, "retry_after", 0.0))
                tries = min(tries + 1, 10)
                if self.away is None:
                    log.warning("rows of the outbox wait: %s", sentence_of(error))
                self.away = sentence_of(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()

    async def move_all(self) -> Backlog:
        """Move what is due, and return what is left.

        :raises OutboxAway: if the server or the database is away.
        :raises OtherTenant: as ``run`` does.
        """
        try:
            while await self._step():
                pass
            return await asyncio.to_thread(self._database.backlog)
        except (_Away, DBAPIError) as error:
            raise OutboxAway(sentence_of(error)) from error

    async def _step(self) -> bool:
        """Claim rows, send them, and settle what became of them; return whether there were any."""
        now = asyncio.get_running_loop().time()
        if now >= self._counted_at + _COUNTED_EVERY:
            self.backlog = await asyncio.to_thread(self._database.backlog)
            self._counted_at = now
        rows = await asyncio.to_thread(self._database.claim, _MOST_ROWS, _CLAIMED_FOR)
        outcomes: dict[int, Outcome] = {}
        try:
            await self._decide(rows, outcomes)
        finally:
            # A row without an outcome, as after an unexpected error, stays claimed, and counts as sent.
            if outcomes:
                await asyncio.to_thread(self._database.settle, list(outcomes.values()))
        return bool(rows)

    async def _decide(self, rows: list[ClaimedRow], outcomes: dict[int, Outcome]) -> None:
        """Send rows, and add to ``outcomes`` what became of each.

        :raises _Away: if the server takes nothing now; all other rows are put back.
        """
        creations: list[_Sent] = []
        try:
            for row in rows:
                if row.doubtful_since is not None and _age(row.doubtful_since) > self._too_old:
                    outcomes[row.id] = await self._looked_up(row)
                elif isinstance(made := self._creation(row), Creation):
                    creations.append((row, made))
                else:
                    outcomes[row.id] = made
            for batch in self._batches(creations):
                await self._send(batch, outcomes)
        except (_Away, OtherTenant):
            for row in rows:
                outcomes.setdefault(row.id, PutBack(row, is_doubtful=False))
            raise

    def _creation(self, row: ClaimedRow) -> Creation | Outcome:
        """Return what is to be sent, or what becomes of a row that cannot be."""
        job_type = self._registry.get(row.type)
        if job_type is None:
            if row.type not in self._unregistered:
                self._unregistered.add(row.type)
                log.warning("rows of type %s stay in the outbox: --import the module that registers it", row.type)
            return PutBack(row, _UNREGISTERED_DELAY, is_doubtful=False)
        try:
            options = msgspec.json.decode(row.options, type=RowOptions)
        except msgspec.DecodeError as error:
            return self._set_aside(row, "INVALID_ARGUMENT", f"The options of the row cannot be read: {error}.")
        return options.creation(job_type, row.payload.encode())

    def _batches(self, creations: Sequence[_Sent]) -> Iterator[list[_Sent]]:
        batch: list[_Sent] = []
        size, most, most_bytes = 0, self._transport.largest_batch, self._transport.largest_batch_bytes
        for row, creation in creations:
            size += creation.weight
            # What a creation names is looked for before anything of a batch is stored.
            named = {*creation.after, creation.origin} if creation.after or creation.origin is not None else ()
            names_one = bool(named) and any(one.job_id in named for one, _ in batch)
            if batch and (len(batch) == most or size > most_bytes or names_one):
                yield batch
                batch, size = [], creation.weight
            batch.append((row, creation))
        if batch:
            yield batch

    async def _send(self, batch: list[_Sent], outcomes: dict[int, Outcome]) -> None:
        """Send rows in their order: together, or one by one once they are not taken together.

        The very first goes alone: with a key of another tenant it would be the only one that is created there.

        :raises _Away: if the server takes nothing now.
        """
        left, most = batch, len(batch)
        while left:
            sent = left[: most if self._is_of_tenant else 1]
            try:
                created = await self._create([creation for _, creation in sent])
            except PartlyCreated as partly:
                created, most = partly.created, 1
                if isinstance(partly.__cause__, _AWAY):
                    outcomes.update({sent[at][0].id: PutBack(sent[at][0]) for at in partly.uncertain})
                    self._take(sent, created, outcomes)
                    raise _Away(partly.__cause__) from partly
            except _AWAY as error:
                outcomes.update({row.id: PutBack(row, is_doubtful=leaves_doubt(error)) for row, _ in sent})
                raise _Away(error) from error
            except ClientError as error:
                created, at = [], error.extensions.get("input", 0 if len(sent) == 1 else None)
                if isinstance(at, int) and at < len(sent):
                    outcomes[sent[at][0].id] = self._refused(sent[at][0], error)
                else:
                    most = 1
            self._take(sent, created, outcomes)
            left = [one for one in left if one[0].id not in outcomes]

    async def _create(self, creations: list[Creation]) -> Sequence[CreatedJob | None]:
        try:
            async with asyncio.timeout(_SEND_WITHIN):
                return await self._transport.create(creations)
        except TimeoutError as error:
            why = f"No answer within {_SEND_WITHIN:g} s."
            raise errors.Unreachable(why, uncertain=True) from error
        except ClientError:
            raise
        except Exception as error:
            # Perhaps for what is in a row, which must not keep the others back.
            log.exception("rows of the outbox could not be sent")
            raise errors.InternalError(f"{type(error).__name__} was raised; the relay's log says more.") from error

    def _take(self, sent: Sequence[_Sent], created: Sequence[CreatedJob | None], outcomes: dict[int, Outcome]) -> None:
        """Note which rows are jobs now.

        :raises OtherTenant: if one is, under an id that is not its own.
        """
        for (row, creation), job in zip(sent, created, strict=False):
            if job is None:
                continue
            if job.id != row.job_id and creation.job_key is not None and job.deduplicated:
                # Another job has the key that no two may have.
                log.info("a job has the key of a row of the outbox", extra=job_fields(job_id=job.id, type=row.type))
            elif job.id != row.job_id:
                outcomes[row.id] = PutBack(row)
                raise OtherTenant(
                    f"The row {row.id} of the outbox is the job {job.id} by the key or token that is used here, and "
                    f"{row.job_id} by whoever wrote it. Use a key of the tenant that is given to outbox.create."
                )
            else:
                self._is_of_tenant = True
            outcomes[row.id] = Moved(row)
            self.counts["repeated" if job.deduplicated else "moved"] += 1
            log.info("moved from the outbox", extra=job_fields(job_id=row.job_id, type=row.type))

    async def _looked_up(self, row: ClaimedRow) -> Outcome:
        """Return what has become of a row that may be a job since long ago.

        :raises _Away: if nobody can tell now.
        """
        try:
            async with asyncio.timeout(_SEND_WITHIN):
                job = await self._transport.find(row.job_id)
        except (*_AWAY, TimeoutError) as error:
            raise _Away(error) from error
        except ClientError as error:
            return self._refused(row, error)
        if job is not None:
            self.counts["repeated"] += 1
            log.info("the log has had the job of an old row of the outbox", extra=job_fields(job_id=row.job_id))
            return Moved(row)
        return self._set_aside(
            row,
            UNKNOWN_OUTCOME,
            f"It may have become a job at {row.doubtful_since:%Y-%m-%d %H:%M:%S} UTC, and there is none now: it never "
            "did, or its job has expired since. It was not sent again, so that nothing is done twice.",
        )

    def _refused(self, row: ClaimedRow, error: ClientError) -> Outcome:
        # A type that the server does not know yet, or a job whose row another relay has, is like a key that may not
        # create it.
        field = error.field or ""
        is_unknown = field.rpartition(".")[2] in {"type", "origin"} or field.startswith("after.")
        if (isinstance(error, _FOR_GOOD) and not is_unknown) or _age(row.created_at) > self._too_old:
            return self._set_aside(row, error.code or "REFUSED", error.message)
        delay = min(2.0 ** min(row.attempts, 10), _LONGEST_DELAY)
        log.warning("a row of the outbox is refused for now: %s", error, extra=job_fields(job_id=row.job_id))
        return PutBack(row, delay, is_doubtful=not isinstance(error, _NOT_STORED))

    def _set_aside(self, row: ClaimedRow, code: str, error: str) -> SetAside:
        self.counts["set_aside"] += 1
        message = "row %d of the outbox is set aside, %s: %s"
        log.error(message, row.id, code, error, extra=job_fields(job_id=row.job_id, type=row.type))
        return SetAside(row, code, shortened(redact(error), _LONGEST_ERROR))


class _Away(Exception):
    """The server takes nothing now; ``retry_after`` is in seconds, 0 where it has not said."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause) or "The server does not answer in time.")
        self.retry_after = cause.retry_after if isinstance(cause, ClientError) else 0.0


def _age(moment: datetime) -> float:
    return (clock.now() - moment).total_seconds()


def sentence_of(error: Exception) -> str:
    """Return what is in the way, in a sentence of one line that shows no password."""
    if isinstance(error, DBAPIError):
        said = " ".join(str(error.orig).split())
        return shortened(redact(f"the database does not answer: {said}"), _LONGEST_ERROR)
    return redact(str(error))
