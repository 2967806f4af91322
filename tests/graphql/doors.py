"""An installation of two tenants, the viewers that come to it, and what each of them is to find behind each field."""

import io
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from msgspec import Struct

from gql_jobs.graphql.context import Context, Session
from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.jobs.bulk import BulkAction
from gql_jobs.jobs.model import JobStatus
from gql_jobs.jobs.recurrence import Recurrence
from gql_jobs.jobs.requests import JobFilter
from gql_jobs.jobs.viewer import Scope, Viewer, ViewLimits
from gql_jobs.log.job_log import job_events, open_job_log
from gql_jobs.log.schedules import ScheduleDefinition
from gql_jobs.settings import Settings
from gql_jobs.web.runtime import Runtime, open_runtime
from tests.by_hand import bring_to
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import JOB_TYPES, running_worker
from tests.stories import accepted, request
from tests.viewers import viewer

ADA = viewer("ada", "acme")
BOB = viewer("bob", "bolt")
KIM = viewer("kim", "acme", Scope.CREATE)
EVE = viewer("eve", "acme", Scope.READ)
VIEWERS = ("reader", "stranger", "one_job", "creator", "ended")
SHOWN, HIDDEN = "shown", "hidden"


class Installation(Struct):
    """Jobs of the tenants acme and bolt: viewers try to get at ``job``, ``ended`` and ``dead``, which are acme's."""

    runtime: Runtime
    job: str
    ended: str
    dead: str
    run: str
    """A run of a bulk action that a viewer of acme has begun."""
    others: str
    kims: str
    token: str
    """The id of a token that a viewer of acme has made."""

    @property
    def variables(self) -> dict[str, Any]:
        """What the probes are about."""
        return {
            "id": self.job,
            "others": self.others,
            "kims": self.kims,
            "ended": self.ended,
            "dead": self.dead,
            "run": self.run,
            "token": self.token,
            "cursor": str(self.runtime.index.first_seq(self.job) - 1),
            "page": None,
        }

    def session(self, name: str) -> Session:
        """The session of one of ``VIEWERS``."""
        if name == "ended":
            session = Session(ADA)
            session.has_ended = True
            return session
        of_one_job = viewer("web", "acme", Scope.READ, ids=[self.job])
        return Session({"reader": EVE, "stranger": BOB, "one_job": of_one_job, "creator": KIM}[name])

    def context(self, by: str | Viewer | Session) -> Context:
        """The context of an operation of a viewer."""
        session = self.session(by) if isinstance(by, str) else Session(by) if isinstance(by, Viewer) else by
        return Context(lambda: self.runtime, session)


@asynccontextmanager
async def installation(settings: Settings) -> AsyncIterator[Installation]:
    """Such an installation, with a worker that leaves its jobs alone."""
    required = settings.model_copy(update={"auth": "required"})
    async with running_worker(settings, ("cpu",)), open_runtime(required, JOB_TYPES) as runtime:
        commands = runtime.commands
        job = await commands.create(request(tags=("a",), idempotency_key="key"), ADA)
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        ended = await commands.create(request(run_at=tomorrow), ADA)
        await commands.cancel(ended.id, ADA)
        others = await commands.create(request(tags=("a",), idempotency_key="key"), BOB)
        dead = await commands.create(request(), ADA)
        async with open_job_log(runtime.connection) as job_log:
            failed = await bring_to(job_log, commands, dead.job, JobStatus.DEAD_LETTER)
        await runtime.feed.read_back(failed)
        kims = await commands.create(request(), KIM)
        probe = runtime.registry.get("probe")
        assert probe is not None
        scheduled = await runtime.schedules.upsert(
            ScheduleDefinition(
                name="nightly",
                job_type=probe,
                payload=accepted(ProbePayload()),
                recurrence=Recurrence(cron="0 3 * * *"),
            )
        )
        await runtime.feed.wait_for(scheduled.seq, 5)
        fence = job_events(job.id, 0)
        await runtime.artifacts.save(job.id, "a.txt", io.BytesIO(b"text"), "text/plain", fence)
        await until(lambda: runtime.index.artifact(job.id, "a.txt") is not None, "the file is known")
        await until(lambda: bool(runtime.presence.workers()), "the worker is known")
        await runtime.feed.read_back(kims)
        nothing = await runtime.bulk_runs.plan(
            BulkAction.RETRY, JobFilter(ids=frozenset(), visibility=ADA.visibility), ADA
        )
        run = await runtime.bulk_runs.run(nothing.token, ADA, per_second=None, first=None)
        issued = runtime.access.issue(ADA, ViewLimits(), [Scope.READ], 60)
        yield Installation(runtime, job.id, ended.id, dead.id, run.id, others.id, kims.id, issued.id)


