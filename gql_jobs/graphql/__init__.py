"""The public API: the GraphQL schema, made from the registered job types, and its resolvers."""
