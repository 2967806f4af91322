"""Plans of bulk actions, and their runs: a task of this process each, which says how far it is where all can read it.

What is done to a job is a command like any other, so a run that ends anywhere, with its process too, has left each job
either untouched or done; running the plan again goes on with what is left.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from gql_jobs import clock
from gql_jobs.access.authentication import Authentication
from gql_jobs.index.reader import Reader
from gql_jobs.jobs.bulk import (
    NEEDS,
    PLAN_LIFE,
    SILENT_AFTER,
    BulkAction,
    BulkPlan,
    BulkRun,
    BulkState,
    mark_of,
    planned_filter,
)
from gql_jobs.jobs.errors import (
    Forbidden,
    GqlJobsError,
    InvalidArgument,
    InvalidState,
    KeyTaken,
    NotFound,
    QueueFull,
    QueueUnavailable,
    RateLimited,
    Unauthenticated,
    UnknownRun,
)
from gql_jobs.jobs.model import new_job_id, parse_job_id
from gql_jobs.jobs.requests import JobFilter, JobOrder
from gql_jobs.jobs.viewer import Viewer
from gql_jobs.live.bulk_watches import RunWatch, RunWatches
from gql_jobs.live.feed import READ_BACK_TIMEOUT, Feed
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.deletion import JobDeletions

log = logging.getLogger(__name__)

MAX_RUNS = 16
"""Runs of one process at a time."""
MAX_RUNS_OF_CLIENT = 4
"""Those of them that one client has begun."""
MAX_PLAN_TOKEN = 1 << 20
"""Characters of a plan's text: one with the largest filter there is, made with the narrowest token, has fewer."""
SAMPLES = 5
"""Jobs that are shown of a plan."""
FASTEST_RUN = 1000.0
"""Jobs a second that may be asked for."""
_LONGEST_PAUSE = PLAN_LIFE.total_seconds()
"""Seconds between two jobs, however few a second were asked for."""
_AT_A_TIME = 32
"""Jobs that are acted on concurrently."""
_PAGE = 100
_BEAT = 1.0
"""Seconds between two notes of how far a run is."""
_KEPT_SECONDS = int(PLAN_LIFE.total_seconds()) + 3600
_RETRY_PAUSE = 1.0
"""Seconds between two tries of what NATS did not take."""
_CATCH_UP = 5.0
"""Seconds in which the index has to reach the position of a plan that another process has made."""
_END_TRIES = 120
"""How often it is tried to note the end of a run, with a pause after each."""
_TRACED_FAILURES = 10
"""Jobs of a run whose unexpected errors are logged with all that led to them."""
_PURPOSE = "bulk plan"
_OLDEST_FIRST = JobOrder(descending=False)


class MadePlan(NamedTuple):
    """A plan, its text, and the ids of the jobs that it begins with."""

    plan: BulkPlan
    token: str
    sample: list[str]


class AtOnce(NamedTuple):
    """What became of a plan that was run at once: so many jobs were ``done``, were ``skipped``, or are ``left``."""

    done: int
    skipped: int
    left: int


