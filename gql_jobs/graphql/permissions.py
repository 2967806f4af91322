"""Who may begin which root field: the one table of scopes, and the one place that enforces it.

The engine asks ``permit`` where a root field of a query or mutation begins, where a subscription begins, and when its
viewer has become another one. Which jobs such a field then finds is the matter of ``Visibility``.
"""

from typing import TypeAlias

from gql_jobs.graphql.context import Context
from gql_jobs.jobs.errors import Forbidden, Unauthenticated
from gql_jobs.jobs.viewer import Scope

Needs: TypeAlias = tuple[tuple[Scope, ...], ...]
"""Sets of scopes, of each of which a viewer needs one."""

_SEE: Needs = ((Scope.READ, Scope.CREATE),)
"""With CREATE alone a viewer sees what it has created."""
_CREATE: Needs = ((Scope.CREATE,),)
_CONTROL: Needs = ((Scope.CONTROL,), *_SEE)
"""Whoever controls a job is shown it, so it has to be one that the viewer may see."""
_ACT: Needs = ((Scope.CONTROL, Scope.OPERATE), *_SEE)
"""Which of them it takes depends on the action (``jobs.bulk.NEEDS``)."""
_OPERATE: Needs = ((Scope.OPERATE,), *_SEE)
"""Whoever steers a queue is shown it, and whoever deletes a job has to be one that may see it."""
_KNOWN: Needs = ()
"""Whoever has a key or a token that is valid, whatever its scopes."""

PERMISSIONS: dict[str, Needs] = {
    "Query.__typename": _KNOWN,
    "Query.__schema": _KNOWN,
    "Query.__type": _KNOWN,
    "Query.viewer": _KNOWN,
    "Query.job": _SEE,
    "Query.jobs": _SEE,
    "Query.jobTypes": _SEE,
    "Query.deadLetterGroups": _SEE,
    "Query.bulkRun": _SEE,
    "Query.queues": _SEE,
    "Query.workers": _SEE,
    "Query.schedules": _SEE,
    "Query.schedule": _SEE,
    "Query.schedulePreview": _SEE,
    "Query.serverStatus": _SEE,
    "Mutation.__typename": _KNOWN,
    "Mutation.createJob": _CREATE,
    "Mutation.createJobs": _CREATE,
    "Mutation.createRawJobs": _CREATE,
    "Mutation.cancelJob": _CONTROL,
    "Mutation.updateJob": _CONTROL,
    "Mutation.retryJob": _CONTROL,
    "Mutation.retryJobs": _CONTROL,
    "Mutation.planBulk": _ACT,
    "Mutation.runBulk": _ACT,
    "Mutation.stopBulk": _ACT,
    "Mutation.deleteJob": _OPERATE,
    "Mutation.pauseQueue": _OPERATE,
    "Mutation.resumeQueue": _OPERATE,
    "Mutation.upsertSchedule": _OPERATE,
    "Mutation.upsertRawSchedule": _OPERATE,
    "Mutation.pauseSchedule": _OPERATE,
    "Mutation.deleteSchedule": _OPERATE,
    "Mutation.runSchedule": _OPERATE,
    "Mutation.setQueueLimits": _OPERATE,
    "Mutation.createViewToken": _KNOWN,
    "Mutation.revokeToken": _KNOWN,
    "Mutation.renewAccess": _KNOWN,
    "Subscription.jobProgress": _SEE,
    "Subscription.jobEvents": _SEE,
    "Subscription.jobsChanged": _SEE,
    "Subscription.bulkProgress": _SEE,
    "Subscription.queuesChanged": _SEE,
    "Subscription.workersChanged": _SEE,
    "Subscription.serverStatusChanged": _SEE,
}
"""The scopes that a viewer needs to begin a root field; any known viewer may begin one that lists none.

A field that is not here may be begun by nobody.
"""

_AFTER_THE_END = frozenset({"Mutation.renewAccess"})
"""What may be begun although the credential has ended."""


def permit(context: Context, root: str, field: str) -> None:
    """Let a root field begin, or say why not.

    Nothing is said of its arguments, which nobody has looked at yet.

    :param root: the name of its type: Query, Mutation or Subscription.
    :raises Unauthenticated: if the session's credential has ended.
    :raises Forbidden: if the viewer lacks a scope that the field needs, or the field is not in the table.
    """
    name, session = f"{root}.{field}", context.session
    if session.has_ended and name not in _AFTER_THE_END:
        raise Unauthenticated
    needs = PERMISSIONS.get(name)
    if needs is None:
        raise Forbidden(f"Nobody may ask for {field}.")
    for scopes in needs:
        if session.viewer.scopes.isdisjoint(scopes):
            raise Forbidden(f"{field} needs the scope {named(needs)}, which this key or token does not have.")


def named(needs: Needs) -> str:
    """Return the scopes that are needed, in words."""
    return ", and ".join(" or ".join(scope.name for scope in scopes) for scopes in needs)
