"""The schema of a registry: the one module that puts the parts of the API together."""

from collections.abc import AsyncGenerator, Iterable
from typing import Any

import strawberry
from strawberry.schema.config import StrawberryConfig

from gql_jobs.graphql.context import Context, Services
from gql_jobs.graphql.engine.budget import OperationLimits
from gql_jobs.graphql.engine.documents import OperationRequest
from gql_jobs.graphql.engine.operations import Operation, Operations, Result
from gql_jobs.graphql.engine.strawberry_internals import describe_one_of
from gql_jobs.graphql.inputs import LARGEST_LISTS
from gql_jobs.graphql.job_lists import CHANGE_TYPES
from gql_jobs.graphql.job_types import EVENT_TYPES, UnknownJob
from gql_jobs.graphql.mutations import PAYLOADS, mutation_type
from gql_jobs.graphql.permissions import permit
from gql_jobs.graphql.queries import Query
from gql_jobs.graphql.registered_types import RegisteredTypes
from gql_jobs.graphql.scalars_and_enums import SCALARS, ErrorCode
from gql_jobs.graphql.subscriptions import Subscription
from gql_jobs.graphql.viewers import LARGEST_LIMITS
from gql_jobs.jobs.payload_codec import StoredPayloads
from gql_jobs.jobs.registry import Registry
from gql_jobs.jobs.requests import MAX_TAGS

_FOR_LINTERS = """\
# eslint-disable @graphql-eslint/input-name, @graphql-eslint/naming-convention -- mutations say `id`, `inputs`, `filter`
# eslint-disable @graphql-eslint/strict-id-in-types -- jobs have an identity; events, files and counts are values
# eslint-disable @graphql-eslint/relay-arguments -- pages go forward, or to an offset
# eslint-disable @graphql-eslint/no-unreachable-types -- the values of extensions.code have their place here
"""


LISTS = {
    "JobFilter": LARGEST_LISTS,
    "CreateJobInput": {"tags": MAX_TAGS},
    "UpdateJobInput": {"tags": MAX_TAGS},
    "ScheduleInput": {"tags": MAX_TAGS},
    "ViewLimitsInput": LARGEST_LIMITS,
}
"""Items that lists in inputs may have: those of payloads have a limit for all."""
SECRETS = {"renewAccess": "token"}
"""The arguments of root fields that have to come as variables, because documents are kept."""


class JobsSchema(strawberry.Schema):
    """The schema of some registered job types.

    ``operations`` runs it, in the place of Strawberry's own ``execute``; ``present`` makes the GraphQL object of a job.
    """

    def __init__(
        self, registered: RegisteredTypes, limits: OperationLimits | None, *, plain_fields: bool, named: Iterable[str]
    ) -> None:
        describe_one_of()
        objects = [UnknownJob, *registered.objects.values()]
        types: list[Any] = [*objects, *EVENT_TYPES.values(), *CHANGE_TYPES.values(), ErrorCode]
        super().__init__(
            query=Query,
            mutation=mutation_type(registered),
            subscription=Subscription,
            types=types,
            config=StrawberryConfig(scalar_map=SCALARS),
        )
        self._operate(registered, limits, plain_fields=plain_fields, named=named)

    def _operate(
        self, registered: RegisteredTypes, limits: OperationLimits | None, *, plain_fields: bool, named: Iterable[str]
    ) -> None:
        """Set what this object has beside its definition, which is by far the slowest part of it to make."""
        self.present = registered.present
        self.present_unread = registered.present_unread
        self.present_by_type = registered.present_by_type
        payloads = PAYLOADS._replace(secret=registered.secret_members)
        self.operations = Operations(
            self, payloads, permit, limits, LISTS, secrets=SECRETS, plain_fields=plain_fields, named=named
        )

    async def execute(  # type: ignore[override]  # a result of ours
        self,
        query: str,
        variable_values: dict[str, Any] | None = None,
        context_value: Context | None = None,
        operation_name: str | None = None,
    ) -> Result:
        """Run one query or mutation and return its result; whatever fails is an error in it."""
        return await self.operations.result(self._operation(query, variable_values, context_value, operation_name))

    async def subscribe(  # type: ignore[override]  # results of ours
        self,
        query: str,
        variable_values: dict[str, Any] | None = None,
        context_value: Context | None = None,
        operation_name: str | None = None,
    ) -> AsyncGenerator[Result, None]:
        """Run one subscription and return its results; whatever fails is an error in the last of them."""
        return self.operations.results(self._operation(query, variable_values, context_value, operation_name))

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
    stored: StoredPayloads | None = None,
) -> JobsSchema:
    """Return the schema for the types of a registry; call it anew after the registry has changed.

    :param limits: what one operation may ask for; None for a schema that is only printed.
    :param plain_fields: read plain fields without graphql-core's executor.
    :param named: names of operations that have a label of their own in the metrics.
    :param stored: how payloads and results are stored; as they are by default.
    :raises ValueError: if the registry has no types, or two that would have the same names in GraphQL.
    """
    return JobsSchema(RegisteredTypes(registry, stored), limits, plain_fields=plain_fields, named=named)


def sdl(registry: Registry) -> str:
    """Return the schema of a registry in SDL, the text of ``schema.graphql``."""
    return f"{_FOR_LINTERS}\n{build_schema(registry).as_str().strip()}\n"