class BulkRuns:
    """Makes plans, and runs them in this process. Runs of others are read from the bucket of credentials."""

    def __init__(
        self, commands: JobCommands, deletions: JobDeletions, reader: Reader, feed: Feed, access: Authentication
    ) -> None:
        self._commands = commands
        self._deletions = deletions
        self._reader = reader
        self._feed = feed
        self._access = access
        self._here: dict[str, _Running] = {}
        self._clients: list[str | None] = []
        """The client of each run that goes on, or is about to begin."""
        self._watches = RunWatches(self._look, self._here.__contains__)

    def __len__(self) -> int:
        return len(self._clients)

    async def plan(self, action: BulkAction, asked: JobFilter, viewer: Viewer) -> MadePlan:
        """Return a plan for the jobs of a filter that have not moved since now.

        :raises Forbidden: if the viewer lacks the scope that the action needs.
        :raises QueueUnavailable: if it cannot be signed.
        """
        _check_scope(action, viewer)
        plan = await self._planned(action, asked, viewer)
        sample = await self._reader.ids(plan.filter, SAMPLES)
        return MadePlan(plan, self._access.sign(_PURPOSE, msgspec.json.encode(plan)), sample)

    async def _planned(self, action: BulkAction, asked: JobFilter, viewer: Viewer) -> BulkPlan:
        wanted = planned_filter(action, asked, self._feed.position)
        number = await self._reader.count(wanted)
        return BulkPlan(action, wanted, number, clock.now() + PLAN_LIFE, viewer.subject, viewer.tenant)

    async def run_at_once(
        self,
        action: BulkAction,
        asked: JobFilter,
        viewer: Viewer,
        *,
        first: int,
        is_over: Callable[[], Awaitable[bool]],
    ) -> AtOnce:
        """Plan an action on the jobs of a filter, and run the plan for somebody who waits for its end.

        The index has what was done when this returns, or a second has passed. The run is shown to nobody else, so it is
        not noted and takes no other's place.

        :param first: of how many jobs at most, the oldest.
        :param is_over: returns whether to end before the next job.
        :raises QueueUnavailable, QueueFull: if NATS does not take a command; what was done before stays done.
        """
        plan = await self._planned(action, asked, viewer)
        running = _Running(_run_of(plan, plan.jobs, viewer, first), None)

        async def act_on(job_id: str) -> None:
            try:
                await self._do(running, plan, viewer, job_id)
            except (InvalidState, KeyTaken, NotFound):
                running.count("skipped")
            else:
                running.count("done")

        async def look() -> None:
            if await is_over():
                running.stopping.set()

        try:
            left = await self._act(running, plan, _Pace(None), act_on, look)
        except ExceptionGroup as failures:
            # All of them failed for the same reason, so one stands for them.
            raise failures.exceptions[0] from failures
        await self._feed.wait_for(running.newest, READ_BACK_TIMEOUT)
        state = running.state
        return AtOnce(state.done, state.skipped, plan.jobs - state.planned + left)

    async def run(
        self, token: str, viewer: Viewer, *, per_second: float | None, first: int | None, client: str | None = None
    ) -> BulkRun:
        """Begin a run of a plan, and return it.

        :param per_second: jobs a second at most; None for as fast as it goes.
        :param first: of how many jobs at most, the oldest; None for all of them.
        :param client: who begins it, as one of those who may have only some of the runs; None for nobody.
        :raises InvalidArgument: if the text is no plan, or one that is too old.
        :raises Forbidden: if it was made by somebody else, or for more or fewer jobs than there are for the viewer, or
            the viewer lacks the scope that the action needs.
        :raises RateLimited: if too many runs go on here, or too many of the client's.
        :raises QueueUnavailable: if NATS does not answer, or this process is far behind.
        """
        plan = self._read(token, viewer)
        if len(self._clients) >= MAX_RUNS:
            raise RateLimited(f"{MAX_RUNS} bulk runs go on in this process, which is the limit; wait for one.", 5)
        if client is not None and self._clients.count(client) >= MAX_RUNS_OF_CLIENT:
            raise RateLimited(
                f"{MAX_RUNS_OF_CLIENT} bulk runs of one client go on, which is its limit; wait for one.", 5
            )
        # Before the first await: others ask at the same time.
        self._clients.append(client)
        try:
            started = await self._started(plan, viewer, first)
        except BaseException:
            self._clients.remove(client)
            raise
        running = _Running(started, client)
        self._here[started.id] = running
        running.task = asyncio.create_task(self._work(running, plan, viewer, per_second))
        return started

    async def _started(self, plan: BulkPlan, viewer: Viewer, first: int | None) -> BulkRun:
        if not await self._feed.wait_for(plan.filter.moved_by or 0, _CATCH_UP):
            raise QueueUnavailable("This process has not caught up with the plan yet; try again.")
        started = _run_of(plan, await self._reader.count(plan.filter), viewer, first)
        await self._note(started)
        return started

    async def stop(self, run_id: str, viewer: Viewer) -> BulkRun:
        """Have a run end before its next job, within two seconds where another process has it, and return it.

        :raises UnknownRun: if there is no such run of the viewer's.
        :raises QueueUnavailable: if NATS does not answer.
        """
        found = await self.find(run_id, viewer)
        if found is None:
            raise UnknownRun(run_id)
        here = self._here.get(found.id)
        if here is not None:
            here.stopping.set()
            await here.ended.wait()
            return here.state
        if found.state is BulkState.RUNNING:
            await self._access.keep(f"bulkstop.{found.id}", b"{}", _KEPT_SECONDS)
        return found

    async def find(self, run_id: str, viewer: Viewer) -> BulkRun | None:
        """Return a run of the viewer's, as far as is known; None if there is none, or its plan was too old long ago.

        :raises QueueUnavailable: if NATS does not answer.
        """
        known = parse_job_id(run_id)
        run = await self._look(known) if known is not None else None
        return run if run is not None and run.is_shown_to(viewer) else None

    async def _look(self, run_id: str) -> BulkRun | None:
        """Return a run, of whomever, as far as is known."""
        here = self._here.get(run_id)
        if here is not None:
            return here.state
        run = await self._noted(run_id)
        if run is not None and run.state is BulkState.RUNNING and await self._access.kept(f"bulkbeat.{run_id}") is None:
            return run.as_interrupted
        return run

    async def watch(self, run_id: str, viewer: Callable[[], Viewer]) -> "RunWatch":
        """Return the states of a run from now to its end, which has to be closed.

        :param viewer: returns for whom at the moment; it ends when the run is not theirs any more.
        :raises UnknownRun: if there is no such run of the viewer's.
        :raises QueueUnavailable: if NATS does not answer.
        """
        found = await self.find(run_id, viewer())
        if found is None:
            raise UnknownRun(run_id)
        return self._watches.open(found, viewer)

    def _read(self, token: str, viewer: Viewer) -> BulkPlan:
        signed = self._access.signed(_PURPOSE, token) if len(token) <= MAX_PLAN_TOKEN else None
        if signed is None:
            raise InvalidArgument("token", "This is no plan that planBulk has made.")
        try:
            plan = msgspec.json.decode(signed, type=BulkPlan)
        except msgspec.MsgspecError:
            raise InvalidArgument("token", "The plan was made by another release; make a new one.") from None
        if plan.expires_at <= clock.now():
            raise InvalidArgument("token", "The plan is older than a day; make a new one.")
        if (plan.subject, plan.tenant) != (viewer.subject, viewer.tenant):
            raise Forbidden("A plan is run by whoever has made it.")
        if plan.filter.visibility != viewer.visibility:
            raise Forbidden("The plan was made for other jobs than there are for this key or token; make a new one.")
        _check_scope(plan.action, viewer)
        return plan

    # A run.

    async def _work(self, running: "_Running", plan: BulkPlan, viewer: Viewer, per_second: float | None) -> None:
        beating = asyncio.create_task(self._beat(running, viewer))
        ended = BulkState.INTERRUPTED
        try:
            await self._act(running, plan, _Pace(per_second), partial(self._act_on, running, plan, viewer))
            # So that the next run of the plan, or whoever counts, does not see jobs that were done.
            await self._feed.wait_for(running.newest, _CATCH_UP)
            ended = BulkState.STOPPED if running.stopping.is_set() else BulkState.DONE
        except Exception as error:
            cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            if isinstance(cause, GqlJobsError):
                log.warning("bulk run %s was interrupted: %s", running.state.id, cause.message)
            else:
                log.exception("bulk run %s was interrupted", running.state.id)
        finally:
            beating.cancel()
            now, state = clock.now(), running.state
            # What did not come up had moved between its count and its turn.
            skipped = state.planned - state.done - state.failed if ended is BulkState.DONE else state.skipped
            running.state = replace(state, state=ended, skipped=skipped, finished_at=now, heard_at=now)
            self._clients.remove(running.client)
            running.ended.set()
            self._watches.tell(running.state)
            try:
                # No note of how far it is may come behind that of its end.
                await asyncio.wait({beating})
                await self._note_end(running.state, tries=_END_TRIES if ended is not BulkState.INTERRUPTED else 1)
            finally:
                del self._here[running.state.id]

    async def _note_end(self, run: BulkRun, *, tries: int) -> None:
        """Note how a run has ended; while NATS is away only this process knows."""
        for number in range(1, tries + 1):
            try:
                await self._access.keep(f"bulk.{run.id}", msgspec.json.encode(run), _KEPT_SECONDS)
            except QueueUnavailable:
                if number < tries:
                    await asyncio.sleep(_RETRY_PAUSE)
            else:
                return
        log.warning("the end of bulk run %s could not be noted", run.id)

    async def _act(
        self,
        running: "_Running",
        plan: BulkPlan,
        pace: "_Pace",
        act_on: Callable[[str], Awaitable[None]],
        look: Callable[[], Awaitable[None]] | None = None,
    ) -> int:
        """Act on the jobs of a run, and return how many were not come to.

        :param act_on: acts on one job.
        :param look: called before each job; it may have the run stop.
        :raises ExceptionGroup: of what ``act_on`` has raised; nothing further is begun then.
        """
        left, after = running.state.planned, None
        free = asyncio.Semaphore(_AT_A_TIME)

        async def act_in_turn(job_id: str) -> None:
            try:
                await act_on(job_id)
            finally:
                free.release()

        async with asyncio.TaskGroup() as group:
            while left > 0 and not running.stopping.is_set():
                # Without their payloads, and behind those that were come to: what failed must not come up again.
                page = await self._reader.page(
                    plan.filter, _OLDEST_FIRST, first=min(_PAGE, left), after=after, offset=0, largest=0
                )
                for job in page.jobs:
                    await free.acquire()
                    await pace.wait(running)
                    if look is not None:
                        await look()
                    if running.stopping.is_set():
                        return left
                    left -= 1
                    group.create_task(act_in_turn(job.id))
                if not page.has_next or not page.jobs:
                    # Whatever is missing has moved since it was counted.
                    return 0
                after = page.cursor(-1)
        return left

    async def _do(self, running: "_Running", plan: BulkPlan, viewer: Viewer, job_id: str) -> None:
        """Do the action to a job.

        :raises NotFound, InvalidState, KeyTaken: if it has moved since it was planned, or its key belongs to another.
        :raises QueueUnavailable, QueueFull: if NATS does not take it.
        """
        moved_by = plan.filter.moved_by
        if plan.action is BulkAction.DELETE:
            outcome = await self._deletions.delete(job_id, viewer, moved_by=moved_by)
            running.newest = max(running.newest, outcome.seq)
            if not outcome.deleted:
                raise NotFound(job_id)
            return
        if plan.action is BulkAction.RETRY:
            job = await self._commands.retry(job_id, viewer, wait_for_copy=False, moved_by=moved_by)
        else:
            job = await self._commands.cancel(job_id, viewer, moved_by=moved_by)
        running.newest = max(running.newest, job.last_seq)

    async def _act_on(self, running: "_Running", plan: BulkPlan, viewer: Viewer, job_id: str) -> None:
        """Do the action to a job, however long NATS is away, and count what became of it."""
        is_uncertain = False
        while True:
            try:
                await self._do(running, plan, viewer, job_id)
            except (InvalidState, KeyTaken, NotFound):
                # A command whose fate was not known has moved the job itself.
                running.count("done" if is_uncertain else "skipped")
            except (QueueUnavailable, QueueFull) as error:
                is_uncertain = is_uncertain or "jobId" in error.extensions
                if not running.stopping.is_set():
                    await asyncio.sleep(_RETRY_PAUSE)
                    continue
                return
            except Exception:
                is_traced = running.state.failed < _TRACED_FAILURES
                log.exception("bulk run %s failed with job %s", running.state.id, job_id, exc_info=is_traced)
                running.count("failed")
            else:
                running.count("done")
            return

    async def _beat(self, running: "_Running", viewer: Viewer) -> None:
        """Say again and again how far a run is; have it stop if somebody wants that, or the viewer is none any more."""
        while True:
            await asyncio.sleep(_BEAT)
            try:
                if self._access.required and viewer.is_known:
                    self._access.check(viewer)
                await self._note(replace(running.state, heard_at=clock.now()))
                if await self._access.kept(f"bulkstop.{running.state.id}") is not None:
                    running.stopping.set()
            except Unauthenticated:
                running.stopping.set()
            except QueueUnavailable:
                continue
            except Exception:
                # A run of which nothing is heard, and whose viewer nobody looks at, must not go on.
                log.exception("bulk run %s cannot say how far it is, and ends", running.state.id)
                running.stopping.set()
                return

    async def _note(self, run: BulkRun) -> None:
        # By the clock of the server, because those of two processes differ.
        await self._access.keep(f"bulkbeat.{run.id}", b"{}", int(SILENT_AFTER.total_seconds()))
        await self._access.keep(f"bulk.{run.id}", msgspec.json.encode(run), _KEPT_SECONDS)

    async def _noted(self, run_id: str) -> BulkRun | None:
        stored = await self._access.kept(f"bulk.{run_id}")
        if stored is None:
            return None
        try:
            return msgspec.json.decode(stored, type=BulkRun)
        except msgspec.MsgspecError:
            return None

    async def close(self) -> None:
        """Interrupt the runs of this process, and note that."""
        tasks = [running.task for running in self._here.values() if running.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._watches.close()


def _check_scope(action: BulkAction, viewer: Viewer) -> None:
    if not viewer.may(scope := NEEDS[action]):
        raise Forbidden(f"To {action} jobs takes the scope {scope.name}, which this key or token does not have.")


def _run_of(plan: BulkPlan, number: int, viewer: Viewer, first: int | None) -> BulkRun:
    """Return a run that begins now, of as many jobs as there are, but no more than ``first``."""
    now = clock.now()
    return BulkRun(
        id=new_job_id(),
        action=plan.action,
        state=BulkState.RUNNING,
        planned=number if first is None else min(number, first),
        started_at=now,
        heard_at=now,
        subject=viewer.subject,
        tenant=viewer.tenant,
        seen_by=mark_of(viewer.visibility),
    )


class _Running:
    """A run of this process."""

    def __init__(self, state: BulkRun, client: str | None) -> None:
        self.state = state
        self.client = client
        self.stopping = asyncio.Event()
        self.ended = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.newest = 0
        """The last sequence of what it has done."""

    def count(self, what: str) -> None:
        """Count a job as ``done``, ``skipped`` or ``failed``."""
        self.state = replace(self.state, **{what: getattr(self.state, what) + 1})


class _Pace:
    """The moments at which a run goes on with the next job."""

    def __init__(self, per_second: float | None) -> None:
        self._step = 0.0 if per_second is None else min(1 / per_second, _LONGEST_PAUSE)
        self._next = asyncio.get_running_loop().time()

    async def wait(self, running: _Running) -> None:
        """Wait for the next moment, or until the run is to stop."""
        clock = asyncio.get_running_loop().time
        self._next = max(self._next, clock() - self._step)
        left = self._next - clock()
        if left > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await running.stopping.wait()
        self._next += self._step


@asynccontextmanager
async def open_bulk_runs(
    commands: JobCommands, deletions: JobDeletions, reader: Reader, feed: Feed, access: Authentication
) -> AsyncIterator[BulkRuns]:
    """Open the bulk runs of a process until the block ends, which interrupts them."""
    runs = BulkRuns(commands, deletions, reader, feed, access)
    try:
        yield runs
    finally:
        await runs.close()
