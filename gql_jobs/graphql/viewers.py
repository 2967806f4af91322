"""Who asks, as the API shows it, and the tokens that a viewer has made for others."""

# Strawberry types its decorators as Any.
# mypy: disable-error-code="untyped-decorator"

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Self

import strawberry
from msgspec.structs import replace

from gql_jobs.access.view_tokens import IssuedToken
from gql_jobs.graphql.context import Info
from gql_jobs.jobs import viewer as viewers
from gql_jobs.jobs.errors import GqlJobsError, InvalidArgument
from gql_jobs.jobs.model import parse_job_id
from gql_jobs.jobs.requests import MAX_TAGS, MAX_TEXT
from gql_jobs.jobs.viewer import NO_LIMITS, Names, Scope

LARGEST_LIMITS = {"ids": 500, "tags": MAX_TAGS, "types": 100, "queues": 100}
"""Items that each list of the limits of a view token may have."""
DEFAULT_TTL = 900
"""Seconds that a view token lasts where nothing is said."""
DEFAULT_JOB_TTL = 3600
"""Seconds that the view token of a created job lasts where nothing is said."""


# Who asks.


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


# Tokens for others.


@strawberry.input(
    description="Which jobs a view token is for: they have to be within each kind that is given, and need one entry of "
    "a kind. What is left out or null stays as the maker of the token has it; an empty list lets no job through."
)
class ViewLimitsInput:
    """The input ``ViewLimitsInput``, which ``limits_of`` translates."""

    ids: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="Just these jobs, at most 500; an id that is no UUID lets none through."
    )
    tags: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Jobs that carry one of these tags or more, at most 32."
    )
    types: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Jobs of these job types, at most 100."
    )
    queues: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Jobs in these queues, at most 100."
    )


@strawberry.input(description="For which jobs, with which rights and for how long a view token is.")
class CreateViewTokenInput:
    """The input ``CreateViewTokenInput``; a resolver is given its fields as a dictionary."""

    limited_to: ViewLimitsInput = strawberry.field(description="Which jobs there are for whoever has the token.")
    scopes: list[Scope] | None = strawberry.field(
        default_factory=lambda: [Scope.READ],
        description="What may be done with it; none that the viewer who makes it does not have.",
    )
    ttl_seconds: int | None = strawberry.field(
        default=DEFAULT_TTL,
        description="How long it lasts: 1 to 2592000, which are 30 days, and no longer than what it is made with.",
    )


@strawberry.type(
    description="A key to some jobs for a browser, say: narrower than the viewer who has made it, signed, and ended by "
    "its time, by `revokeToken`, or with the key or token that it was made with."
)
class ViewToken:
    """A view token as it is shown once."""

    token: str = strawberry.field(
        description="What is sent as `Authorization: Bearer …`, or in `connection_init`. It is not kept here, and is "
        "never part of an address."
    )
    id: strawberry.ID = strawberry.field(description="What `revokeToken` takes; it opens nothing.")
    expires_at: datetime = strawberry.field(description="When it ends by itself.")

    @classmethod
    def of(cls, issued: IssuedToken) -> Self:
        """Return a token that was just made."""
        return cls(token=issued.token, id=strawberry.ID(issued.id), expires_at=issued.expires_at)


def limits_of(given: dict[str, Any], path: str) -> viewers.ViewLimits:
    """Return the limits of an input ``ViewLimitsInput``.

    :param path: where it stands in the arguments, for the errors.
    :raises InvalidArgument: for a list or a text that is longer than any that could be meant.
    """
    limits = {name: _names(f"{path}.{name}", given.get(name), most) for name, most in LARGEST_LIMITS.items()}
    if limits["ids"] is not None:
        limits["ids"] = frozenset(job_id for job_id in map(parse_job_id, limits["ids"]) if job_id is not None)
    return viewers.ViewLimits(**limits)


def _names(path: str, given: list[str] | None, most: int) -> Names:
    if given is None:
        return None
    if len(given) > most:
        raise InvalidArgument(path, f"{path} may have {most} items at most, and it has {len(given)}.")
    for number, text in enumerate(given):
        if not 1 <= len(text) <= MAX_TEXT:
            where = f"{path}.{number}"
            raise InvalidArgument(where, f"{where} has {len(text)} characters; it may have 1 to {MAX_TEXT}.")
    return frozenset(given)


