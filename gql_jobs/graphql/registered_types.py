"""The GraphQL types of the registered job types, and how a stored job becomes an object of one of them.

A job that its type cannot describe (any more) becomes an UnknownJob; presenting a job never fails.
"""

import logging
import types
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, TypeAlias, cast

import msgspec
import strawberry
from msgspec import Raw
from pydantic import BaseModel
from pydantic.alias_generators import to_camel, to_pascal

from gql_jobs.graphql.context import Info
from gql_jobs.graphql.engine.budget import Budget, spends_only
from gql_jobs.graphql.job_types import Job, UnknownJob
from gql_jobs.graphql.payload_types import RESERVED, PayloadTypes, Shape, hide_in_shown, is_lacking
from gql_jobs.graphql.type_names import type_names
from gql_jobs.index.reader import Reader
from gql_jobs.jobs import model
from gql_jobs.jobs.errors import Unrepresentable
from gql_jobs.jobs.payload_codec import CodecFailure, StoredPayloads
from gql_jobs.jobs.payloads import read, texts_of_secrets
from gql_jobs.jobs.registry import JobType, Registry
from gql_jobs.jobs.secret_fields import REDACTED, has_secrets, marks_for, redacted, redacted_result

log = logging.getLogger(__name__)

_MAX_CACHED = 20_000
"""Objects that are cached; then the cache is emptied."""
_MAX_CACHED_TEXT = 1024
"""Bytes of a payload or result whose object is cached."""
_MAX_CACHED_BYTES = 4 * 1024 * 1024
"""Bytes of all payloads and results whose objects are cached."""
_UNKNOWN = object()
_UNREAD = object()
"""In the place of an object that is read where it is selected."""
_UNREADABLE = object()
"""In the place of the object of a payload or result that its model cannot describe."""


class RegisteredTypes:
    """The job types of one schema, and the GraphQL types made of them.

    ``objects`` has the object type of each job type by its name, ``inputs`` the input type of its payload.

    :raises ValueError: if the registry has no types, or two that would have the same names in GraphQL.
    """

    def __init__(self, registry: Registry, stored: StoredPayloads | None = None) -> None:
        """Make the types.

        :param stored: how payloads and results are stored; as they are by default.
        """
        stored = stored or StoredPayloads()
        self.job_types = {job_type.name: job_type for job_type in registry}
        if not self.job_types:
            raise ValueError("No job type is registered: there is nothing to make a schema of.")
        payload_types = PayloadTypes(_names_within(self.job_types))
        self._parts = {name: _parts(job_type, payload_types) for name, job_type in self.job_types.items()}
        self.inputs = {
            name: payload_types.input(job_type.payload, f"{type_stem(job_type)}PayloadInput")
            for name, job_type in self.job_types.items()
        }
        self.objects = {name: _object(job_type, *self._parts[name]) for name, job_type in self.job_types.items()}
        self._cached: dict[tuple[_Part, int, bytes], Any] = {}
        self._cached_bytes = 0
        self._types: dict[_Identity, type[Job]] = {}
        """The types of the objects of large jobs."""
        self._fitting = _Readable(self.job_types, stored, fits=True)
        self._doubtful = _Readable(self.job_types, stored, fits=False)

    @property
    def secret_members(self) -> frozenset[str]:
        """The members of ``JobPayloadInput`` whose payloads hold secrets."""
        return frozenset(payload_member(one) for one in self.job_types.values() if has_secrets(one.payload))

    def present(self, job: model.Job) -> Job:
        """Return the job as an object of its type, or an UnknownJob. Never fails."""
        job_type = self.job_types.get(job.spec.type)
        if job_type is not None:
            of_payload, of_result = self._parts[job_type.name]
            stored_payload, stored_result = job.spec.payload, job.result
            if job.spec.encoded or job.result_encoded:
                stored_payload, stored_result = self._doubtful.decoded(job)
            payload = self._shown(of_payload, stored_payload)
            result = None
            if of_result is not None and stored_result not in (None, model.NO_RESULT):
                result = self._shown(of_result, stored_result)
            if payload is not _UNREADABLE and result is not _UNREADABLE:
                shown = self.objects[job_type.name](
                    source=job, readable=self._fitting, shown_payload=payload, shown_result=result
                )
                return cast("Job", shown)
        return UnknownJob(source=job, readable=self._doubtful)

    def present_unread(self, job: model.Job) -> Job:
        """Return a job that was read without payload and result as an object whose type nobody may ask for."""
        return cast("Job", self.objects.get(job.spec.type, UnknownJob)(source=job, readable=self._doubtful))

    async def present_by_type(self, job: model.Job, reader: Reader) -> Job:
        """Return a job that was read without payload and result as an object of the type that it has with them.

        They are read only if that is not known yet, one job at a time, and are not kept.
        """
        known = self._types.get(_identity(job))
        if known is None:
            async with reader.of_large_jobs:
                known = self._types.get(_identity(job)) or await self._type_of_stored(job, reader)
        return known(source=job, readable=self._doubtful)

    async def _type_of_stored(self, job: model.Job, reader: Reader) -> type[Job]:
        if job.spec.type not in self.job_types:
            return UnknownJob
        stored = await reader.job(job.id)
        if stored is None:
            # It has expired since the page was read.
            return self.objects[job.spec.type]
        if len(self._types) >= _MAX_CACHED:
            self._types.clear()
        known = type(self.present(stored))
        self._types[_identity(stored)] = known
        return known

    def _shown(self, part: "_Part", stored: Raw) -> Any:
        # Cached, because validation is slow (an e-mail address) and pages show the same jobs again. The key is a digest
        # made here: the hash beside a payload may be wrong in a message that a foreign writer has stored.
        key = (part, part.readings, blake2b(stored, digest_size=20).digest())
        shown = self._cached.get(key, _UNKNOWN)
        if shown is _UNKNOWN:
            shown = part.show(bytes(stored))
            size = len(stored) if len(stored) <= _MAX_CACHED_TEXT else 0
            if len(self._cached) >= _MAX_CACHED or self._cached_bytes + size > _MAX_CACHED_BYTES:
                self._cached.clear()
                self._cached_bytes = 0
            self._cached_bytes += size
            self._cached[key] = shown if size or shown is _UNREADABLE else _UNREAD
        return shown


