"""What a caller gives for a job that is to be created, and the creation that transports are given of it."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

from msgspec import Raw
from pydantic import BaseModel
from pydantic_core import from_json, to_json

from gql_jobs.client.errors import ClientError, InvalidArgument, InvalidPayload, PartlyCreated, Unreachable
from gql_jobs.client.transport import CreatedJob, Creation
from gql_jobs.jobs import errors as job_errors
from gql_jobs.jobs.built_payloads import BuiltPayload, accept_built, built_payload
from gql_jobs.jobs.limits import InvalidLimit, Limits
from gql_jobs.jobs.model import DependencyPolicy, JobPriority, JobStatus, parse_job_id
from gql_jobs.jobs.payloads import AcceptedPayload, ModelMismatch
from gql_jobs.jobs.registry import registry
from gql_jobs.jobs.requests import InvalidRequest, JobRequest
from gql_jobs.jobs.unique_keys import Key, UniqueKey
from gql_jobs.logs import hidden_in_log

PriorityName: TypeAlias = Literal["low", "normal", "high", "critical"]


class JobOptions(TypedDict, total=False):
    """How a job is created, besides its payload; whatever is left out or None is as the type or the server has it.

    ``key``: a text is an idempotency key, of 1 to 255 printable characters: a repetition with the same payload returns
    the job that is there, for as long as it is kept. A ``Key`` says what becomes of the creation while another job with
    it has not ended; ``idempotency_key`` is for both of them. ``priority``: normal by default. ``run_at``: not before
    then, at most a year ahead; UTC where it has no offset. ``max_retries``: attempts after the first, 0 to 100.
    ``timeout``: seconds that an attempt may take, 0.1 to 86400, or a ``timedelta``. ``tags``: at most 32, to filter by.
    ``origin``: the id of the job that it is made of.
    ``after``: the jobs that have to complete first, handles or ids, at most 1000; ``after_policy``: ``"cancel"`` it, by
    default, or ``"run"`` it all the same, when one of them does not. ``start_before``: when it is cancelled if it has
    not started. ``concurrency_key``: what it has in common with those that it shares limits per key with.
    ``type``: the job type by its name, where the payload's model is that of several.
    """

    key: str | Key | None
    idempotency_key: str | None
    priority: JobPriority | PriorityName | None
    run_at: datetime | None
    max_retries: int | None
    timeout: float | timedelta | None
    tags: Sequence[str] | None
    origin: str | None
    after: "Iterable[str | Identified] | None"
    after_policy: DependencyPolicy | Literal["cancel", "run"] | None
    start_before: datetime | None
    concurrency_key: str | None
    type: str | None


class Identified(Protocol):
    """What has the id of a job: a handle, a snapshot, or a child."""

    @property
    def id(self) -> str:
        """Return the id."""


log = logging.getLogger(__name__)
DRAWN_KEY = "client "
"""What the keys begin with that clients draw for themselves."""
_NAMES_OF_FIELDS = {"idempotency_key": "key"}
"""The names of those fields of ``JobRequest`` that ``Creation`` calls otherwise."""
Asked: TypeAlias = BaseModel | tuple[BaseModel, JobOptions]
"""A payload, or one with the options of its job."""
_MAKING_TURN = 0.01
"""Seconds of making creations after which other tasks run."""
_OPTIONS = JobOptions.__optional_keys__
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "key": ((str, Key), "a text or a Key"),
    "idempotency_key": ((str,), "a text"),
    "concurrency_key": ((str,), "a text"),
    "start_before": ((datetime,), "a datetime"),
    "run_at": ((datetime,), "a datetime"),
    "max_retries": ((int,), "a whole number"),
    "timeout": ((int, float, timedelta), "a number of seconds or a timedelta"),
    "origin": ((str,), "the id of a job, a text"),
}
"""What the values of options are, but of those that are read by their own functions below."""


def creation_of(payload: BaseModel, options: JobOptions) -> Creation:
    """Return the creation of a job.

    :param payload: of a model that ``job_type`` has registered in this process. What it holds now counts, also what
        was changed since it was made; fields that were never given are left to their defaults.
    :raises TypeError: if the payload is no model, or there is no such option.
    :raises LookupError: if its model is that of no registered type, or of several and ``type`` does not say which.
    :raises InvalidPayload: if what it holds does not read back as the same.
    :raises InvalidArgument: for an option of another kind than ``JobOptions`` has, or a priority that there is not.
    """
    if not isinstance(payload, BaseModel):
        raise TypeError(f"A payload is an object of the payload model of its job type, not {type(payload).__name__}.")
    if not options.keys() <= _OPTIONS:
        named = ", ".join(sorted(map(repr, options.keys() - _OPTIONS)))
        raise TypeError(f"There is no option {named} of a job; there are {', '.join(sorted(_OPTIONS))}.")
    for name, value in options.items():
        if name in _KINDS and value is not None:
            kinds, said = _KINDS[name]
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise _argument(name, f"{name} is {said}, not {value!r}.")
    job_type = registry.of_payload(type(payload), options.get("type"))
    try:
        built = built_payload(payload)
    except ModelMismatch as mismatch:
        raise _unreadable(mismatch) from None
    stored = bytes(built.stored)
    sent = stored if built.sent is built.stored else bytes(built.sent)
    if not options:
        return Creation(job_type, stored, sent=sent, value=built.value)
    idempotency_key, job_key = keys_of_options(options.get("key"), options.get("idempotency_key"))
    return Creation(
        job_type=job_type,
        payload=stored,
        sent=sent,
        value=built.value,
        key=idempotency_key,
        priority=priority_of(options.get("priority")),
        run_at=options.get("run_at"),
        max_retries=options.get("max_retries"),
        timeout=seconds_of(options.get("timeout")),
        tags=tags_of(options.get("tags")),
        origin=options.get("origin"),
        job_key=job_key,
        concurrency_key=options.get("concurrency_key"),
        start_before=options.get("start_before"),
        after=ids_of(options.get("after")),
        after_policy=_dependency_policy_of(options.get("after_policy")),
    )


def key_for(creation: Creation) -> str:
    """Return the key of a creation, or one drawn for this call, under which a repetition finds the first try."""
    return creation.key if creation.key is not None else f"{DRAWN_KEY}{uuid.uuid4()}"


def accepted_of_creation(creation: Creation) -> AcceptedPayload:
    """Return the payload of a creation once its model has read it: as the server checks it.

    :raises GqlJobsError: ``InvalidPayload`` of ``gql_jobs.jobs.errors``.
    """
    job_type, stored, sent = creation.job_type, creation.payload, creation.sent
    try:
        if creation.value is None:
            stored = _one_line_of_json(stored)
            # Only what is JSON can be compared.
            sent = _one_line_of_json(sent) if sent is not None else None
    except ValueError:
        raise job_errors.InvalidPayload(
            [{"path": "payload", "message": "It is no JSON text, or nested too deeply."}]
        ) from None
    try:
        return accept_built(job_type.payload, BuiltPayload(Raw(stored), Raw(sent or stored), creation.value))
    except ModelMismatch as mismatch:
        if mismatch.unexpected is not None:
            with hidden_in_log(mismatch.secret_texts):
                log.exception("the payload model of %s failed", job_type.name, exc_info=mismatch.unexpected)
        raise job_errors.InvalidPayload(mismatch.told_faults("payload")) from None


def request_of_creation(creation: Creation) -> JobRequest:
    """Return a creation as a request, once all of it is within its limits: as the server checks it.

    :raises GqlJobsError: ``InvalidPayload`` or ``InvalidArgument`` of ``gql_jobs.jobs.errors``.
    """
    payload = accepted_of_creation(creation)
    origin = None
    if creation.origin is not None:
        origin = parse_job_id(creation.origin)
        if origin is None:
            raise job_errors.InvalidArgument("origin", job_errors.no_such_job(creation.origin))
    try:
        return JobRequest.of(
            creation.job_type,
            payload,
            priority=creation.priority,
            idempotency_key=creation.key,
            run_at=creation.run_at,
            max_retries=creation.max_retries,
            timeout=creation.timeout,
            tags=creation.tags,
            origin=origin,
            key=creation.job_key,
            concurrency_key=creation.concurrency_key,
            start_before=creation.start_before,
            after=tuple(parse_job_id(job_id) or job_id for job_id in creation.after),
            after_policy=creation.after_policy,
        )
    except InvalidRequest as invalid:
        log_code_of_type(invalid)
        name = _NAMES_OF_FIELDS.get(invalid.field, invalid.field)
        where = name if invalid.index is None else f"{name}.{invalid.index}"
        raise job_errors.InvalidArgument(where, invalid.problem.format(name)) from None


def log_code_of_type(invalid: InvalidRequest) -> None:
    """Log what code of a job type has raised, if that is what is wrong with a request."""
    if invalid.unexpected is not None:
        with hidden_in_log(invalid.secret_texts):
            log.error("code of a job type failed: %s", invalid, exc_info=invalid.unexpected)


def _one_line_of_json(text: bytes) -> bytes:
    """Return JSON as it is stored, without line breaks.

    :raises ValueError: if it is none.
    """
    value = from_json(text, allow_inf_nan=False)
    return to_json(value) if b"\n" in text or b"\r" in text else text


def result_model_of(name: str) -> Any:
    """Return the result model of a type, None if its handler returns nothing, ``Any`` if the type is not known here."""
    return next((job_type.result for job_type in registry if job_type.name == name), Any)


def priority_of(given: JobPriority | str | None) -> JobPriority:
    """Return a priority by its name, in any case; ``NORMAL`` for None.

    :raises InvalidArgument: if there is none of that name.
    """
    if given is None:
        return JobPriority.NORMAL
    try:
        return JobPriority(str(given).lower())
    except ValueError:
        raise _argument("priority", f"priority is one of {', '.join(JobPriority)}, not {given!r}.") from None


def keys_of_options(key: str | Key | None, idempotency_key: str | None) -> tuple[str | None, UniqueKey | None]:
    """Return the idempotency key and the key that options give.

    :raises InvalidArgument: if both are idempotency keys, or what is in a ``Key`` makes none.
    """
    if not isinstance(key, Key):
        if key is not None and idempotency_key is not None:
            raise _argument("key", "key is an idempotency key unless it is a Key: give one of them.")
        return key if idempotency_key is None else idempotency_key, None
    try:
        return idempotency_key, key.asked()
    except ValueError as error:
        raise _argument("key", f"key: {error}") from None


def ids_of(given: "Iterable[str | Identified] | None") -> tuple[str, ...]:
    """Return the ids of jobs that are given by them, or by what has them.

    :raises InvalidArgument: for what has none.
    """
    if isinstance(given, str):
        raise _argument("after", "after is several jobs or their ids, not one text.")
    ids = []
    for place, one in enumerate(given or ()):
        job_id = one if isinstance(one, str) else getattr(one, "id", None)
        if not isinstance(job_id, str):
            raise _argument(f"after.{place}", f"It is neither a job nor the id of one: {one!r}.")
        ids.append(job_id)
    return tuple(ids)


def _dependency_policy_of(given: DependencyPolicy | str | None) -> DependencyPolicy:
    if given is None:
        return DependencyPolicy.CANCEL
    try:
        return DependencyPolicy(str(given).lower())
    except ValueError:
        message = f"after_policy is one of {', '.join(DependencyPolicy)}, not {given!r}."
        raise _argument("after_policy", message) from None


def queue_limits_of(*, concurrency: int | None, concurrency_per_key: int | None, per_second: float | None) -> Limits:
    """Return limits that a queue can have.

    :raises InvalidArgument: for one that is outside its bounds.
    """
    try:
        return Limits.of(concurrency=concurrency, concurrency_per_key=concurrency_per_key, per_second=per_second)
    except InvalidLimit as invalid:
        raise _argument(invalid.field, str(invalid)) from None


def status_of(given: JobStatus | str) -> JobStatus:
    """Return a state by its name, in any case.

    :raises InvalidArgument: if there is none of that name.
    """
    try:
        return JobStatus(str(given).lower())
    except ValueError:
        raise _argument("status", f"status is one of {', '.join(JobStatus)}, not {given!r}.") from None


def moment_of(name: str, given: datetime | None) -> datetime | None:
    """Return a moment that jobs are compared with.

    :raises InvalidArgument: if it is none.
    """
    if given is not None and not isinstance(given, datetime):
        raise _argument(name, f"{name} is a datetime, not {given!r}.")
    return given


def first_of(given: int | None) -> int | None:
    """Return how many jobs are wanted at most.

    :raises InvalidArgument: if it is no whole number from 0 on.
    """
    if given is not None and (type(given) is not int or given < 0):
        raise _argument("first", f"first is a whole number from 0 on, not {given!r}.")
    return given


def seconds_of(timeout: float | timedelta | None) -> float | None:
    """Return a timeout in seconds.

    :raises InvalidArgument: if it is none.
    """
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    if timeout is not None and not isinstance(timeout, int | float):
        raise _argument("timeout", f"timeout is a number of seconds or a timedelta, not {timeout!r}.")
    return timeout


def tags_of(given: Sequence[str] | None) -> tuple[str, ...]:
    """Return tags, none for None.

    :raises InvalidArgument: if they are no sequence of texts.
    """
    if isinstance(given, str):
        raise _argument("tags", "tags are a sequence of texts, not one text.")
    tags = tuple(given or ())
    for place, tag in enumerate(tags):
        if not isinstance(tag, str):
            raise _argument(f"tags.{place}", f"A tag is a text, not {tag!r}.")
    return tags


def _unreadable(mismatch: ModelMismatch) -> InvalidPayload:
    faults = mismatch.told_faults("payload")
    said = "; ".join(f"{one['path']}: {one['message']}" for one in faults[:3])
    return InvalidPayload(f"The payload cannot be stored. {said}", {"code": "INVALID_PAYLOAD", "fields": faults})


def _argument(name: str, message: str) -> InvalidArgument:
    return InvalidArgument(message, {"code": "INVALID_ARGUMENT", "argument": name})


# Many of them.


async def creation_batches(payloads: Iterable[Asked], most: int, most_bytes: int) -> AsyncIterator[list[Creation]]:
    """Yield creations in batches, none of which is empty, and let other tasks run in between.

    :raises ClientError: as ``creation_of`` does, once what comes before is yielded; with the place of the payload.
    """
    batch: list[Creation] = []
    size = 0
    pause_at = time.monotonic() + _MAKING_TURN
    for place, asked in enumerate(payloads):
        payload, options = asked if isinstance(asked, tuple) else (asked, JobOptions())
        try:
            creation = creation_of(payload, options)
        except ClientError as error:
            error.extensions["input"] = place
            if batch:
                yield batch
            raise
        if batch and (len(batch) == most or size + creation.weight > most_bytes):
            yield batch
            batch, size = [], 0
        if time.monotonic() > pause_at:
            await asyncio.sleep(0)
            pause_at = time.monotonic() + _MAKING_TURN
        batch.append(creation)
        size += creation.weight
    if batch:
        yield batch


async def next_batch(batches: AsyncIterator[list[Creation]]) -> list[Creation] | Exception:
    """Return the next batch, an empty one if there is none, or what is raised in its place."""
    try:
        return await anext(batches, [])
    except Exception as error:  # noqa: BLE001  # of the caller's iterable and models, raised in its turn
        return error


def error_of_many(error: Exception, made: list[CreatedJob], sent: int) -> Exception:
    """Return the error of ``create_many``, once some batches are stored.

    :param sent: how many are in the batch at fault; 0 if it was not sent.
    """
    before = len(made)
    if sent and isinstance(error, ClientError) and isinstance(error.extensions.get("input"), int):
        error.extensions["input"] += before
    if isinstance(error, PartlyCreated):
        return PartlyCreated(error.message, [*made, *error.created], [before + place for place in error.uncertain])
    if not made:
        return error
    in_doubt = range(before, before + sent) if isinstance(error, Unreachable) and error.uncertain else ()
    return PartlyCreated(f"{before} jobs were stored, and then: {error}", [*made, *[None] * sent], in_doubt)
