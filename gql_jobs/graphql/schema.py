"""The schema, made from a registry. The only place that puts the parts of the API together."""

from collections.abc import AsyncGenerator, Iterable
from typing import Any

import strawberry
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionResult

from gql_jobs.graphql.context import Context, Services
from gql_jobs.graphql.engine.fast_path import PlainExecutor
from gql_jobs.graphql.engine.limits import OperationLimits
from gql_jobs.graphql.engine.operations import Operation, OperationRequest, Operations, OperationTimes
from gql_jobs.graphql.engine.strawberry_internals import (
    EventExecutor,
    call_directly,
    core_schema,
    describe_one_of,
    enforce_one_of,
    use_python_names,
)
from gql_jobs.graphql.inputs import create_job_input
from gql_jobs.graphql.job_types import EVENT_TYPES, UnknownJob
from gql_jobs.graphql.mutations import mutations
from gql_jobs.graphql.queries import Query, find_jobs
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.graphql.scalars_and_enums import SCALARS, ErrorCode
from gql_jobs.graphql.subscriptions import Subscription
from gql_jobs.jobs.registry import Registry

_FOR_LINTERS = """\
# eslint-disable @graphql-eslint/input-name, @graphql-eslint/naming-convention -- mutations say `id`, `inputs`, `filter`
# eslint-disable @graphql-eslint/strict-id-in-types -- jobs have an identity; events, files and counts are values
# eslint-disable @graphql-eslint/relay-arguments -- pages go forward, or to an offset
# eslint-disable @graphql-eslint/no-unreachable-types -- the values of extensions.code have their place here
"""


class JobsSchema(strawberry.Schema):
    """A schema that knows the job types it was made of."""

    def __init__(
        self,
        registered: RegisteredTypes,
        limits: OperationLimits | None,
        executor: type[EventExecutor],
        named: Iterable[str],
    ) -> None:
        self.present = registered.present
        mutation = mutations(registered, create_job_input(registered))
        describe_one_of()
        types: list[Any] = [UnknownJob, *registered.objects.values(), *EVENT_TYPES.values(), ErrorCode]
        super().__init__(
            query=Query,
            mutation=mutation.type,
            subscription=Subscription,
            types=types,
            config=StrawberryConfig(scalar_map=SCALARS),
        )
        enforce_one_of(self, "JobPayloadInput")
        use_python_names(self, "CreateJobInput")
        call_directly(self, "Query", "jobs", find_jobs)
        for name, resolver in mutation.resolvers.items():
            call_directly(self, "Mutation", name, resolver)
        core = core_schema(self)
        roots = (core.query_type, core.mutation_type)
        fields = frozenset(name for root in roots if root is not None for name in root.fields)
        self.times = OperationTimes(frozenset(named), fields)
        self.operations = Operations(core, executor, limits, self.times)

    async def execute(  # type: ignore[override]
        self,
        query: str,
        variable_values: dict[str, Any] | None = None,
        context_value: Context | None = None,
        operation_name: str | None = None,
    ) -> ExecutionResult:
        """The result of one query or mutation, as ``operations`` runs it."""
        return await self.operations.execute(self._operation(query, variable_values, context_value, operation_name))

    async def subscribe(  # type: ignore[override]
        self,
        query: str,
        variable_values: dict[str, Any] | None = None,
        context_value: Context | None = None,
        operation_name: str | None = None,
    ) -> AsyncGenerator[ExecutionResult, None]:
        """The results of one subscription, as ``operations`` runs it."""
        return self.operations.subscribe(self._operation(query, variable_values, context_value, operation_name))

    def _operation(
        self, query: str, variables: dict[str, Any] | None, context: Context | None, name: str | None
    ) -> Operation:
        return self.operations.operation(OperationRequest(query, variables, name), context or Context(_nothing_open))


def _nothing_open() -> Services:
    raise AttributeError("no services are open")


def build_schema(
    registry: Registry,
    limits: OperationLimits | None = None,
    *,
    plain_fields: bool = True,
    named: Iterable[str] = (),
) -> JobsSchema:
    """The schema for the types of a registry; call it anew after the registry has changed.

    :param limits: what one operation may ask for; left out for a schema that is only read.
    :param plain_fields: read plain fields past GraphQL's executor.
    :param named: names of operations that are timed one by one.
    :raises ValueError: for a registry without types, or with names that GraphQL cannot keep apart.
    """
    return JobsSchema(RegisteredTypes(registry), limits, PlainExecutor if plain_fields else EventExecutor, named)


def sdl(registry: Registry) -> str:
    """The schema as text, as ``schema.graphql`` holds it."""
    return f"{_FOR_LINTERS}\n{build_schema(registry).as_str().strip()}\n"
