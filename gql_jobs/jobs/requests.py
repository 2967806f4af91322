"""What clients ask for: a filter and an order of jobs, and the creation of a job.

The filter serves pages, counts, bulk retries and live events. A ``JobRequest`` is a creation whose limits have been
checked; ``spec`` fills in its defaults. Nothing is stored here.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Raw, Struct
from pydantic import RootModel
from pydantic_core import to_json, to_jsonable_python

from gql_jobs import clock
from gql_jobs.jobs.errors import shortened
from gql_jobs.jobs.model import (
    MAX_RETRIES,
    MAX_TIMEOUT,
    MIN_TIMEOUT,
    DependencyPolicy,
    Gate,
    Job,
    JobPriority,
    JobStatus,
    OverlapPolicy,
    Spec,
    failure_group,
    job_id_for_key,
    job_id_of_child,
    new_job_id,
    parse_job_id,
)
from gql_jobs.jobs.payloads import AcceptedPayload, canonical_json, fields_of, secret_texts
from gql_jobs.jobs.registry import JobType
from gql_jobs.jobs.secret_fields import has_secrets
from gql_jobs.jobs.unique_keys import MAX_KEY_DELAY, KeyPolicy, UniqueKey
from gql_jobs.jobs.viewer import ANYBODY, EVERYTHING, Viewer, Visibility

_T = TypeVar("_T")
Alike: TypeAlias = Callable[[str, str], str | None]

MAX_TAGS = 32
MAX_TEXT = 255
"""Characters of a tag or a key, at most."""
MAX_AFTER = 1000
"""Jobs that one may be to run after, at most."""
_JOINERS = {"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))}
"""Invisible characters that emoji and several scripts need for writing a word, though they do not print."""
FARTHEST_RUN = timedelta(days=366)
"""How far ahead ``run_at`` may be; ``start_before`` may be twice as far."""


_FIRST_DAY = datetime(1970, 1, 1, tzinfo=UTC)


class JobFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs are meant: all parts have to match; None matches every job, an empty set none.

    A part that is unknown is refused where a filter is read: without it, it would mean more jobs.

    A job matches ``tags`` if it carries every one of them. ``created_after`` and ``created_before`` are exclusive.
    ``failure_group`` is the key of the group of dead letters that it has to be in. ``moved_by`` is a position of the
    stream behind which it has neither an event nor a submission. ``parent`` is the id of the job whose child it is.
    ``schedule`` is the name of the schedule that made it, ``key`` and ``concurrency_key`` are its own.
    ``visibility``: which jobs there are at all for whoever asks.
    """

    # Sets, because a filter of live events is applied to each event of every job.
    ids: frozenset[str] | None = None
    status: frozenset[JobStatus] | None = None
    type: frozenset[str] | None = None
    queue: frozenset[str] | None = None
    priority: frozenset[JobPriority] | None = None
    tags: frozenset[str] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    failure_group: str | None = None
    moved_by: int | None = None
    parent: str | None = None
    schedule: str | None = None
    key: str | None = None
    concurrency_key: str | None = None
    visibility: Visibility = EVERYTHING

    def matches(self, job: Job) -> bool:
        """Return whether the job matches all parts."""
        spec = job.spec
        return (
            (self.ids is None or job.id in self.ids)
            and (self.status is None or job.status in self.status)
            and (self.type is None or spec.type in self.type)
            and (self.queue is None or spec.queue in self.queue)
            and (self.priority is None or spec.priority in self.priority)
            and (self.tags is None or (bool(self.tags) and self.tags.issubset(spec.tags)))
            and (self.created_after is None or spec.created_at > self.created_after)
            and (self.created_before is None or spec.created_at < self.created_before)
            and (self.failure_group is None or _group_key(job) == self.failure_group)
            and (self.moved_by is None or job.moved_at <= self.moved_by)
            and (self.parent is None or spec.parent == self.parent)
            and (self.schedule is None or spec.schedule == self.schedule)
            and (self.key is None or spec.key == self.key)
            and (self.concurrency_key is None or spec.concurrency_key == self.concurrency_key)
            and self.visibility.shows(job)
        )


