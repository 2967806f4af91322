"""The GraphQL types of the registered job types, and how a stored job becomes an object of one of them.

A job that its type cannot describe (any more) becomes an UnknownJob; presenting a job never fails.
"""

import types
from enum import Enum
from hashlib import blake2b
from typing import Any, cast

import strawberry
from msgspec import Raw
from pydantic import BaseModel
from pydantic.alias_generators import to_camel, to_pascal

from gql_jobs.graphql.context import Info
from gql_jobs.graphql.engine.budget import Budget, spends_only
from gql_jobs.graphql.job_types import Job, UnknownJob
from gql_jobs.graphql.payload_types import PayloadTypes, Shape, TypeNames
from gql_jobs.jobs import model
from gql_jobs.jobs.payloads import ModelMismatch, read
from gql_jobs.jobs.registry import JobType, Registry

_MAX_CACHED = 20_000
"""Checks that are cached; then the cache is emptied."""
_INT_END = 2**31
"""GraphQL's Int has 32 bits."""


class RegisteredTypes:
    """The job types of one schema, and the GraphQL types made of them.

    ``objects`` has the object type of each job type by its name, ``inputs`` the input type of its payload.

    :raises ValueError: if the registry has no types, or two that would have the same names in GraphQL.
    """

    def __init__(self, registry: Registry) -> None:
        self.job_types = {job_type.name: job_type for job_type in registry}
        if not self.job_types:
            raise ValueError("No job type is registered: there is nothing to make a schema of.")
        names = TypeNames()
        payload_types = PayloadTypes(names)
        # All names that follow from job types first, so that no nested model takes one of them.
        for job_type in self.job_types.values():
            for part in ("Job", "Payload", "Result", "PayloadInput"):
                names.reserve(type_stem(job_type) + part, job_type)
        self.objects = {name: _object(job_type, payload_types) for name, job_type in self.job_types.items()}
        self.inputs = {
            name: payload_types.input(job_type.payload, f"{type_stem(job_type)}PayloadInput")
            for name, job_type in self.job_types.items()
        }
        self._is_readable: dict[tuple[type[BaseModel], bytes], bool] = {}

    def present(self, job: model.Job) -> Job:
        """Return the job as an object of its type, or an UnknownJob. Never fails."""
        job_type = self.job_types.get(job.spec.type)
        if job_type is None or not self._fits(job_type, job):
            return UnknownJob(source=job)
        return cast("Job", self.objects[job_type.name](source=job))

    def present_unread(self, job: model.Job) -> Job:
        """Return a job that was read without payload and result as an object whose type nobody may ask for."""
        return cast("Job", self.objects.get(job.spec.type, UnknownJob)(source=job))

    def _fits(self, job_type: JobType, job: model.Job) -> bool:
        return self._reads(job_type.payload, job.spec.payload) and (
            job.result is None or self._reads(job_type.result, job.result)
        )

    def _reads(self, model_class: type[BaseModel], stored: Raw) -> bool:
        # Cached, because validation is slow (an e-mail address) and pages show the same jobs again. The key is a digest
        # made here: the hash beside a payload may be wrong in a message that a foreign writer has stored.
        key = (model_class, blake2b(stored, digest_size=20).digest())
        is_readable = self._is_readable.get(key)
        if is_readable is None:
            is_readable = _reads(model_class, bytes(stored))
            if len(self._is_readable) >= _MAX_CACHED:
                self._is_readable.clear()
            self._is_readable[key] = is_readable
        return is_readable


def type_stem(job_type: JobType) -> str:
    """Return what the names of a job type's GraphQL types begin with: ``Email`` in ``EmailJob``, ``EmailPayload``."""
    return to_pascal(job_type.name)


def payload_member(job_type: JobType) -> str:
    """Return the name of the type's member in the @oneOf input ``JobPayloadInput``."""
    return to_camel(job_type.name)


def _reads(model_class: type[BaseModel], stored: bytes) -> bool:
    try:
        return _expressible(read(model_class, stored))
    except (ModelMismatch, RecursionError):
        return False


def _expressible(value: Any) -> bool:
    """Return whether GraphQL can write the value: an Int beyond 32 bits would turn the whole page into an error."""
    if isinstance(value, BaseModel):
        return all(_expressible(part) for part in value.__dict__.values())
    if isinstance(value, list | tuple | set | frozenset):
        return all(_expressible(item) for item in value)
    return not isinstance(value, int) or isinstance(value, Enum) or -_INT_END <= value < _INT_END


def _object(job_type: JobType, payload_types: PayloadTypes) -> type[Any]:
    stem = type_stem(job_type)
    payload = payload_types.output(job_type.payload, f"{stem}Payload")
    result = payload_types.output(job_type.result, f"{stem}Result")

    @spends_only
    def read_payload(root: Any, info: Info) -> Any:
        return _shown(payload, job_type.payload, root.source.spec.payload, info.context.budget)

    @spends_only
    def read_result(root: Any, info: Info) -> Any:
        stored = root.source.result
        return _shown(result, job_type.result, stored, info.context.budget) if stored is not None else None

    members = {
        "__module__": __name__,
        "payload": strawberry.field(
            resolver=read_payload, graphql_type=payload.type, description="What was asked for, as created."
        ),
        "result": strawberry.field(
            resolver=read_result,
            graphql_type=result.type | None,
            description="What came of it; null until the job has completed.",
        ),
    }
    new_type = types.new_class(f"{stem}Job", (Job,), {}, lambda namespace: namespace.update(members))
    description = job_type.description or f"A job of type `{job_type.name}`, with its own payload and result."
    return strawberry.type(new_type, name=f"{stem}Job", description=description)


def _shown(shape: Shape, model_class: type[BaseModel], stored: Raw, budget: Budget) -> Any:
    budget.take(size=len(stored))
    value = read(model_class, bytes(stored))
    return value.model_dump(mode="json", by_alias=True) if shape.plain else value