def _is_shown(data: Any, asked: dict[str, Any]) -> bool:
    """Whether an answer has the id of a job that was asked for."""
    return any(asked[name] in str(data) for name in ("id", "ended", "dead"))


def _has_any(data: Any, _asked: dict[str, Any]) -> bool:
    """Whether the one root field of an answer has anything but zeros, nulls and empty lists."""
    (value,) = data.values()
    return _any(value)


def _any(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_any, value.values()))
    return any(map(_any, value)) if isinstance(value, list) else bool(value)


def _has_history(data: Any, _asked: dict[str, Any]) -> bool:
    """Whether an answer has a minute of a queue."""
    return any(queue["history"] for queue in data["queues"])


class Probe(NamedTuple):
    """A document, and what comes of it for each of ``VIEWERS``, in their order."""

    text: str
    verdicts: tuple[str, ...]
    is_shown: Callable[[Any, dict[str, Any]], bool] = _is_shown


F, U, N, B = "FORBIDDEN", "UNAUTHENTICATED", "NOT_FOUND", "BAD_REQUEST"
A = "INVALID_ARGUMENT"
_OWN = (SHOWN, HIDDEN, SHOWN, HIDDEN, U)
"""Jobs: the tenant's for its reader, the one that a token is for; not a stranger's, and not what others created."""
_OWN_DEAD = (SHOWN, HIDDEN, HIDDEN, HIDDEN, U)
"""Dead letters: the tenant's for its reader; none where the token is for a job that is none."""
_NEVER = (F, HIDDEN, F, F, U)
_KNOWN = (SHOWN, SHOWN, SHOWN, SHOWN, U)
_JOB = "query($id: ID!) { job(id: $id) { %s } }"
_PAGE = "{ jobs(%s) { nodes { id } } }"
_INPUT = "{ payload: { probe: {} } }"
_CREATED = f"mutation {{ createJob(input: {_INPUT}) {{ %s }} }}"
_PLANNED = "mutation { planBulk(%s) { sample { id } } }"
_PLANS = (F, HIDDEN, F, F, U)
"""What a stranger plans, who is the one that may, holds none of acme's jobs."""
_MAKER = (HIDDEN, HIDDEN, HIDDEN, HIDDEN, U)
"""A run: nobody's but of who began it."""
_NOBODYS = (F, F, F, F, U)
"""A queue has the jobs of all tenants."""
_ALL_ONLY = (HIDDEN, HIDDEN, HIDDEN, HIDDEN, U)
"""What is of all tenants is shown to nobody who has one."""
_SCHEDULE = '{ schedule(name: "nightly") { %s } }'
_UPSERTED = 'mutation { %s(input: { name: "n", everySeconds: 60, payload: %s }) { schedule { name } } }'
_CHANGED = "subscription { %s { ... on JobsSnapshot { nodes { id } } } }"

