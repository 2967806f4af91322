"""Who asks, as the API shows it, and the tokens that a viewer has made for others."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from datetime import datetime
from typing import Self

import strawberry

from gql_jobs.graphql.context import Info
from gql_jobs.jobs import viewer as viewers
from gql_jobs.jobs.viewer import NO_LIMITS, Names, Scope


@strawberry.type(
    description="What narrows a viewer to some jobs: one has to be within each kind that is given, and needs one entry "
    "of a kind. A kind that is null is no limit; an empty list lets no job through."
)
class ViewLimits:
    """The limits of a viewer as clients see them."""

    ids: list[strawberry.ID] | None = strawberry.field(description="Just these jobs.")
    tags: list[str] | None = strawberry.field(description="Jobs that carry one of these tags or more.")
    types: list[str] | None = strawberry.field(description="Jobs of these job types, named as `Job.type` says it.")
    queues: list[str] | None = strawberry.field(description="Jobs in these queues, whatever their type.")

    @classmethod
    def of(cls, limits: viewers.ViewLimits) -> Self | None:
        """Return the limits, or None where there are none."""
        if limits == NO_LIMITS:
            return None
        ids = _sorted(limits.ids)
        return cls(
            ids=None if ids is None else list(map(strawberry.ID, ids)),
            tags=_sorted(limits.tags),
            types=_sorted(limits.types),
            queues=_sorted(limits.queues),
        )


@strawberry.type(description="Whoever asks, as the key or token says that was sent; `anonymous` where none is needed.")
class Viewer:
    """A viewer as clients see it."""

    subject: str = strawberry.field(
        description="Who it is: `key:` and the name of an API key, or the subject that the identity provider named. "
        "What is done is recorded under it (`Job.createdBy`, `JobEvent.actor`)."
    )
    scopes: list[Scope] = strawberry.field(description="What may be done; each field of the root needs one of some.")
    tenant: str | None = strawberry.field(
        description="The tenant whose jobs alone there are, and to which new ones belong; null for those of all."
    )
    limited_to: ViewLimits | None = strawberry.field(
        description="Which of these jobs there are for the viewer; null for every one."
    )
    expires_at: datetime | None = strawberry.field(
        description="When the key or token ends by itself; `renewAccess` on a WebSocket goes on under another one."
    )

    @classmethod
    def of(cls, viewer: viewers.Viewer) -> Self:
        """Return the viewer as clients see it."""
        return cls(
            subject=viewer.subject,
            scopes=[scope for scope in Scope if viewer.may(scope)],
            tenant=viewer.tenant,
            limited_to=ViewLimits.of(viewer.limits),
            expires_at=viewer.expires_at,
        )


def viewer_of(info: Info) -> Viewer:
    """Return who asks."""
    return Viewer.of(info.context.session.viewer)


def _sorted(names: Names) -> list[str] | None:
    return None if names is None else sorted(names)
