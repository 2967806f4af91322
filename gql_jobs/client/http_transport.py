"""The transport ``http://``: the public GraphQL API, over HTTP and server-sent events.

Every creation has an idempotency key: the caller's, or one that is made for it, under which a repetition finds the
first try. So a creation whose answer was lost is sent again, and makes no second job.
"""

import ssl
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import datetime
from hashlib import sha256

from gql_jobs import clock
from gql_jobs.client import api_documents as api
from gql_jobs.client.api_connections import ApiConnections, CutOff
from gql_jobs.client.creation import key_for
from gql_jobs.client.editing import option_of, raw_payload_of, update_input_of
from gql_jobs.client.errors import (
    ClientError,
    DamagedArtifact,
    InvalidArgument,
    InvalidPayload,
    InvalidState,
    NotFound,
    PartlyCreated,
    refusal,
)
from gql_jobs.client.job_ends import JobEnds
from gql_jobs.client.schedule_calls import ScheduleCalls
from gql_jobs.client.transport import ArtifactInfo, CreatedJob, Creation, Edit, JobEvent, JobPage, JobSnapshot, Token
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import JobError, JobStatus
from gql_jobs.jobs.pause import Pause
from gql_jobs.jobs.requests import JobFilter

API_PATIENCE = 30.0
"""Seconds for which what passes by itself is tried again."""
_CREATED_KEPT = 20_000
"""Jobs of this client that are known to be there without asking."""