def token_of_job(info: Info, job_id: str, seconds: int | None, scopes: Iterable[Scope] | None) -> ViewToken:
    """Return a token for just one job, which the viewer has created: it may be read with CREATE alone.

    It is not read any more once it is gone and somebody else has created another one with its key, and so its id.

    :raises GqlJobsError: what ``Authentication.issue`` raises, with the id of the job, which is there all the same.
    """
    viewer = info.context.session.viewer
    readable = viewer
    if not viewer.may(Scope.READ):
        readable = replace(viewer, scopes=viewer.scopes | {Scope.READ}, sees_own=True)
    limits = viewers.ViewLimits(ids=frozenset({job_id}))
    try:
        issued = info.context.services().access.issue(
            readable, limits, _given(scopes), DEFAULT_JOB_TTL if seconds is None else seconds
        )
    except GqlJobsError as error:
        error.extensions["jobId"] = job_id
        raise
    return ViewToken.of(issued)


def _given(scopes: Iterable[Scope] | None) -> Iterable[Scope]:
    return (Scope.READ,) if scopes is None else scopes


@strawberry.type(description="The outcome of `createViewToken`.")
class CreateViewTokenPayload:
    """What ``createViewToken`` returns."""

    view_token: ViewToken = strawberry.field(description="The new token; nobody can be shown it again.")


@strawberry.type(description="The outcome of `revokeToken`.")
class RevokeTokenPayload:
    """What ``revokeToken`` returns."""

    revoked: bool = strawberry.field(
        description="False for an id that is unknown, has ended, or is of somebody else: which of these is not said."
    )


@strawberry.type(description="The outcome of `renewAccess`.")
class RenewAccessPayload:
    """What ``renewAccess`` returns."""

    viewer: Viewer = strawberry.field(description="Who asks over this socket from now on.")


async def _create_view_token(
    info: Info,
    input: Annotated[  # noqa: A002 -- the schema's name
        dict[str, Any],
        strawberry.argument(description="What the token is for.", graphql_type=CreateViewTokenInput),
    ],
) -> CreateViewTokenPayload:
    limits, seconds = limits_of(input["limited_to"], "input.limitedTo"), input.get("ttl_seconds")
    issued = info.context.services().access.issue(
        info.context.session.viewer, limits, _given(input.get("scopes")), DEFAULT_TTL if seconds is None else seconds
    )
    return CreateViewTokenPayload(view_token=ViewToken.of(issued))


async def _revoke_token(
    info: Info,
    id: Annotated[strawberry.ID, strawberry.argument(description="The id of a view token or a key.")],  # noqa: A002 -- the schema's name
) -> RevokeTokenPayload:
    return RevokeTokenPayload(revoked=await info.context.services().access.revoke(info.context.session.viewer, id))


async def _renew_access(
    info: Info,
    token: Annotated[
        str, strawberry.argument(description="The other token, as a variable: a document with one in it is refused.")
    ],
) -> RenewAccessPayload:
    return RenewAccessPayload(viewer=Viewer.of(await info.context.session.renew(token)))


TOKEN_MUTATIONS = [
    strawberry.mutation(
        _create_view_token,
        name="createViewToken",
        description="Make a token for a browser, never wider than the viewer who makes it: a back end calls this.",
    ),
    strawberry.mutation(
        _revoke_token,
        name="revokeToken",
        description="End a view token, on every process within a second, with the subscriptions and streams that run "
        "under it. Whoever made a token may end it, and whoever has OPERATE those of others, and keys.",
    ),
    strawberry.mutation(
        _renew_access,
        name="renewAccess",
        description="Go on under another token of the same subject and tenant: the operations that run on this "
        "WebSocket are authorised anew, and go on or end. BAD_REQUEST over HTTP.",
    ),
]
"""The mutations that are about tokens."""


def _sorted(names: Names) -> list[str] | None:
    return None if names is None else sorted(names)
