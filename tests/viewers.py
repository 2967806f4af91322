"""Viewers of tests: who asks, with which tenant and which limits."""

from typing import Any

from gql_jobs.jobs.viewer import NO_LIMITS, Scope, Viewer, ViewLimits


def viewer(subject: str = "ada", tenant: str | None = None, *scopes: Scope, **limits: Any) -> Viewer:
    """A viewer with all scopes unless some are named; the limits are lists of names."""
    given = ViewLimits(**{kind: frozenset(names) for kind, names in limits.items()}) if limits else NO_LIMITS
    return Viewer(subject, frozenset(scopes or Scope), tenant, given)
