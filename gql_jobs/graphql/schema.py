"""The schema, made from a registry. The only place that puts the parts of the API together."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import strawberry
from graphql import DocumentNode, GraphQLError, GraphQLSyntaxError, parse
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from gql_jobs.graphql.documents import Documents, KnownDocuments
from gql_jobs.graphql.enums import ErrorCode
from gql_jobs.graphql.errors import ErrorCodes
from gql_jobs.graphql.event_types import EVENT_TYPES
from gql_jobs.graphql.hooks import EventExecutor, call_directly, core_schema, describe_one_of, enforce_one_of
from gql_jobs.graphql.inputs import create_job_input
from gql_jobs.graphql.job_types import UnknownJob
from gql_jobs.graphql.limits import EnforcedLimits, OperationLimits, parse_options
from gql_jobs.graphql.mutations import mutations
from gql_jobs.graphql.plain_fields import PlainExecutor
from gql_jobs.graphql.queries import Query
from gql_jobs.graphql.registered import RegisteredTypes
from gql_jobs.graphql.scalars import SCALARS
from gql_jobs.graphql.subscriptions import Subscription
from gql_jobs.graphql.timing import OperationTimes, TimedOperation
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
        self.registered = registered
        self.documents = Documents()
        self.times = OperationTimes(frozenset(named))
        self._parse_options = parse_options(limits) if limits is not None else {}
        mutation = mutations(registered, create_job_input(registered))
        describe_one_of()
        types: list[Any] = [UnknownJob, *registered.objects.values(), *EVENT_TYPES.values(), ErrorCode]
        super().__init__(
            query=Query,
            mutation=mutation.type,
            subscription=Subscription,
            types=types,
            extensions=self._extensions(limits),
            execution_context_class=executor,
            config=StrawberryConfig(scalar_map=SCALARS),
        )
        enforce_one_of(self, "JobPayloadInput")
        for name, resolver in mutation.resolvers.items():
            call_directly(self, "Mutation", name, resolver)
        roots = (core_schema(self).query_type, core_schema(self).mutation_type)
        self.times.fields = frozenset(name for root in roots if root is not None for name in root.fields)

    def _extensions(self, limits: OperationLimits | None) -> list[Callable[[], SchemaExtension]]:
        """Factories, because an instance would be shared by requests that run at the same time."""
        timed, known = partial(TimedOperation, self.times), partial(KnownDocuments, self.documents)
        enforced = [] if limits is None else [partial(EnforcedLimits, limits, self.documents)]
        return [timed, ErrorCodes, known, *enforced]

    def parse(self, text: str) -> DocumentNode | None:
        """The syntax tree of a document; None where it cannot be read, which its execution says."""
        known = self.documents.find(text)
        if known is not None:
            return known.document
        try:
            return parse(text, **self._parse_options)
        except GraphQLSyntaxError:
            return None

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Nothing: ``ErrorCodes`` logs what is unexpected, and a refusal is no news for the log."""


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
