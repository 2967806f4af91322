"""The jobs that a handler creates: what it asks for, the request that this makes, and how a refusal reaches it.

A handler asks where it runs, in the worker or in a process of ``sandbox``: ``asked_child`` makes plain values of a
payload and options. The worker makes the request of them, ``child_request``: there all job types are registered.
Nothing in this module needs a connection.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import Struct, structs
from pydantic import BaseModel

from gql_jobs.jobs.built_payloads import BuiltPayload, accept_built, built_payload
from gql_jobs.jobs.errors import (
    IdempotencyConflict,
    KeyTaken,
    PayloadTooLarge,
    PermanentError,
    QueueFull,
    TransientError,
)
from gql_jobs.jobs.model import DependencyPolicy, JobPriority, Spec
from gql_jobs.jobs.payload_codec import CodecFailure
from gql_jobs.jobs.payloads import ModelMismatch
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.jobs.requests import ChildPlace, InvalidRequest, JobRequest
from gql_jobs.jobs.unique_keys import Key, UniqueKey

# What a handler asks for.


class ChildOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The options of ``JobContext.create``; None stands for what it says of an option that is left out."""

    key: str | None = None
    priority: JobPriority | None = None
    run_at: datetime | None = None
    max_retries: int | None = None
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    type: str | None = None
    job_key: UniqueKey | None = None
    concurrency_key: str | None = None
    start_before: datetime | None = None
    after: tuple[str, ...] = ()
    after_policy: DependencyPolicy | None = None


class AskedChild(Struct, frozen=True):
    """A job that a handler asks for. ``model``: where its payload model is defined, as ``module.name``."""

    model: str
    payload: BuiltPayload
    options: ChildOptions


def asked_child(payload: BaseModel, options: dict[str, Any]) -> AskedChild:
    """Return what ``JobContext.create`` was called with.

    :raises PermanentError: if the payload cannot be stored as it is, or an option is no such value.
    """
    if not isinstance(payload, BaseModel):
        raise PermanentError(
            f"context.create takes the payload model of a job type, not a value of {type(payload).__name__}."
        )
    options = {
        name: value.lower() if name in {"priority", "after_policy"} and isinstance(value, str) else value
        for name, value in options.items()
    }
    if (after := options.get("after")) is not None and not isinstance(after, str):
        options["after"] = tuple(getattr(one, "id", one) for one in after)
    try:
        if isinstance(key := options.get("key"), Key):
            options |= {"key": None, "job_key": key.asked()}
        # Only its JSON: whoever creates the child may be another process, with a registry of its own.
        built = structs.replace(built_payload(payload), value=None)
        return AskedChild(_path_of(type(payload)), built, msgspec.convert(options, ChildOptions, strict=True))
    except ModelMismatch as mismatch:
        raise _unfit(type(payload).__name__, mismatch) from mismatch.unexpected
    except ValueError as error:
        raise PermanentError(f"An option of context.create is not valid: {str(error).rstrip('.')}.") from None


def _path_of(model: type[BaseModel]) -> str:
    return f"{model.__module__}.{model.__qualname__}"


def _unfit(what: str, mismatch: ModelMismatch) -> PermanentError:
    return PermanentError(f"The payload of a child does not fit {what}. {mismatch}")


# The request that it makes.


class Parent(Protocol):
    """The attempt whose handler asks."""

    @property
    def job_id(self) -> str:
        """Return the id of the job."""

    @property
    def spec(self) -> Spec:
        """Return what is stored of the job."""

    @property
    def submission_seq(self) -> int:
        """Return the sequence of the submission that the attempt is one of."""


def child_request(asked: AskedChild, registry: Registry, parent: Parent, numbers: Counter[str]) -> JobRequest:
    """Return the creation of a child.

    :param numbers: how many children of each type the attempt has asked for without a key; this one is counted.
    :raises PermanentError: if no job type has the payload's model, the payload does not fit it, or an option is out of
        its limits.
    """
    options, spec = asked.options, parent.spec
    job_type = _type_of(asked, registry)
    if options.key is None:
        numbers[job_type.name] += 1
    try:
        return JobRequest.of(
            job_type,
            accept_built(job_type.payload, asked.payload),
            priority=options.priority or spec.priority,
            run_at=options.run_at,
            max_retries=options.max_retries,
            timeout=options.timeout,
            tags=options.tags,
            key=options.job_key,
            concurrency_key=options.concurrency_key,
            start_before=options.start_before,
            after=options.after,
            after_policy=options.after_policy or DependencyPolicy.CANCEL,
            child=ChildPlace(
                parent=parent.job_id,
                submission=parent.submission_seq,
                type=job_type.name,
                nth=numbers[job_type.name],
                key=options.key,
                tenant=spec.tenant,
                created_by=spec.created_by,
            ),
        )
    except InvalidRequest as invalid:
        raise PermanentError(f"A child cannot be created: {invalid}") from invalid.unexpected
    except ModelMismatch as mismatch:
        raise _unfit(job_type.payload.__name__, mismatch) from mismatch.unexpected


def _type_of(asked: AskedChild, registry: Registry) -> JobType:
    model = next((one.payload for one in registry if _path_of(one.payload) == asked.model), None)
    if model is None:
        raise PermanentError(
            f"A child cannot be created: {asked.model} is the payload model of no job type that is registered in this "
            "worker; give the module that registers it by --import."
        )
    try:
        return registry.of_payload(model, asked.options.type)
    except LookupError as error:
        raise PermanentError(f"A child cannot be created. {error}") from None


# Refusals.


@contextmanager
def refusals_for_handlers(request: JobRequest) -> Iterator[None]:
    """Raise what a handler is to be told for what refuses the creation of a child within the block.

    :raises PermanentError: if the payload is too large, or there is such a child with another payload.
    :raises TransientError: if another job has its key for now, the store is full, or the codec fails.
    """
    try:
        yield
    except IdempotencyConflict as conflict:
        raise PermanentError(_another_payload(request, conflict.extensions.get("existingJobId"))) from None
    except PayloadTooLarge as error:
        raise PermanentError(f"A child cannot be created. {error.message}") from None
    except (QueueFull, KeyTaken) as error:
        raise TransientError(f"A child could not be created. {error.message}") from None
    except CodecFailure as failure:
        raise TransientError(f"The payload of a child could not be encoded. {failure}") from None


def _another_payload(request: JobRequest, existing: str | None) -> str:
    child = request.child
    assert child is not None
    if child.key is not None:
        return f"The key {child.key!r} is that of the child {existing}, which has another payload or type."
    return (
        f"Child {child.nth} of the type {child.type!r} is {existing}, which an earlier attempt has created with "
        "another payload. Give children keys where attempts do not create the same ones in the same order."
    )