class HttpTransport:
    """A client of the API at one address.

    :param address: of the API; its path is ``/graphql`` where it has none.
    :param token: a key or token. A function is called before each request, and may be a coroutine function; it should
        keep what is still valid, and is asked once more when the API refuses what it has returned.
    :param patience: seconds for which what passes by itself is tried again. Streams of events are asked for again
        without end once the API has answered anything.
    :param tls: of ``https``; the authorities of this machine by default.
    :raises BadAddress: if the address or the token can be none.
    """

    largest_batch = 500
    # A request may have 8 MiB and a million commas and brackets; a text in it is longer than its JSON by its escapes.
    largest_batch_bytes = 900 << 10

    def __init__(
        self, address: str, token: Token = None, *, patience: float = API_PATIENCE, tls: ssl.SSLContext | None = None
    ) -> None:
        self._api = ApiConnections(address, token, patience, tls)
        self._created: dict[str, None] = {}
        self._ends = JobEnds(self._ended_jobs, self._missing)
        self.schedules = ScheduleCalls(self._api)

    async def close(self) -> None:
        """Close all connections; may be called again."""
        await self._ends.close()
        await self._api.close()

    async def create(self, creations: Sequence[Creation]) -> list[CreatedJob]:
        """Store jobs in this order, each under a key, so that a lost answer is asked for again."""
        keys = [key_for(creation) for creation in creations]
        inputs = [api.raw_input_of(creation, key) for creation, key in zip(creations, keys, strict=True)]
        try:
            answer = await self._api.ask(api.CREATE_DOCUMENT, {"inputs": inputs}, api.CreationAnswer)
        except ClientError as error:
            told = _of_batch(error, keys)
            raise told from told.__cause__ or error
        created = [
            # Nobody but this client knows the key that it has made: a job that had it was made by this very call.
            CreatedJob(job.id, deduplicated and creation.has_key)
            for creation, job, deduplicated in zip(creations, answer.jobs, answer.deduplicated, strict=True)
        ]
        self._created |= dict.fromkeys(job.id for job in created[-_CREATED_KEPT:])
        while len(self._created) > _CREATED_KEPT:
            del self._created[next(iter(self._created))]
        return created

    # One job.

    async def find(self, job_id: str, *, lasting: bool = False) -> JobSnapshot | None:
        """Return the job as the process that answers has it; None if there is none.

        :param lasting: whether to ask without end, as for what is waited for.
        """
        job = await self._api.ask_for(api.FIND_DOCUMENT, {"id": job_id}, api.ShownJob, lasting=lasting)
        if job is None:
            return None
        # One error is that of the only attempt; a job that has completed shows none of those before.
        has_more = job.attempt > 1 and (job.error is not None or job.status == JobStatus.COMPLETED.name)
        return job.snapshot(await self._failures(job_id, lasting=lasting) if has_more else ())

    async def _failures(self, job_id: str, *, lasting: bool) -> tuple[JobError, ...]:
        """Return the errors of the attempts since the creation or the last retry by hand."""
        failures: list[JobError] = []
        has_ended, after = False, None
        while True:
            variables = {"id": job_id, "after": after}
            history = await self._api.ask_for(api.FAILURES_DOCUMENT, variables, api.HistoryAnswer, lasting=lasting)
            if history is None or not history.events:
                return tuple(failures)
            for event in history.events:
                if has_ended and event.kind == "JobQueued":
                    failures, has_ended = [], False
                has_ended = has_ended or event.kind in {"JobDeadLetter", "JobCancelled"}
                if event.error is not None:
                    failures.append(event.error)
            after = history.events[-1].cursor

    async def ended(self, job_id: str) -> JobSnapshot:
        """Wait until the job has ended; all who wait share a few streams."""
        job = await self._found(job_id, lasting=True) if job_id not in self._created else None
        # It may have been retried by hand after its end was told.
        while job is None or not job.status.is_terminal:
            await self._ends.wait(job_id)
            job = await self._found(job_id, lasting=True)
        return job

    async def _found(self, job_id: str, *, lasting: bool = False) -> JobSnapshot:
        job = await self.find(job_id, lasting=lasting)
        if job is None:
            raise _no_job(job_id)
        return job

    async def cancel(self, job_id: str) -> JobSnapshot:
        """Cancel a job that has not ended, and return it."""
        doubts: list[ClientError] = []
        try:
            moved = await self._api.ask(api.CANCEL_DOCUMENT, {"id": job_id}, api.MoveAnswer, doubts=doubts)
        except InvalidState as error:
            # A try whose answer was lost may have cancelled it.
            if doubts and error.extensions.get("status") == JobStatus.CANCELLED.name:
                return await self._found(job_id)
            raise
        return moved.job.snapshot()

    async def update(self, job_id: str, changes: Edit) -> JobSnapshot:
        """Change a job that has not started; asked again after a lost answer, which changes nothing more."""
        given = {"id": job_id, "input": update_input_of(changes)}
        with _named_as_options():
            moved = await self._api.ask(api.UPDATE_DOCUMENT, given, api.MoveAnswer)
        return moved.job.snapshot()

    async def retry(self, job_id: str, payload: Creation | None = None) -> JobSnapshot:
        """Run a job again, and return it; not sent again after a lost answer, which might run it twice."""
        # Servers from before edits know no payload of a retry.
        document = api.RETRY_DOCUMENT if payload is None else api.RETRY_WITH_DOCUMENT
        given = {"id": job_id, **raw_payload_of(payload)}
        with _named_as_options():
            moved = await self._api.ask(document, given, api.MoveAnswer, repeatable=False)
        return moved.job.snapshot()

    async def delete(self, job_id: str) -> bool:
        """Delete a job that does not run; asked again after a lost answer, which may have been that it was there."""
        doubts: list[ClientError] = []
        try:
            answer = await self._api.ask(api.DELETE_DOCUMENT, {"id": job_id}, api.DeleteAnswer, doubts=doubts)
        except NotFound:
            # To whoever sees a part of the jobs, one that an earlier try has deleted was never there.
            if not doubts:
                raise
            return True
        return answer.deleted or bool(doubts)

    async def pause_queue(self, queue: str, reason: str | None, until: datetime | None) -> Pause:
        """Pause a queue, and return its pause; asked again after a lost answer, which changes nothing more."""
        given = {"name": queue, "reason": reason, "until": until}
        paused = (await self._api.ask(api.PAUSE_DOCUMENT, given, api.QueueAnswer)).queue.paused
        # None if somebody has resumed it meanwhile, or it was only for a moment.
        return paused or Pause(at=clock.now(), reason=reason, until=until)

    async def resume_queue(self, queue: str) -> None:
        """End the pause of a queue; asked again after a lost answer, which changes nothing more."""
        await self._api.ask(api.RESUME_DOCUMENT, {"name": queue}, api.QueueAnswer)

    async def set_queue_limits(self, queue: str, limits: Limits) -> None:
        """Limit a queue; asked again after a lost answer, which changes nothing more."""
        given = {
            "concurrency": limits.concurrency,
            "concurrencyPerKey": limits.concurrency_per_key,
            "perSecond": limits.per_second,
        }
        await self._api.ask(api.LIMITS_DOCUMENT, {"name": queue, "limits": given}, api.LimitsAnswer)

    async def jobs(self, wanted: JobFilter, first: int, after: str | None) -> JobPage:
        """Return a page of jobs, newest first."""
        variables = {"filter": api.filter_input_of(wanted), "first": first, "after": after}
        return (await self._api.ask(api.JOBS_DOCUMENT, variables, api.PageAnswer)).page

    # Its events.

    async def events(self, job_id: str, after: str | None) -> AsyncGenerator[JobEvent, None]:
        """Yield the job's events, each once, over as many connections as it takes."""
        outage, cursor = self._api.outage(of_stream=True), after
        while True:
            variables = {"id": job_id, "after": cursor}
            try:
                async with aclosing(self._api.events(api.EVENTS_DOCUMENT, variables, cursor, api.ShownEvent)) as shown:
                    async for one in shown:
                        outage.is_over()
                        cursor = one.cursor
                        yield one.event()
            except CutOff as cut:
                await outage.wait(cut.error, cut.retry)
            else:
                return

    async def _ended_jobs(self, job_ids: list[str]) -> AsyncGenerator[str, None]:
        """Yield the ids of those of the jobs that end, until the connection is lost and may be asked for again."""
        outage, has_stood = self._api.outage(of_stream=True), False
        while not has_stood:
            try:
                async with aclosing(self._api.events(api.ENDS_DOCUMENT, {"ids": job_ids}, None, api.EndEvent)) as ends:
                    async for end in ends:
                        yield end.job.id
                has_stood = True
            except CutOff as cut:
                has_stood = cut.has_stood
                await outage.wait(cut.error, cut.retry)

    async def _missing(self, job_ids: list[str]) -> list[str]:
        """Return those of the jobs that there are not any more."""
        wanted = {"filter": {"ids": job_ids}}
        answer = await self._api.ask(api.THERE_DOCUMENT, wanted, api.IdsAnswer, lasting=True)
        there = {job.id for job in answer.nodes}
        # The process that answers may be behind: what it does not list it looks up in the log.
        return [job_id for job_id in job_ids if job_id not in there and await self.find(job_id, lasting=True) is None]

    # Its files.

    async def artifacts(self, job_id: str) -> list[ArtifactInfo]:
        """Return the files that are complete, by name."""
        return [file.info for file in await self._files(job_id)]

    async def _files(self, job_id: str) -> list[api.FileOfJob]:
        answer = await self._api.ask_for(api.ARTIFACTS_DOCUMENT, {"id": job_id}, api.FilesAnswer)
        if answer is None:
            raise _no_job(job_id)
        return answer.artifacts

    async def artifact(self, job_id: str, name: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file; what is cut off is asked for from there on."""
        outage, digest, size = self._api.outage(), sha256(), 0
        first: api.FileOfJob | None = None
        while first is None or size < first.size_bytes:
            # Asked for again each time, because its address is signed for some minutes.
            file = next((one for one in await self._files(job_id) if one.name == name), None)
            if file is None:
                raise NotFound(f"The job {job_id} has no file {name!r}.", {"code": "NOT_FOUND", "jobId": job_id})
            first = first or file
            if file.sha256 != first.sha256:
                raise DamagedArtifact(f"The file {name!r} of the job {job_id} was replaced while it was read.")
            try:
                async with aclosing(self._api.download(file.url, size, f'"{file.sha256}"')) as chunks:
                    async for chunk in chunks:
                        outage.is_over()
                        digest.update(chunk)
                        size += len(chunk)
                        yield chunk
            except CutOff as cut:
                await outage.wait(cut.error)
            else:
                break
        if digest.hexdigest() != first.sha256:
            raise DamagedArtifact(f"The file {name!r} of the job {job_id} is not what was saved.")


def _no_job(job_id: str) -> NotFound:
    return NotFound(f"There is no job {job_id!r}.", {"code": "NOT_FOUND", "jobId": job_id})


@contextmanager
def _named_as_options() -> Iterator[None]:
    """Raise errors about an edit with the names that options have."""
    try:
        yield
    except (InvalidArgument, InvalidPayload) as error:
        extensions = dict(error.extensions)
        if "fields" in extensions:
            extensions["fields"] = [{**one, "path": option_of(one["path"])} for one in error.fields]
        else:
            extensions["argument"] = option_of(str(extensions.get("argument")))
        raise refusal(error.message, extensions) from None


def _of_batch(error: ClientError, keys: list[str]) -> ClientError:
    """Return the error of a creation by the names of the client, and with what was stored of several."""
    extensions = dict(error.extensions)
    place = None
    if "fields" in extensions:
        placed = [api.place_of(one["path"]) for one in error.fields]
        place = placed[0][0] if placed else None
        extensions["fields"] = [{**one, "path": path} for one, (_, path) in zip(error.fields, placed, strict=True)]
    elif "argument" in extensions:
        place, extensions["argument"] = api.place_of(str(extensions["argument"]))
    accepted = dict(zip(extensions.get("acceptedInputs", ()), extensions.get("acceptedIds", ()), strict=False))
    uncertain = extensions.get("uncertainInputs", ())
    by_key = {keys[at]: job_id for at, job_id in accepted.items()}
    doubtful = {keys[at] for at in uncertain}
    # Of several, the first that was not stored: also if none was.
    if place is None and len(keys) > 1 and ("acceptedInputs" in extensions or uncertain):
        place = next((at for at, key in enumerate(keys) if key not in by_key), None)
    if place is not None:
        extensions["input"] = place
    told = refusal(error.message, extensions) if error.code is not None else error
    if len(keys) == 1 or not (accepted or uncertain):
        return told
    created = [CreatedJob(by_key[key]) if key in by_key else None for key in keys]
    stored = sum(job is not None for job in created)
    partly = PartlyCreated(
        f"{stored} of {len(keys)} jobs were stored. The first that was not: {error.message}",
        created,
        [at for at, key in enumerate(keys) if key in doubtful],
    )
    partly.__cause__ = told
    return partly