def _group_key(job: Job) -> str | None:
    group = failure_group(job)
    return group.key if group is not None else None


class OrderField(StrEnum):
    """What a page is sorted by; jobs with equal values are sorted by their id."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    FINISHED_AT = "finished_at"
    PRIORITY = "priority"


class JobOrder(Struct, frozen=True):
    """The order of a page, by default the newest job first. Unfinished jobs count as finished before all others."""

    field: OrderField = OrderField.CREATED_AT
    descending: bool = True


class InvalidRequest(ValueError):
    """A field of a creation is invalid.

    ``field`` is its name in ``JobRequest``, and ``index`` that of the item, if it is a list. ``problem`` is a sentence
    with ``{}`` in place of the field's name, which callers may know under another name. ``unexpected``: what code of
    the job type raised; ``secret_texts``: what must not be shown of that.
    """

    def __init__(
        self,
        field: str,
        problem: str,
        index: int | None = None,
        unexpected: BaseException | None = None,
        secret_texts: Sequence[str] = (),
    ) -> None:
        super().__init__(problem.format(field))
        self.field = field
        self.problem = problem
        self.index = index
        self.unexpected = unexpected
        self.secret_texts = secret_texts


class JobDefaults(Protocol):
    """The defaults for jobs: they apply where neither the request nor the job type has a value."""

    @property
    def max_retries(self) -> int:
        """Attempts after the first."""

    @property
    def process_timeout(self) -> float:
        """Seconds that an attempt may take."""


class ChildPlace(Struct, frozen=True):
    """Which child of a job a request makes: the same one in every attempt of one submission of its parent.

    A child has a ``key`` that its parent's handler gave it, or it is the ``nth`` of its ``type`` that the handler
    creates without one. It is of the tenant of its parent, and counts as created by whoever created that.
    """

    parent: str
    submission: int
    type: str
    nth: int = 0
    key: str | None = None
    tenant: str | None = None
    created_by: str | None = None

    @property
    def job_id(self) -> str:
        """The id of the child."""
        # No type has an empty name, so no key is taken for a type and its number.
        name = f"{self.type}\0{self.nth}" if self.key is None else f"\0{self.key}"
        return job_id_of_child(self.parent, self.submission, name)


class TickPlace(Struct, frozen=True):
    """Which job of a schedule a request makes: that of a tick, or one that somebody asks for outside of its ticks.

    ``job_id`` is that of the tick, which is due at the request's ``run_at``; None for a job outside of the ticks. It
    counts as created by ``created_by``. ``made_up_before``: when it is too late for a tick that became due during an
    outage.
    """

    schedule: str
    job_id: str | None = None
    overlap: OverlapPolicy = OverlapPolicy.ALLOW
    created_by: str | None = None
    made_up_before: datetime | None = None


class JobRequest(Struct, frozen=True):
    """A creation within its limits; make it with ``of``. Requests with one key, or for one child, have one job id.

    ``payload`` is the JSON that is stored, ``secrets`` the places of secrets in it, ``timeout`` in seconds; None stands
    for the default of the type, then the setting's. ``origin``: the id of the job that this one is made of; it plays no
    part in whether two requests are the same. ``child``: which child of a job it makes. ``tick``: which job of a
    schedule. ``accepted`` is kept for an earlier job that it is compared with, or put in the place of, where there can
    be one. ``key``: what no other
    job may have while it has not ended. ``concurrency_key``: what jobs that share limits have in common; None for what
    the type says. ``start_before``: when it is cancelled if it has not started. ``after``: the ids of jobs that have to
    complete first, whether or not there are any, and ``after_policy`` what becomes of it if one of them does not.
    """

    job_type: JobType
    payload: bytes
    payload_hash: str
    request_hash: str | None = None
    accepted: AcceptedPayload | None = None
    secrets: tuple[str, ...] = ()
    priority: JobPriority = JobPriority.NORMAL
    idempotency_key: str | None = None
    run_at: datetime | None = None
    max_retries: int | None = None
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    origin: str | None = None
    child: ChildPlace | None = None
    tick: TickPlace | None = None
    key: UniqueKey | None = None
    concurrency_key: str | None = None
    start_before: datetime | None = None
    after: tuple[str, ...] = ()
    after_policy: DependencyPolicy = DependencyPolicy.CANCEL

    @classmethod
    def of(
        cls,
        job_type: JobType,
        payload: AcceptedPayload,
        *,
        priority: JobPriority = JobPriority.NORMAL,
        idempotency_key: str | None = None,
        run_at: datetime | None = None,
        max_retries: int | None = None,
        timeout: float | None = None,
        tags: tuple[str, ...] = (),
        origin: str | None = None,
        child: ChildPlace | None = None,
        tick: TickPlace | None = None,
        key: UniqueKey | None = None,
        concurrency_key: str | None = None,
        start_before: datetime | None = None,
        after: tuple[str, ...] = (),
        after_policy: DependencyPolicy = DependencyPolicy.CANCEL,
    ) -> "JobRequest":
        """Return a creation that is within the limits.

        :param concurrency_key: None for what the type says of the payload.
        :raises InvalidRequest: for a value outside its limits, or a payload of which the type's function has no key.
        """
        if idempotency_key is not None:
            _check_text("idempotency_key", idempotency_key, "{}")
        if child is not None and child.key is not None:
            _check_text("key", child.key, "{}")
        if max_retries is not None and not 0 <= max_retries <= MAX_RETRIES:
            raise InvalidRequest("max_retries", f"{{}} must be between 0 and {MAX_RETRIES}.")
        if timeout is not None and not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT:
            raise InvalidRequest("timeout", f"{{}} must be between {MIN_TIMEOUT} and {MAX_TIMEOUT:.0f}.")
        tags = checked_tags(tags)
        if key is not None:
            _check_key(key)
        if concurrency_key is not None:
            _check_text("concurrency_key", concurrency_key, "{}")
        elif job_type.concurrency_key is not None:
            concurrency_key = key_of_type(job_type, payload)
        _check_after(after)
        run_at = checked_run_at(run_at)
        start_before = _moment("start_before", start_before, 2 * FARTHEST_RUN, "two years")
        if start_before is not None and run_at is not None and start_before <= run_at:
            raise InvalidRequest("start_before", "{} must be later than the time before which it does not run.")
        is_repeatable = idempotency_key is not None or child is not None
        return cls(
            job_type=job_type,
            payload=payload.stored,
            payload_hash=_compared_by_older_jobs(job_type.name, payload)
            if is_repeatable
            else payload_hash(job_type.name, payload.stored),
            request_hash=request_hash(job_type.name, payload.sent) if is_repeatable else None,
            accepted=payload if is_repeatable or key is not None else None,
            secrets=payload.secrets,
            priority=priority,
            idempotency_key=idempotency_key,
            run_at=run_at,
            max_retries=max_retries,
            timeout=timeout,
            tags=tags,
            origin=origin,
            child=child,
            tick=tick,
            key=key,
            concurrency_key=concurrency_key,
            start_before=start_before,
            after=after,
            after_policy=after_policy,
        )

    @property
    def is_repeatable(self) -> bool:
        """Whether a second request can be for the same job: it has a key, or is for a certain child."""
        return self.idempotency_key is not None or self.child is not None

    def job_id(self, tenant: str | None = None) -> str:
        """Return the id that follows from tenant and key, the parent, or the tick; else a new one at each call."""
        if self.child is not None:
            return self.child.job_id
        if self.tick is not None and self.tick.job_id is not None:
            return self.tick.job_id
        return job_id_for_key(self.idempotency_key, tenant) if self.idempotency_key is not None else new_job_id()

    def tenant(self, viewer: Viewer = ANYBODY) -> str | None:
        """Return whose job it makes: the viewer's tenant, for a child that of its parent."""
        return viewer.tenant if self.child is None else self.child.tenant

    @property
    def is_secret(self) -> bool:
        """Whether the type of the job has secrets."""
        return bool(self.secrets) or has_secrets(self.job_type.payload)

    def repeats(self, earlier: "JobRequest | Spec", alike: Alike = lambda digest, _: digest) -> bool:
        """Return whether a request or a job with the same key asks for the same as this request.

        :param alike: returns a digest in the form of a stored hash, None if that cannot be made any more.
        """
        if earlier.request_hash is not None and self.request_hash is not None:
            mine, stored = self.request_hash, earlier.request_hash
        else:
            mine, stored = self.payload_hash, earlier.payload_hash
        made = alike(mine, stored)
        if made is None and isinstance(earlier, Spec):
            return self._repeats_stored(earlier)
        return made == stored or (isinstance(earlier, Spec) and self._repeats_respelled(earlier, alike))

    def _repeats_stored(self, earlier: Spec) -> bool:
        """Return whether a job has the very payload that was sent, where its hash can be compared with nothing."""
        name, accepted = self.job_type.name, self.accepted
        try:
            given = msgspec.json.decode(earlier.payload)
            if accepted is not None:
                given = _without_drawn(given, msgspec.json.decode(accepted.stored), msgspec.json.decode(accepted.sent))
            return earlier.type == name and request_hash(name, msgspec.json.encode(given)) == self.request_hash
        except (msgspec.DecodeError, ValueError, RecursionError):
            return False

    def _repeats_respelled(self, earlier: Spec, alike: Alike) -> bool:
        """Return whether a job asks for the same under the keys, and with the fields, that its model had then."""
        name, accepted = self.job_type.name, self.accepted
        if earlier.type != name or accepted is None:
            return False
        try:
            stored, sent = msgspec.json.decode(earlier.payload), msgspec.json.decode(accepted.sent)
            if earlier.request_hash is not None:
                mine = _respelled(accepted.value, sent, stored, sent)
                digest = request_hash(name, msgspec.json.encode(mine))
                return alike(digest, earlier.request_hash) == earlier.request_hash
            whole = msgspec.json.decode(canonical_json(accepted.value))
            mine = _respelled(accepted.value, whole, stored, sent)
            ordered = msgspec.json.decode(msgspec.json.encode(mine, order="sorted"))
            digest = payload_hash(name, to_json(ordered, inf_nan_mode="null"))
            return alike(digest, earlier.payload_hash) == earlier.payload_hash
        except Exception:  # noqa: BLE001  # code of users' models may fail: then nothing says that they are the same
            return False

    def spec(
        self,
        created_at: datetime,
        defaults: JobDefaults,
        now: datetime | None = None,
        viewer: Viewer = ANYBODY,
        *,
        is_limited: bool = False,
    ) -> Spec:
        """Return what is stored, with defaults filled in. A ``run_at`` that is not after ``now`` is left out.

        :param created_at: orders jobs, and may be ahead of the time; nothing is due by it.
        :param now: None for ``created_at``.
        :param viewer: who creates it; the job is of the same tenant, unless it is a child.
        :param is_limited: whether its queue or its type has limits, so that it passes the gate even if it waits for no
            other job.
        """
        job_type, tick = self.job_type, self.tick
        run_at = self.run_at if self.run_at is not None and self.run_at > (now or created_at) else None
        gate = self._gate(run_at, is_limited=is_limited)
        return Spec(
            type=job_type.name,
            payload=Raw(self.payload),
            payload_hash=self.payload_hash,
            queue=job_type.queue,
            priority=self.priority,
            max_retries=_first_given(self.max_retries, job_type.max_retries, defaults.max_retries),
            timeout=_first_given(self.timeout, job_type.timeout, defaults.process_timeout),
            created_at=created_at,
            tags=self.tags,
            run_at=run_at if gate is None else None,
            idempotency_key=self.idempotency_key,
            request_hash=self.request_hash,
            secrets=self.secrets,
            tenant=self.tenant(viewer),
            created_by=self._created_by(viewer),
            origin=self.origin,
            parent=self.child.parent if self.child is not None else None,
            key=self.key.value if self.key is not None else None,
            concurrency_key=self.concurrency_key,
            after=self.after,
            after_policy=self.after_policy,
            start_before=self.start_before,
            schedule=tick.schedule if tick is not None else None,
            gate=gate,
            fire_before=tick.made_up_before if tick is not None and gate is None and run_at is not None else None,
        )

    def _gate(self, run_at: datetime | None, *, is_limited: bool) -> Gate | None:
        """Return what marks the job as one that passes the gate; None for one that does not.

        :param run_at: None once it has passed.
        """
        if self.tick is not None and self.tick.overlap is not OverlapPolicy.ALLOW:
            return Gate(self.run_at, self.tick.overlap, self.tick.made_up_before)
        too_late = self.tick.made_up_before if self.tick is not None else None
        return Gate(run_at=run_at, release_before=too_late) if is_limited or self.after else None

    def _created_by(self, viewer: Viewer) -> str | None:
        if self.child is not None:
            return self.child.created_by
        return self.tick.created_by if self.tick is not None else viewer.actor


