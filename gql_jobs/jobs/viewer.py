"""Who asks, what they may do, and which jobs there are for them.

A viewer is a subject with scopes, perhaps a tenant, and limits. What a viewer may not see does not exist:
``Visibility`` is the one rule for that, part of every filter of jobs, so that pages, counts and live events follow it
alike.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gql_jobs.jobs.model import Job, Spec

Names: TypeAlias = frozenset[str] | None
"""Some names; None stands for any."""


class Scope(StrEnum):
    """What a viewer may do. READ: see jobs and their events. CREATE: create jobs, and see those.

    CONTROL: cancel and retry jobs that it may see, so it goes with READ or CREATE. OPERATE: what is about the
    installation: metrics, tokens of others.
    """

    READ = "read"
    CREATE = "create"
    CONTROL = "control"
    OPERATE = "operate"


class ViewLimits(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which jobs a credential is for. A job has to be within each kind that is given, and needs one entry of a kind.

    None is no limit; an empty set lets no job through. A kind that is unknown is refused where limits are read: without
    it they would be wider.
    """

    ids: Names = None
    tags: Names = None
    types: Names = None
    queues: Names = None

    def admit(self, job_id: str, spec: Spec) -> bool:
        """Return whether a job is within the limits."""
        return (
            (self.ids is None or job_id in self.ids)
            and (self.types is None or spec.type in self.types)
            and (self.queues is None or spec.queue in self.queues)
            and (self.tags is None or not self.tags.isdisjoint(spec.tags))
        )

    def narrowed(self, further: "ViewLimits") -> "ViewLimits | None":
        """Return these limits with those of ``further`` in the place of wider ones; None if one of them is wider."""
        kinds = {}
        for kind in self.__struct_fields__:
            mine, asked = getattr(self, kind), getattr(further, kind)
            if asked is not None and mine is not None and not asked <= mine:
                return None
            kinds[kind] = mine if asked is None else asked
        return ViewLimits(**kinds)


NO_LIMITS = ViewLimits()
_NO_JOB = ViewLimits(ids=frozenset())


class Visibility(Struct, frozen=True):
    """Which jobs there are for a viewer: those of ``tenant`` within ``limits``, created by ``created_by``.

    None is any; but with ``created_by`` and no tenant only jobs without a tenant are shown, because subjects of two
    tenants may have one name. Viewers with an equal visibility see the same of everything, so they may share what was
    made for one.
    """

    tenant: str | None = None
    limits: ViewLimits = NO_LIMITS
    created_by: str | None = None

    def shows(self, job: Job) -> bool:
        """Return whether the job exists for those who see so much."""
        return self.admits(job.id, job.spec)

    def admits(self, job_id: str, spec: Spec) -> bool:
        """Return whether a job of that id and spec exists for those who see so much; its payload plays no part."""
        return (
            (spec.tenant == self.tenant or (self.tenant is None and self.created_by is None))
            and (self.created_by is None or spec.created_by == self.created_by)
            and self.limits.admit(job_id, spec)
        )

    @property
    def is_partial(self) -> bool:
        """Whether it is of a tenant or limited, so that figures about all jobs are about those of others."""
        return self != EVERYTHING


EVERYTHING = Visibility()
NOTHING = Visibility(limits=_NO_JOB)


class Viewer(Struct, frozen=True, dict=True):
    """Who asks, as a credential or an identity provider says.

    ``credentials`` are the ids of the key or token that was given and of those it was made with: the end of any of them
    ends the viewer. ``expires_at``: when the credential ends by itself. ``sees_own``: it sees what its subject has
    created and nothing else, although it has READ.

    :raises ValueError: for a tenant without a name, which would stand for all jobs where they are counted.
    """

    subject: str
    scopes: frozenset[Scope]
    tenant: str | None = None
    limits: ViewLimits = NO_LIMITS
    expires_at: datetime | None = None
    credentials: tuple[str, ...] = ()
    sees_own: bool = False

    def __post_init__(self) -> None:
        if self.tenant == "":
            raise ValueError("a tenant has a name; None stands for the jobs of all")

    @property
    def is_known(self) -> bool:
        """Whether it was authenticated; without authentication nobody is."""
        return self is not ANYBODY

    @property
    def actor(self) -> str | None:
        """The subject, as jobs and events name it; None if nobody was authenticated."""
        return self.subject if self.is_known else None

    @cached_property
    def visibility(self) -> Visibility:
        """Which jobs there are for the viewer: with CREATE alone those that it has created, without READ too none."""
        if self.scopes.isdisjoint((Scope.READ, Scope.CREATE)):
            return NOTHING
        own = self.subject if self.sees_own or Scope.READ not in self.scopes else None
        if self.tenant is None and own is None and self.limits == NO_LIMITS:
            return EVERYTHING
        return Visibility(self.tenant, self.limits, own)

    @property
    def counted_as(self) -> str:
        """The name that limits count the viewer by: the key or token it came with, else its subject within its tenant.

        View tokens count each by itself: a back end gives many browsers one, and all have the back end's subject.
        """
        if self.credentials:
            return f"credential {self.credentials[0]}"
        return f"subject {self.subject!r} of {self.tenant!r}"

    def may(self, scope: Scope) -> bool:
        """Return whether the viewer has a scope."""
        return scope in self.scopes

    @property
    def may_operate_all(self) -> bool:
        """Whether it may do and read what is about all jobs: it has OPERATE, and neither a tenant nor limits."""
        return self.may(Scope.OPERATE) and self.tenant is None and self.limits == NO_LIMITS

    def limited(self, limits: ViewLimits, scopes: Iterable[Scope]) -> "Viewer | None":
        """Return the viewer with narrower limits and fewer scopes; None if any of them would be wider."""
        narrowed, fewer = self.limits.narrowed(limits), frozenset(scopes)
        if narrowed is None or not fewer <= self.scopes:
            return None
        return replace(self, limits=narrowed, scopes=fewer)


ANYBODY = Viewer("anonymous", frozenset(Scope))
"""The viewer where no authentication is asked for: everybody, who may do everything."""
