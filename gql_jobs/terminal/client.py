"""The public GraphQL API over HTTP, for commands: what it answers, and events that outlast a connection.

Queries and mutations are one POST each. Events come as server-sent events, and are asked for again behind the last one
wherever the connection, or the process at its other end, is lost.
"""

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from gql_jobs.client.errors import Unreachable
from gql_jobs.client.event_stream import (
    ANSWER_BEGINS_WITHIN,
    CONNECT_WITHIN,
    PASSING,
    SILENT_FOR,
    ConnectionBackoff,
    EventStream,
    errors_in,
    event_in,
    named_wait,
)
from gql_jobs.logs import hide_values
from gql_jobs.processes.listening import LOOPBACK_NAMES
from gql_jobs.terminal import documents

_Answer = TypeVar("_Answer")


class WrittenNumber(str):
    """A number of JSON as it is written, whatever its size and its digits."""

    __slots__ = ()


def exact_json(text: bytes | str) -> Any:
    """Return what a JSON text says, numbers as ``WrittenNumber``.

    :raises ValueError: if it is none.
    :raises RecursionError: if it is nested too deeply.
    """
    return json.loads(text, parse_int=WrittenNumber, parse_float=WrittenNumber, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def json_text(value: Any, *, ascii_only: bool = True) -> str:
    """Return a value, in which there may be a ``WrittenNumber``, as a JSON text.

    :raises RecursionError: if it is nested too deeply.
    """

    def text(value: Any) -> str:
        if isinstance(value, WrittenNumber):
            return value
        if isinstance(value, dict):
            return f"{{{', '.join(f'{text(name)}: {text(item)}' for name, item in value.items())}}}"
        if isinstance(value, list):
            return f"[{', '.join(map(text, value))}]"
        return json.dumps(value, ensure_ascii=ascii_only)

    return text(value)


class Refused(Exception):
    """The API has answered with errors.

    :param errors: as GraphQL has them; one at least.
    """

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        self.errors = errors
        super().__init__("; ".join(str(one.get("message")) for one in self.errors))

    def extensions(self) -> Iterator[dict[str, Any]]:
        """Yield the extensions of each error."""
        for one in self.errors:
            found = one.get("extensions")
            yield found if isinstance(found, dict) else {}

    @property
    def codes(self) -> frozenset[str]:
        """The stable codes of the errors, where they have one."""
        return frozenset(str(found["code"]) for found in self.extensions() if "code" in found)

    @property
    def retry_after(self) -> float:
        """Seconds after which the API says that it may be asked again; 0 where it does not."""
        return max(map(named_wait, self.extensions()), default=0.0)


class ApiClient:
    """A client of one API: a context manager.

    :param address: of the GraphQL endpoint.
    :param token: a key or token; None to ask as nobody.
    """

    def __init__(self, address: str, token: str | None) -> None:
        self.address = address
        parts = urlsplit(address)
        # Reading all authorities takes longer than a query, and plain HTTP needs none.
        verify = ssl.create_default_context() if parts.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}"} if token is not None else {},
            timeout=httpx.Timeout(ANSWER_BEGINS_WITHIN, connect=CONNECT_WITHIN),
            verify=verify,
            # No proxy stands between this machine and itself.
            trust_env=parts.hostname not in LOOPBACK_NAMES,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # Each raises what ``ask`` or ``_events`` raises.

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Return a job with its payload and result; None for an unknown id."""
        found: dict[str, Any] | None = self.ask(documents.JOB, id=job_id)["job"]
        return found

    def original(self, job_id: str) -> dict[str, Any] | None:
        """Return what another job is made of, as ``exact_json`` reads it; None for an unknown id."""
        data = self._data_of(self._answer(documents.ORIGINAL, {"id": job_id}), exact_json)
        found: dict[str, Any] | None = data["job"]
        return found

    def input_types(self) -> dict[str, dict[str, Any]]:
        """Return the types of the schema by their names, with the members of inputs and the values of enums."""
        return {one["name"]: one for one in self.ask(documents.INPUT_TYPES)["__schema"]["types"]}

    def jobs(self, wanted: dict[str, Any], first: int, after: str | None) -> dict[str, Any]:
        """Return a page of jobs: ``edges`` and ``pageInfo``."""
        page: dict[str, Any] = self.ask(documents.JOBS, filter=wanted, first=first, after=after)["jobs"]
        return page

    def payload_schemas(self) -> dict[str, Any]:
        """Return the JSON Schema of each job type's payload, by the type's name."""
        return {one["name"]: one["payloadSchema"] for one in self.ask(documents.TYPES)["jobTypes"]}

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Create a job; return ``job`` and ``deduplicated``."""
        created: dict[str, Any] = self.ask(documents.CREATE, input=wanted)["createJob"]
        return created

    def update(self, job_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Change a job that has not started, and return it."""
        updated: dict[str, Any] = self.ask(documents.UPDATE, id=job_id, input=changes)["updateJob"]["job"]
        return updated

    def retry(self, job_id: str, payload: str | None = None) -> dict[str, Any]:
        """Run a job again, and return it.

        :param payload: a JSON text in the place of its own payload.
        """
        given = {} if payload is None else {"payload": payload}
        # Servers from before edits know no payload of a retry.
        document = documents.RETRY if payload is None else documents.RETRY_WITH
        retried: dict[str, Any] = self.ask(document, id=job_id, **given)["retryJob"]["job"]
        return retried

    def dead_letter_groups(self, wanted: dict[str, Any], first: int) -> list[dict[str, Any]]:
        """Return the largest groups of dead letters that failed alike, of those that match."""
        return list(self.ask(documents.DEAD_LETTER_GROUPS, filter=wanted, first=first)["deadLetterGroups"])

    def plan_bulk(self, action: str, wanted: dict[str, Any], group: str | None = None) -> dict[str, Any]:
        """Plan an action; return ``count``, ``sample`` and ``token``, which no output of this process will show."""
        plan: dict[str, Any] = self.ask(documents.PLAN_BULK, action=action, filter=wanted, group=group)["planBulk"]
        hide_values([plan["token"]])
        return plan

    def run_bulk(self, token: str, first: int | None, max_per_second: float | None) -> dict[str, Any]:
        """Begin to run a plan, and return the run."""
        run: dict[str, Any] = self.ask(documents.RUN_BULK, token=token, first=first, maxPerSecond=max_per_second)[
            "runBulk"
        ]
        return run

    def stop_bulk(self, run_id: str) -> dict[str, Any]:
        """Have a run end before its next job, and return it: maybe RUNNING for two more seconds."""
        run: dict[str, Any] = self.ask(documents.STOP_BULK, id=run_id)["stopBulk"]
        return run

    def bulk_run(self, run_id: str) -> dict[str, Any] | None:
        """Return a run; None if there is none for whoever asks, or not any more."""
        run: dict[str, Any] | None = self.ask(documents.BULK_RUN, id=run_id)["bulkRun"]
        return run

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job, and return it."""
        cancelled: dict[str, Any] = self.ask(documents.CANCEL, id=job_id)["cancelJob"]["job"]
        return cancelled

    def delete(self, job_id: str) -> dict[str, Any]:
        """Delete a job, and return whether it was there."""
        outcome: dict[str, Any] = self.ask(documents.DELETE, id=job_id)["deleteJob"]
        return outcome

    def queues(self) -> list[dict[str, Any]]:
        """Return the queues."""
        return list(self.ask(documents.QUEUES)["queues"])

    def pause_queue(self, name: str, reason: str | None, until: str | None) -> dict[str, Any]:
        """Pause a queue, and return it."""
        answer = self.ask(documents.PAUSE_QUEUE, name=name, reason=reason, until=until)
        queue: dict[str, Any] = answer["pauseQueue"]["queue"]
        return queue

    def resume_queue(self, name: str) -> dict[str, Any]:
        """End the pause of a queue, and return it."""
        queue: dict[str, Any] = self.ask(documents.RESUME_QUEUE, name=name)["resumeQueue"]["queue"]
        return queue

    def set_limits(self, name: str, limits: dict[str, Any]) -> dict[str, Any]:
        """Limit a queue, and return what ``setQueueLimits`` answers."""
        answer: dict[str, Any] = self.ask(documents.SET_LIMITS, name=name, limits=limits)["setQueueLimits"]
        return answer

    def schedules(self) -> list[dict[str, Any]]:
        """Return all schedules, sorted by name."""
        found: list[dict[str, Any]] = []
        while page := self.ask(documents.SCHEDULE_PAGE, after=found[-1]["name"] if found else None)["schedules"]:
            found += page
        return found

    def schedule(self, name: str) -> dict[str, Any] | None:
        """Return a schedule; None if there is none."""
        shown: dict[str, Any] | None = self.ask(documents.ONE_SCHEDULE, name=name)["schedule"]
        return shown

    def schedule_preview(self, asked: dict[str, Any]) -> list[str]:
        """Return when such a schedule would be due."""
        return list(self.ask(documents.SCHEDULE_PREVIEW, **asked)["schedulePreview"])

    def upsert_schedule(self, given: dict[str, Any]) -> dict[str, Any]:
        """Define a schedule, and return it."""
        answer = self.ask(documents.UPSERT_SCHEDULE, input=given)
        shown: dict[str, Any] = answer["upsertRawSchedule"]["schedule"]
        return shown

    def pause_schedule(self, name: str, *, paused: bool) -> dict[str, Any]:
        """Pause a schedule or have it go on, and return it."""
        answer = self.ask(documents.PAUSE_SCHEDULE, name=name, paused=paused)
        shown: dict[str, Any] = answer["pauseSchedule"]["schedule"]
        return shown

    def delete_schedule(self, name: str) -> dict[str, Any]:
        """Delete a schedule, and return whether it was there."""
        outcome: dict[str, Any] = self.ask(documents.DELETE_SCHEDULE, name=name)["deleteSchedule"]
        return outcome

    def run_schedule(self, name: str) -> dict[str, Any]:
        """Create a job of a schedule at once, and return it."""
        job: dict[str, Any] = self.ask(documents.RUN_SCHEDULE, name=name)["runSchedule"]["job"]
        return job

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers."""
        return list(self.ask(documents.WORKERS)["workers"])

    def progress(self, job_id: str, notify: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """Yield the events of a job, from its latest one to its terminal one."""
        return self._events(documents.PROGRESS, {"id": job_id}, notify)

    def events(
        self, wanted: dict[str, Any], after: str | None, notify: Callable[[str], None]
    ) -> Iterator[dict[str, Any]]:
        """Yield the events of all jobs that match, from now on or from behind a cursor."""
        return self._events(documents.EVENTS, {"filter": wanted, "after": after}, notify)

    def bulk_progress(self, run_id: str, notify: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """Yield the states of a run from the present one to its last one, even if the first connection fails."""
        return self._events(documents.BULK_PROGRESS, {"id": run_id}, notify, has_stood=True)

    def until_answered(self, ask: Callable[[], _Answer], notify: Callable[[str], None]) -> _Answer:
        """Return what ``ask`` returns, which does no harm if it is done twice: again until an answer comes.

        :param notify: is told in a sentence, once, when there is no connection and when it is back.
        :raises Refused: if the API refuses for a reason that waiting does not mend.
        """
        outage = _Outage(self.address, notify)
        while True:
            try:
                answer = ask()
            except Refused as refusal:
                if not refusal.codes & PASSING:
                    raise
                outage.wait(str(refusal), refusal.retry_after)
            except Unreachable as error:
                outage.wait(str(error), 0.0)
            else:
                outage.is_over()
                return answer

    def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return the data of a query or mutation.

        :raises Refused: if the answer has errors.
        :raises Unreachable: if there is none. Of a mutation the sentence says whether it may have been done.
        """
        return self._data_of(self._answer(document, variables))

    def _answer(self, document: str, variables: Mapping[str, Any]) -> httpx.Response:
        try:
            return self._http.post(
                self.address,
                content=_body(document, variables),
                headers={"Content-Type": "application/json", "Accept": "application/json"},
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(self._no_answer(error)) from error
        except httpx.HTTPError as error:
            doubt = " Whether it was done is not known." if document.lstrip().startswith("mutation") else ""
            raise Unreachable(self._no_answer(error) + doubt) from error

    def _events(
        self, document: str, variables: Mapping[str, Any], notify: Callable[[str], None], *, has_stood: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Yield the events of a subscription until it completes, each once, whatever becomes of the connection.

        :param document: its one field takes ``$after`` and selects ``cursor``, or else begins with the present state.
        :param variables: ``after`` may be among them.
        :param notify: is told in a sentence, once, when the connection is lost and when it is back.
        :param has_stood: whether a connection that fails counts as lost, even if it is the first.
        :raises Refused: if the API does not serve them, or not any more.
        :raises Unreachable: if the first connection fails; later ones are tried until one stands.
        """
        outage = _Outage(self.address, notify)
        outage.has_stood = has_stood
        cursor: str | None = variables.get("after")
        retry = 0.0
        while True:
            stream = EventStream()
            try:
                with self._stream(document, {**variables, "after": cursor}, cursor) as chunks:
                    for chunk in chunks:
                        for kind, data in stream.feed(chunk):
                            if kind == "complete":
                                return
                            event = _event_of(data)
                            outage.is_over()
                            cursor = event.get("cursor")
                            yield event
                        outage.is_over()
                why, wait = "the stream has broken off", 0.0
            except _Completed:
                return
            except Refused as refusal:
                if not outage.has_stood or not refusal.codes & PASSING:
                    raise
                why, wait = str(refusal), refusal.retry_after
            except (httpx.HTTPError, Unreachable) as error:
                why, wait = _reason(error), 0.0
                if not outage.has_stood:
                    raise Unreachable(self._no_answer(error)) from error
            retry = stream.retry or retry
            outage.wait(why, max(wait, retry))

    @contextmanager
    def _stream(self, document: str, variables: dict[str, Any], cursor: str | None) -> Iterator[Iterator[bytes]]:
        """Open a stream, and yield the chunks of its body.

        :raises _Completed: if nothing comes after the cursor, and nothing will.
        :raises Refused: if the API refuses it.
        :raises Unreachable: if something else than a stream is answered.
        """
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if cursor is not None:
            headers["Last-Event-ID"] = cursor
        timeout = httpx.Timeout(SILENT_FOR, connect=CONNECT_WITHIN)
        content = _body(document, variables)
        with self._http.stream("POST", self.address, content=content, headers=headers, timeout=timeout) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                raise _Completed
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                response.read()
                self._data_of(response)
                raise Unreachable(f"{self.address} does not answer with events.")
            yield response.iter_bytes()

    def _data_of(self, response: httpx.Response, read: Callable[[bytes], Any] = json.loads) -> dict[str, Any]:
        try:
            answer = read(response.content)
        except ValueError:
            answer = None
        if errors := errors_in(answer):
            raise Refused(errors)
        data = answer.get("data") if isinstance(answer, dict) else None
        if response.status_code != httpx.codes.OK or not isinstance(data, dict):
            status = f"{response.status_code} {response.reason_phrase}".strip()
            raise Unreachable(f"{self.address} answers {status}, and nothing of GraphQL: is it the API's address?")
        return data

    def _no_answer(self, error: Exception) -> str:
        if isinstance(error, Unreachable):
            return str(error)
        return f"The API at {self.address} does not answer ({_reason(error)})."


class _Completed(Exception):
    """A resumed stream has nothing left to tell."""


class _Outage:
    """Whether a connection stands, who is told of it, and how long is waited for the next one."""

    def __init__(self, address: str, notify: Callable[[str], None]) -> None:
        self._address = address
        self._notify = notify
        self._lost_at: float | None = None
        self._backoff = ConnectionBackoff()
        self.has_stood = False
        """Whether any connection has stood."""

    def is_over(self) -> None:
        """Note that the connection stands."""
        if self._lost_at is not None:
            self._notify(f"The connection is back after {time.monotonic() - self._lost_at:.0f} s.")
        self._lost_at, self.has_stood = None, True
        self._backoff.is_over()

    def wait(self, why: str, named: float) -> None:
        """Note that the connection is lost, and wait for the next try: at random, and longer each time.

        :param named: seconds that the server has named; 0 where it has not.
        """
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            since = time.strftime("%H:%M:%S")
            self._notify(f"The connection to {self._address} is lost since {since} ({why}); trying until it is back.")
        time.sleep(self._backoff.wait(named))


def _body(document: str, variables: Mapping[str, Any]) -> bytes:
    # In ASCII, so that what is no Unicode text is the API's to refuse.
    return json_text({"query": document, "variables": dict(variables)}).encode()


def _event_of(data: bytes) -> dict[str, Any]:
    """Return the event of one result.

    :raises Refused: if it has errors instead.
    :raises Unreachable: if it is no result.
    """
    event, errors = event_in(data)
    if event is None:
        raise Refused(errors)
    return event


def _reason(error: Exception) -> str:
    """Return why nothing came, in few words."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error).rstrip(".") or type(error).__name__