PROBES: dict[str, Probe] = {
    "Query.__typename": Probe("{ __typename }", _KNOWN, _has_any),
    "Query.__schema": Probe("{ __schema { description types { name } } }", _KNOWN, _has_any),
    "Query.__type": Probe('{ __type(name: "Job") { name } }', _KNOWN, _has_any),
    "Query.viewer": Probe("{ viewer { subject } }", _KNOWN, _has_any),
    "Query.job": Probe(_JOB % "id", _OWN),
    "Query.job(id)": Probe(_JOB % "id tenant createdBy", _OWN),
    "Query.jobs": Probe("{ jobs { nodes { id } edges { node { id } } } }", _OWN),
    "Query.jobs(filter)": Probe("query($id: ID!) { jobs(filter: { ids: [$id] }) { nodes { id } } }", _OWN),
    "Query.jobs(orderBy)": Probe(_PAGE % "orderBy: { field: UPDATED_AT, direction: ASC }", _OWN),
    "Query.jobs(first)": Probe(_PAGE % "first: 500", _OWN),
    "Query.jobs(after)": Probe("query($page: String) { jobs(first: 500, after: $page) { nodes { id } } }", _OWN),
    "Query.jobs(offset)": Probe(_PAGE % "offset: 0", _OWN),
    "Query.jobTypes": Probe("{ jobTypes { name } }", _KNOWN, _has_any),
    "Query.queues": Probe("{ queues { name counts { count } oldestQueuedAt unservedTypes } }", _KNOWN, _has_any),
    "Subscription.queuesChanged": Probe("subscription { queuesChanged { name } }", _KNOWN, _has_any),
    "Subscription.queuesChanged(maxPerSecond)": Probe(
        "subscription { queuesChanged(maxPerSecond: 10) { name } }", _KNOWN, _has_any
    ),
    "Subscription.workersChanged": Probe("subscription { workersChanged { id } }", (HIDDEN,) * 4 + (U,), _has_any),
    "Subscription.workersChanged(maxPerSecond)": Probe(
        "subscription { workersChanged(maxPerSecond: 10) { id } }", (HIDDEN,) * 4 + (U,), _has_any
    ),
    "Query.serverStatus": Probe("{ serverStatus { storeReachable since now } }", _KNOWN, _has_any),
    "Subscription.serverStatusChanged": Probe(
        "subscription { serverStatusChanged { storeReachable since now } }", _KNOWN, _has_any
    ),
    "Query.workers": Probe("{ workers { id } }", (HIDDEN,) * 4 + (U,), _has_any),
    "Queue.history": Probe("{ queues { history { created } } }", (HIDDEN,) * 4 + (U,), _has_history),
    "Queue.history(minutes)": Probe("{ queues { history(minutes: 5) { at } } }", (HIDDEN,) * 4 + (U,), _has_history),
    "Worker.jobs": Probe("{ workers { jobs { id } } }", (HIDDEN,) * 4 + (U,), _has_any),
    "JobConnection.totalCount": Probe(
        "query($id: ID!) { jobs(filter: { ids: [$id] }) { totalCount } }", _OWN, _has_any
    ),
    "Job.rawPayload": Probe(_JOB % "id rawPayload", _OWN),
    "Job.payloadPreview": Probe(_JOB % "payloadPreview", _OWN, _has_any),
    "Job.payloadPreview(bytes)": Probe(_JOB % "payloadPreview(bytes: 1)", _OWN, _has_any),
    "Job.rawResult": Probe(_JOB % "id rawResult", _OWN),
    "Job.payload": Probe(_JOB % "id ... on ProbeJob { payload { gate } }", _OWN),
    "Job.result": Probe(_JOB % "id ... on ProbeJob { result { attempt } }", _OWN),
    "Job.origin": Probe(_JOB % "id origin { id }", _OWN),
    "Job.parent": Probe(_JOB % "id parent { id }", _OWN),
    "Job.after": Probe(_JOB % "id after", _OWN),
    "Job.children": Probe(_JOB % "id children { id }", _OWN),
    "Job.children(first)": Probe(_JOB % "id children(first: 1) { id }", _OWN),
    "Job.artifacts": Probe(_JOB % "artifacts { url }", _OWN),
    "Job.cancellation": Probe(
        "query($ended: ID!) { job(id: $ended) { id cancellation { requestedAt } } }", (SHOWN, HIDDEN, HIDDEN, HIDDEN, U)
    ),
    "Job.waiting": Probe(_JOB % "waiting { detail }", _OWN, _has_any),
    "Job.events": Probe(_JOB % "events { job { id } }", _OWN),
    "Job.events(first)": Probe(_JOB % "events(first: 1) { job { id } }", _OWN),
    "Job.events(after)": Probe(_JOB % 'events(after: "0") { job { id } }', _OWN),
    "Mutation.__typename": Probe("mutation { __typename }", _KNOWN, _has_any),
    "Mutation.createJob": Probe(_CREATED % "job { id }", (F, SHOWN, F, SHOWN, U), _has_any),
    "Mutation.createJob(input)": Probe(
        'mutation { createJob(input: { payload: { probe: {} }, idempotencyKey: "key" }) { job { id } } }',
        (F, HIDDEN, F, "IDEMPOTENCY_CONFLICT", U),
    ),
    "Mutation.createJobs": Probe(
        f"mutation {{ createJobs(inputs: [{_INPUT}]) {{ jobs {{ id }} }} }}", (F, SHOWN, F, SHOWN, U), _has_any
    ),
    "Mutation.createJobs(inputs)": Probe(
        'mutation { createJobs(inputs: [{ payload: { probe: {} }, idempotencyKey: "key" }]) { jobs { id } } }',
        (F, HIDDEN, F, "IDEMPOTENCY_CONFLICT", U),
    ),
    "Mutation.createRawJobs": Probe(
        'mutation { createRawJobs(inputs: [{ type: "probe", payload: "{}" }]) { jobs { id } } }',
        (F, SHOWN, F, SHOWN, U),
        _has_any,
    ),
    "Mutation.createRawJobs(inputs)": Probe(
        'mutation { createRawJobs(inputs: [{ type: "probe", payload: "{}", idempotencyKey: "key" }]) { jobs { id } } }',
        (F, HIDDEN, F, "IDEMPOTENCY_CONFLICT", U),
    ),
    "Mutation.cancelJob": Probe("mutation($id: ID!) { cancelJob(id: $id) { job { id } } }", (F, N, F, F, U)),
    "Mutation.cancelJob(id)": Probe("mutation($ended: ID!) { cancelJob(id: $ended) { job { id } } }", (F, N, F, F, U)),
    "Mutation.updateJob": Probe(
        'mutation($id: ID!) { updateJob(id: $id, input: { tags: ["a"] }) { job { id } } }', (F, N, F, F, U)
    ),
    "Mutation.updateJob(id)": Probe(
        "mutation($ended: ID!) { updateJob(id: $ended, input: {}) { job { id } } }", (F, N, F, F, U)
    ),
    "Mutation.updateJob(input)": Probe(
        'mutation($id: ID!) { updateJob(id: $id, input: { rawPayload: "{}" }) { job { id } } }', (F, N, F, F, U)
    ),
    "Mutation.retryJob": Probe("mutation($id: ID!) { retryJob(id: $id) { job { id } } }", (F, N, F, F, U)),
    "Mutation.retryJob(id)": Probe("mutation($ended: ID!) { retryJob(id: $ended) { job { id } } }", (F, N, F, F, U)),
    "Mutation.retryJob(payload)": Probe(
        "mutation($ended: ID!) { retryJob(id: $ended, payload: { probe: {} }) { job { id } } }", (F, N, F, F, U)
    ),
    "Mutation.retryJob(rawType)": Probe(
        'mutation($ended: ID!) { retryJob(id: $ended, rawType: "probe", rawPayload: "{}") { job { id } } }',
        (F, N, F, F, U),
    ),
    "Mutation.retryJob(rawPayload)": Probe(
        'mutation($ended: ID!) { retryJob(id: $ended, rawPayload: "{}") { job { id } } }', (F, N, F, F, U)
    ),
    "Mutation.deleteJob": Probe("mutation($id: ID!) { deleteJob(id: $id) { deleted } }", (F, N, F, F, U)),
    "Mutation.deleteJob(id)": Probe("mutation($ended: ID!) { deleteJob(id: $ended) { deleted } }", (F, N, F, F, U)),
    "Mutation.retryJobs": Probe("mutation { retryJobs(filter: {}) { retriedCount remainingCount } }", _NEVER, _has_any),
    "Mutation.retryJobs(filter)": Probe(
        "mutation($ended: ID!) { retryJobs(filter: { ids: [$ended] }) { retriedCount remainingCount } }",
        _NEVER,
        _has_any,
    ),
    "Mutation.createViewToken": Probe(
        "mutation { createViewToken(input: { limitedTo: {} }) { viewToken { id } } }",
        (SHOWN, SHOWN, SHOWN, F, U),
        _has_any,
    ),
    "Mutation.createViewToken(input)": Probe(
        'mutation { createViewToken(input: { limitedTo: { queues: ["default"] }, scopes: [CONTROL], ttlSeconds: 5 })'
        " { viewToken { id } } }",
        (F, SHOWN, F, F, U),
        _has_any,
    ),
    "Mutation.revokeToken": Probe(
        'mutation { revokeToken(id: "none") { revoked } }', (HIDDEN, HIDDEN, HIDDEN, HIDDEN, U), _has_any
    ),
    "Mutation.revokeToken(id)": Probe(
        "mutation($token: ID!) { revokeToken(id: $token) { revoked } }", (HIDDEN, HIDDEN, HIDDEN, HIDDEN, U), _has_any
    ),
    "Mutation.renewAccess": Probe(
        "mutation($token: String!) { renewAccess(token: $token) { viewer { subject } } }", (B, B, B, B, B)
    ),
    "Mutation.renewAccess(token)": Probe(
        'mutation { renewAccess(token: "gjv_literal") { viewer { subject } } }', (B, B, B, B, B)
    ),
    "CreateJobPayload.viewToken": Probe(_CREATED % "viewToken { id }", (F, SHOWN, F, SHOWN, U), _has_any),
    "CreateJobPayload.viewToken(ttlSeconds)": Probe(
        _CREATED % "viewToken(ttlSeconds: 1) { id }", (F, SHOWN, F, SHOWN, U), _has_any
    ),
    "CreateJobPayload.viewToken(scopes)": Probe(
        _CREATED % "viewToken(scopes: [CONTROL]) { id }", (F, SHOWN, F, F, U), _has_any
    ),
    "Query.deadLetterGroups": Probe("{ deadLetterGroups { sample { id } } }", _OWN_DEAD),
    "Query.deadLetterGroups(filter)": Probe(
        '{ deadLetterGroups(filter: { type: ["probe"] }) { sample { id } } }', _OWN_DEAD
    ),
    "Query.deadLetterGroups(first)": Probe("{ deadLetterGroups(first: 100) { sample { id } } }", _OWN_DEAD),
    "Query.bulkRun": Probe("query($run: ID!) { bulkRun(id: $run) { id } }", _MAKER, _has_any),
    "Query.bulkRun(id)": Probe("query($run: ID!) { bulkRun(id: $run) { planned } }", _MAKER, _has_any),
    "Mutation.planBulk": Probe(_PLANNED % "action: CANCEL", _PLANS),
    "Mutation.planBulk(action)": Probe(_PLANNED % "action: CANCEL", _PLANS),
    "Mutation.planBulk(filter)": Probe(_PLANNED % 'action: CANCEL, filter: { type: ["probe"] }', _PLANS),
    "Mutation.planBulk(deadLetterGroup)": Probe(_PLANNED % 'action: RETRY, deadLetterGroup: "none"', _PLANS),
    "Mutation.runBulk": Probe('mutation { runBulk(token: "a.b.c") { id } }', (F, A, F, F, U)),
    "Mutation.runBulk(token)": Probe('mutation { runBulk(token: "a.b.c") { id } }', (F, A, F, F, U)),
    "Mutation.runBulk(first)": Probe('mutation { runBulk(token: "a.b.c", first: 1) { id } }', (F, A, F, F, U)),
    "Mutation.runBulk(maxPerSecond)": Probe(
        'mutation { runBulk(token: "a.b.c", maxPerSecond: 1) { id } }', (F, A, F, F, U)
    ),
    "Mutation.stopBulk": Probe("mutation($run: ID!) { stopBulk(id: $run) { id } }", (F, N, F, F, U)),
    "Mutation.stopBulk(id)": Probe("mutation($run: ID!) { stopBulk(id: $run) { state } }", (F, N, F, F, U)),
    "Mutation.pauseQueue": Probe('mutation { pauseQueue(name: "default") { queue { name } } }', _NOBODYS),
    "Mutation.pauseQueue(name)": Probe('mutation { pauseQueue(name: "none") { queue { name } } }', _NOBODYS),
    "Mutation.pauseQueue(reason)": Probe(
        'mutation { pauseQueue(name: "default", reason: "") { queue { name } } }', _NOBODYS
    ),
    "Mutation.pauseQueue(until)": Probe(
        'mutation { pauseQueue(name: "default", until: "2020-01-01T00:00:00Z") { queue { name } } }', _NOBODYS
    ),
    "Mutation.resumeQueue": Probe('mutation { resumeQueue(name: "default") { queue { name } } }', _NOBODYS),
    "Mutation.resumeQueue(name)": Probe('mutation { resumeQueue(name: "none") { queue { name } } }', _NOBODYS),
    "Query.schedules": Probe("{ schedules { name } }", _ALL_ONLY, _has_any),
    "Query.schedules(first)": Probe("{ schedules(first: 5) { name } }", _ALL_ONLY, _has_any),
    "Query.schedules(after)": Probe('{ schedules(after: "a") { name } }', _ALL_ONLY, _has_any),
    "Query.schedule": Probe(_SCHEDULE % "name", _ALL_ONLY, _has_any),
    "Query.schedule(name)": Probe(_SCHEDULE % "type", _ALL_ONLY, _has_any),
    "Query.schedulePreview": Probe('{ schedulePreview(cron: "0 3 * * *") }', _KNOWN, _has_any),
    "Query.schedulePreview(cron)": Probe('{ schedulePreview(cron: "0 3 * *") }', (A, A, A, A, U)),
    "Query.schedulePreview(everySeconds)": Probe("{ schedulePreview(everySeconds: 60) }", _KNOWN, _has_any),
    "Query.schedulePreview(timeZone)": Probe(
        '{ schedulePreview(cron: "0 3 * * *", timeZone: "Asia/Tokyo") }', _KNOWN, _has_any
    ),
    "Query.schedulePreview(first)": Probe("{ schedulePreview(everySeconds: 60, first: 2) }", _KNOWN, _has_any),
    "Query.schedulePreview(after)": Probe(
        '{ schedulePreview(everySeconds: 60, after: "2027-01-01T00:00:00Z") }', _KNOWN, _has_any
    ),
    "Schedule.rawPayload": Probe(_SCHEDULE % "rawPayload", _ALL_ONLY, _has_any),
    "Schedule.nextRuns": Probe(_SCHEDULE % "nextRuns", _ALL_ONLY, _has_any),
    "Schedule.nextRuns(first)": Probe(_SCHEDULE % "nextRuns(first: 1)", _ALL_ONLY, _has_any),
    "Schedule.lastJob": Probe(_SCHEDULE % "lastJob { id }", _ALL_ONLY, _has_any),
    "Schedule.skipped": Probe(_SCHEDULE % "skipped", _ALL_ONLY, _has_any),
    "Schedule.skips": Probe(_SCHEDULE % "skips { count }", _ALL_ONLY, _has_any),
    "Mutation.upsertSchedule": Probe(_UPSERTED % ("upsertSchedule", "{ probe: {} }"), _NOBODYS),
    "Mutation.upsertSchedule(input)": Probe(_UPSERTED % ("upsertSchedule", "{ probe: { steps: 2 } }"), _NOBODYS),
    "Mutation.upsertRawSchedule": Probe(_UPSERTED % ("upsertRawSchedule", '"{}", type: "probe"'), _NOBODYS),
    "Mutation.upsertRawSchedule(input)": Probe(_UPSERTED % ("upsertRawSchedule", '"{}", type: "none"'), _NOBODYS),
    "Mutation.pauseSchedule": Probe('mutation { pauseSchedule(name: "nightly") { schedule { name } } }', _NOBODYS),
    "Mutation.pauseSchedule(name)": Probe('mutation { pauseSchedule(name: "none") { schedule { name } } }', _NOBODYS),
    "Mutation.pauseSchedule(paused)": Probe(
        'mutation { pauseSchedule(name: "nightly", paused: false) { schedule { name } } }', _NOBODYS
    ),
    "Mutation.deleteSchedule": Probe('mutation { deleteSchedule(name: "nightly") { deleted } }', _NOBODYS),
    "Mutation.deleteSchedule(name)": Probe('mutation { deleteSchedule(name: "none") { deleted } }', _NOBODYS),
    "Mutation.runSchedule": Probe('mutation { runSchedule(name: "nightly") { job { id } } }', _NOBODYS),
    "Mutation.runSchedule(name)": Probe('mutation { runSchedule(name: "none") { job { id } } }', _NOBODYS),
    "Mutation.setQueueLimits": Probe(
        'mutation { setQueueLimits(name: "default", limits: {}) { ungated queue { name } } }', _NOBODYS
    ),
    "QueuePayload.ungated": Probe('mutation { resumeQueue(name: "default") { ungated } }', _NOBODYS),
    "Mutation.setQueueLimits(name)": Probe(
        'mutation { setQueueLimits(name: "none", limits: {}) { queue { name } } }', _NOBODYS
    ),
    "Mutation.setQueueLimits(limits)": Probe(
        'mutation { setQueueLimits(name: "default", limits: {concurrency: 0}) { queue { name } } }', _NOBODYS
    ),
    "Subscription.bulkProgress": Probe("subscription($run: ID!) { bulkProgress(id: $run) { id } }", (N, N, N, N, U)),
    "Subscription.bulkProgress(id)": Probe(
        "subscription($run: ID!) { bulkProgress(id: $run) { done } }", (N, N, N, N, U)
    ),
    "Subscription.jobProgress": Probe(
        "subscription($id: ID!) { jobProgress(id: $id) { job { id } } }", (SHOWN, N, SHOWN, N, U)
    ),
    "Subscription.jobProgress(id)": Probe(
        "subscription($id: ID!) { jobProgress(id: $id) { actor job { id } } }", (SHOWN, N, SHOWN, N, U)
    ),
    "Subscription.jobProgress(after)": Probe(
        'subscription($id: ID!) { jobProgress(id: $id, after: "0") { job { id } } }', (SHOWN, N, SHOWN, N, U)
    ),
    "Subscription.jobProgress(maxPerSecond)": Probe(
        "subscription($id: ID!) { jobProgress(id: $id, maxPerSecond: 10) { job { id } } }", (SHOWN, N, SHOWN, N, U)
    ),
    "Subscription.jobEvents": Probe('subscription { jobEvents(after: "0") { job { id } } }', _OWN),
    "Subscription.jobEvents(filter)": Probe(
        'subscription { jobEvents(after: "0", filter: { type: ["probe"] }) { job { id } } }', _OWN
    ),
    "Subscription.jobEvents(after)": Probe(
        "subscription($cursor: String) { jobEvents(after: $cursor) { job { id } } }", _OWN
    ),
    "Subscription.jobEvents(latest)": Probe(
        "subscription($id: ID!, $others: ID!, $kims: ID!) {"
        " jobEvents(latest: true, filter: { ids: [$id, $others, $kims] }) { job { id } } }",
        _OWN,
    ),
    "Subscription.jobEvents(maxPerSecond)": Probe(
        'subscription { jobEvents(after: "0", maxPerSecond: 10) { job { id } } }', _OWN
    ),
    "Subscription.jobsChanged": Probe(_CHANGED % "jobsChanged", _OWN),
    "Subscription.jobsChanged(filter)": Probe(_CHANGED % 'jobsChanged(filter: { type: ["probe"] })', _OWN),
    "Subscription.jobsChanged(orderBy)": Probe(_CHANGED % "jobsChanged(orderBy: { field: UPDATED_AT })", _OWN),
    "Subscription.jobsChanged(first)": Probe(_CHANGED % "jobsChanged(first: 100)", _OWN),
    "Subscription.jobsChanged(maxPerSecond)": Probe(_CHANGED % "jobsChanged(maxPerSecond: 10)", _OWN),
}


async def verdict(found: Installation, schema: JobsSchema, probe: Probe, name: str, variables: dict[str, Any]) -> str:
    """What comes of a probe: whether what is acme's is shown, or the code of the refusal."""
    context = found.context(name)
    if probe.text.startswith("subscription"):
        async with aclosing(await schema.subscribe(probe.text, variables, context)) as results:
            result = await anext(results)
    else:
        result = await schema.execute(probe.text, variables, context)
    if result.errors:
        return str(result.formatted_errors[0]["extensions"]["code"])
    return SHOWN if probe.is_shown(result.data, variables) else HIDDEN