def _first_given(mine: _T | None, of_type: _T | None, setting: _T) -> _T:
    if mine is not None:
        return mine
    return of_type if of_type is not None else setting


def _check_text(field: str, text: str, name: str, index: int | None = None) -> None:
    if not 1 <= len(text) <= MAX_TEXT or not all(c.isprintable() or c in _JOINERS for c in text):
        raise InvalidRequest(field, f"{name} must have 1 to {MAX_TEXT} printable characters.", index)


def _check_key(key: UniqueKey) -> None:
    _check_text("key.value", key.value, "{}")
    if key.max_delay is None:
        return
    if key.policy is not KeyPolicy.REPLACE:
        raise InvalidRequest("key.max_delay", "{} is for the policy that replaces what waits, and for no other.")
    if not 1 <= key.max_delay <= MAX_KEY_DELAY:
        raise InvalidRequest("key.max_delay", f"{{}} must be between 1 and {MAX_KEY_DELAY}.")


def _check_after(after: tuple[str, ...]) -> None:
    if len(after) > MAX_AFTER:
        raise InvalidRequest("after", f"A job can be to run after {MAX_AFTER} others at most.")
    seen: set[str] = set()
    for index, job_id in enumerate(after):
        if parse_job_id(job_id) != job_id:
            raise InvalidRequest("after", f"{_quoted(job_id)} is no id of a job.", index)
        if job_id in seen:
            raise InvalidRequest("after", f"The job {_quoted(job_id)} is named twice.", index)
        seen.add(job_id)