class _Readable:
    """What is stored of jobs, as everybody but their handlers may see it.

    :param fits: whether the payloads are known to be read by the models of their types.
    """

    def __init__(self, job_types: dict[str, JobType], stored: StoredPayloads, *, fits: bool) -> None:
        self._job_types = job_types
        self._stored = stored
        self._fits = fits
        self._with_secrets = frozenset(name for name, one in job_types.items() if has_secrets(one.payload))
        self._with_secret_results = frozenset(
            name for name, one in job_types.items() if one.result is not None and has_secrets(one.result)
        )

    def decoded(self, job: model.Job) -> tuple[Raw, Raw | None]:
        """Return payload and result with their secrets, or ``_NO_JSON`` for what a codec cannot decode here."""
        if not job.spec.encoded and not job.result_encoded:
            return job.spec.payload, job.result
        return self._payload_of(job), self._result_of(job)

    def _payload_of(self, job: model.Job) -> Raw:
        try:
            return self._stored.payload(job.id, job.spec)
        except CodecFailure as failure:
            log.warning("jobs are shown without their payload: %s", failure)
            return _NO_JSON

    def _result_of(self, job: model.Job) -> Raw | None:
        try:
            return self._stored.result(job)
        except CodecFailure as failure:
            log.warning("jobs are shown without their result: %s", failure)
            return _NO_JSON

    def payload(self, job: model.Job) -> Raw:
        """Return the payload as JSON without its secrets; ``REDACTED`` if neither marks nor its model tell of them."""
        spec = job.spec
        if self._fits and not spec.secrets and not spec.encoded and spec.type not in self._with_secrets:
            return spec.payload
        plain = self._payload_of(job) if spec.encoded else spec.payload
        job_type = self._job_types.get(spec.type)
        marks = marks_for(job_type.payload if job_type is not None else None, plain, spec.secrets)
        if marks:
            return redacted(plain, marks)
        if self._fits or (job_type is not None and _reads(job_type.payload, plain)):
            return plain
        return _REDACTED

    def result(self, job: model.Job) -> Raw | None:
        """Return the result as JSON, without the secrets that its model declares; None if there is none."""
        if not job.result_encoded and job.spec.type not in self._with_secret_results:
            return job.result
        plain, job_type = self._result_of(job), self._job_types.get(job.spec.type)
        if plain is _NO_JSON:
            return _REDACTED
        if plain is None or job_type is None or job_type.result is None:
            return plain
        return redacted_result(job_type.result, plain)


_NO_JSON = Raw(b"")
_REDACTED = Raw(msgspec.json.encode(REDACTED))


def _reads(model_class: type[BaseModel], stored: Raw) -> bool:
    try:
        read(model_class, bytes(stored))
    except ValueError:
        return False
    return True


_Identity: TypeAlias = tuple[str, datetime, int]


def _identity(job: model.Job) -> _Identity:
    """Return what tells a job's payload and result from any others without reading them.

    A payload never changes, but the id of an expired job may be given again for the same idempotency key. A result
    comes with the event that completes the job.
    """
    return job.id, job.spec.created_at, job.event_seq if job.status is model.JobStatus.COMPLETED else 0


