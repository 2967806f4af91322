"""The public API: the GraphQL schema, made from the registered job types, and its resolvers."""

# The enums belong to other packages and are described in place: before any module here makes a type that uses one.
from gql_jobs.graphql import scalars_and_enums as scalars_and_enums