def _quoted(text: str) -> str:
    """Return what was given, as a part of the problem of an ``InvalidRequest``, which is a format."""
    return repr(shortened(text)).replace("{", "{{").replace("}", "}}")


def checked_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tags that a job gets, each once.

    :raises InvalidRequest: if there are too many, or one is outside its limits.
    """
    if len(tags) > MAX_TAGS:
        raise InvalidRequest("tags", f"A job has at most {MAX_TAGS} tags.")
    for index, tag in enumerate(tags):
        _check_text("tags", tag, "A tag", index)
    return tuple(dict.fromkeys(tags))


def checked_run_at(moment: datetime | None) -> datetime | None:
    """Return a ``run_at`` in UTC, which is taken for its offset where it has none.

    :raises InvalidRequest: if it is too far ahead.
    """
    return _moment("run_at", moment, FARTHEST_RUN, "a year")


def key_of_type(job_type: JobType, payload: AcceptedPayload) -> str | None:
    """Return the concurrency key that the function of a type returns for a payload.

    :raises InvalidRequest: if it fails, or returns what is no key.
    """
    assert job_type.concurrency_key is not None
    try:
        key: Any = job_type.concurrency_key(payload.value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - code of users may raise anything
        texts = secret_texts(job_type.payload, payload.stored, payload.secrets, payload.value)
        problem = f"{{}} is not known: the function that the job type {job_type.name!r} has for it failed."
        raise InvalidRequest("concurrency_key", problem, None, error, texts) from None
    if key is None:
        return None
    if not isinstance(key, str):
        of_what = f"what the job type {job_type.name!r} makes of the payload is of the class {type(key).__name__}"
        raise InvalidRequest("concurrency_key", f"{{}} must be a text, and {of_what}.")
    _check_text("concurrency_key", key, f"{{}}, which the job type {job_type.name!r} makes of the payload,")
    return key


def _moment(field: str, moment: datetime | None, farthest: timedelta, said: str) -> datetime | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment > clock.now() + farthest:
        raise InvalidRequest(field, f"{{}} may be at most {said} ahead.")
    # The first day of the calendar cannot be written in UTC from every offset. Nothing else is said here about what has
    # passed: this machine's clock may be wrong.
    return max(moment, _FIRST_DAY).astimezone(UTC)


# Which requests are the same: what the client sent, whatever defaults the model has by now.


def request_hash(type_name: str, sent: bytes) -> str:
    """Return the SHA-256, in hexadecimal, of the type and what the client sent, however its JSON was written."""
    canonical = msgspec.json.encode(_canonical(msgspec.json.decode(sent)), order="sorted")
    return payload_hash(type_name, canonical)


def _canonical(value: Any) -> Any:
    """Return a JSON value in which equal numbers are written alike."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    return [_canonical(item) for item in value] if isinstance(value, list) else value