def _names_within(job_types: Mapping[str, JobType]) -> Mapping[Any, str]:
    """Return the names of the types within payloads and results.

    :raises ValueError: if those of two job types have the same names, or cannot be told apart.
    """
    taken = set(RESERVED)
    for job_type in job_types.values():
        for part in ("Job", "Payload", "PayloadInput", *(("Result",) if job_type.result is not None else ())):
            name = type_stem(job_type) + part
            if name in taken:
                raise ValueError(f"The GraphQL type {name!r} of a job type is taken; give the job type another name.")
            taken.add(name)
    payloads = {f"{type_stem(one)}Payload": one.payload for one in job_types.values()}
    results = {f"{type_stem(one)}Result": one.result for one in job_types.values() if one.result is not None}
    return type_names(payloads, results, taken)


def type_stem(job_type: JobType) -> str:
    """Return what the names of a job type's GraphQL types begin with: ``Email`` in ``EmailJob``, ``EmailPayload``."""
    return to_pascal(job_type.name)


def payload_member(job_type: JobType) -> str:
    """Return the name of the type's member in the @oneOf input ``JobPayloadInput``."""
    return to_camel(job_type.name)


class _Part:
    """The payload or the result of a job type. One that ``may_be_null`` may lack a field that GraphQL cannot write."""

    def __init__(self, model_class: type[BaseModel], shape: Shape, *, may_be_null: bool) -> None:
        self._model = model_class
        self._may_be_null = may_be_null
        self.shape = shape
        self.readings = 0
        """Grows when the model reads no more what it could read: what is known of its objects holds no more, then."""

    def show(self, stored: bytes) -> Any:
        """Return the object for GraphQL, or ``_UNREADABLE``, whatever code of the model does."""
        try:
            value = read(self._model, stored)
            shown = self.shape.show(value)
            if has_secrets(self._model):
                # Code of the model may have put them into other fields.
                shown = hide_in_shown(shown, texts_of_secrets(value))
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001  # models run code of their users
            return _UNREADABLE
        return shown if self._may_be_null or not is_lacking(shown) else _UNREADABLE

    def selected(self, name: str, shown: Any, stored: Raw, budget: Budget) -> Any:
        """Return the object where it is selected.

        :raises Unrepresentable: if the model could read it a moment ago, and no more.
        """
        budget.take(size=len(stored))
        shown = self.show(bytes(stored)) if shown is _UNREAD else shown
        if shown is _UNREADABLE:
            self.readings += 1
            raise Unrepresentable(name)
        return shown


def _parts(job_type: JobType, payload_types: PayloadTypes) -> tuple[_Part, _Part | None]:
    """Return the payload and the result of a type; None for the result if its handler returns nothing."""
    payload = payload_types.output(job_type.payload, f"{type_stem(job_type)}Payload")
    of_payload = _Part(job_type.payload, payload, may_be_null=False)
    if job_type.result is None:
        return of_payload, None
    result = payload_types.output(job_type.result, f"{type_stem(job_type)}Result")
    return of_payload, _Part(job_type.result, result, may_be_null=True)


def _object(job_type: JobType, payload: _Part, result: _Part | None) -> type[Any]:
    stem = type_stem(job_type)

    @spends_only
    def read_payload(root: Any, info: Info) -> Any:
        plain, _ = root.readable.decoded(root.source)
        return payload.selected("payload", root.shown_payload, plain, info.context.budget)

    private = cast("Any", strawberry.Private)[Any]
    members = {
        "__module__": __name__,
        "__annotations__": {"shown_payload": private, "shown_result": private},
        "shown_payload": _UNREAD,
        "shown_result": _UNREAD,
        "payload": strawberry.field(
            resolver=read_payload, graphql_type=payload.shape.type, description="What was asked for, as created."
        ),
    }
    if result is not None:
        members["result"] = _result_field(result)
    new_type = types.new_class(f"{stem}Job", (Job,), {}, lambda namespace: namespace.update(members))
    description = job_type.description or f"A job of type `{job_type.name}`, with its own payload and result."
    return strawberry.type(new_type, name=f"{stem}Job", description=description)


def _result_field(result: _Part) -> Any:
    @spends_only
    def read_result(root: Any, info: Info) -> Any:
        _, plain = root.readable.decoded(root.source)
        # A type may have been given a result after the job has completed without one.
        if plain is None or plain == model.NO_RESULT:
            return None
        return result.selected("result", root.shown_result, plain, info.context.budget)

    return strawberry.field(
        resolver=read_result,
        graphql_type=result.shape.type | None,
        description="What came of it; null until the job has completed.",
    )