def _without_drawn(earlier: Any, stored: Any, sent: Any) -> Any:
    """Return an earlier JSON without what was drawn in it, as ``stored`` shows beside ``sent`` what is drawn."""
    if isinstance(earlier, dict) and isinstance(stored, dict) and isinstance(sent, dict):
        return {
            key: _without_drawn(value, stored.get(key), sent.get(key))
            for key, value in earlier.items()
            if key in sent or key not in stored
        }
    lists = (earlier, stored, sent)
    if all(isinstance(one, list) for one in lists) and len(set(map(len, lists))) == 1:
        return [_without_drawn(*items) for items in zip(*lists, strict=True)]
    return earlier


def _respelled(value: Any, written: Any, earlier: Any, sent: Any) -> Any:
    """Return the JSON of a value under the keys of an earlier JSON, without new fields that nobody gave.

    :param written: JSON of the value.
    :param sent: what of it the client gave.
    """
    if isinstance(value, RootModel):
        return _respelled(value.root, written, earlier, sent)
    known = fields_of(value)
    if known is not None and isinstance(written, dict):
        left = dict(written)
        for name, field in known.items():
            spellings = (*field.keys, field.written)
            now, before, given = (_first_key(json, spellings) for json in (written, earlier, sent))
            if now is None:
                continue
            del left[now]
            if before is not None or given is not None:
                left[before or now] = _respelled(
                    getattr(value, name), written[now], _inside(earlier, before), _inside(sent, given)
                )
        return left
    if isinstance(value, dict) and isinstance(written, dict):
        items = {key if isinstance(key, str) else str(to_jsonable_python(key)): item for key, item in value.items()}
        return {
            key: _respelled(items.get(key), json, _inside(earlier, key), _inside(sent, key))
            for key, json in written.items()
        }
    if isinstance(value, list | tuple | deque) and isinstance(written, list) and len(value) == len(written):
        return [
            _respelled(item, json, _inside(earlier, place), _inside(sent, place))
            for place, (item, json) in enumerate(zip(value, written, strict=True))
        ]
    return written


def _first_key(json: Any, keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if isinstance(json, dict) and key in json), None)


def _inside(json: Any, key: str | int | None) -> Any:
    try:
        return json[key]
    except (LookupError, TypeError):
        return None


def payload_hash(type_name: str, payload: bytes | Raw) -> str:
    """Return the SHA-256, in hexadecimal, of type and canonical payload: equal for requests that repeat each other."""
    return hashlib.sha256(type_name.encode() + b"\n" + bytes(payload)).hexdigest()


def _compared_by_older_jobs(type_name: str, payload: AcceptedPayload) -> str:
    """Return the hash that jobs without a ``request_hash`` are compared by: of the payload with all its defaults."""
    try:
        whole = canonical_json(payload.value)
    except Exception:  # noqa: BLE001  # a serializer of users may fail: then no older job had this payload
        whole = payload.stored
    return payload_hash(type_name, whole)
