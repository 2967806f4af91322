"""The public GraphQL API over HTTP: where it is, who asks, what it answers, and events that outlast a connection.

Queries and mutations are one POST each. Events come as server-sent events, and are asked for again behind the last one
wherever the connection, or the process at its other end, is lost.
"""

import json
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from gql_jobs.environment import PREFIX, values_of_files, variables_and_file
from gql_jobs.logs import hide_values
from gql_jobs.processes.listening import LOOPBACK_NAMES
from gql_jobs.processes.lock import address_of_dev

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
"""Where ``gql-jobs api`` and ``gql-jobs dev`` listen unless they are told otherwise."""
_CONNECT_WITHIN = 10.0
"""Seconds until a connection has to stand."""
_ANSWER_WITHIN = 90.0
"""Seconds until an answer has to begin: longer than the server takes to give up anything by itself."""
_SILENT_FOR = 40.0
"""Seconds without a byte after which a stream counts as lost; the server says something every 12."""
_MAX_MESSAGE = 16 << 20
"""Bytes of one server-sent event, at most."""
_FIRST_WAIT = 1.0
"""Seconds until a lost stream is asked for again, where the server has named no time."""
_LONGEST_WAIT = 15.0
"""Seconds between two tries, at most, unless the server names a longer time."""
_LONGEST_NAMED_WAIT = 120.0
"""Seconds that the server may name, at most."""
_PASSING = frozenset({"QUEUE_UNAVAILABLE", "RATE_LIMITED", "SERVER_STOPPING", "TIMEOUT"})
"""Codes of refusals after which the same may be asked for again."""

_FIELDS = """
fragment Fields on Job {
  id type queue status priority progress progressMessage attempt retryCount maxRetries workerId
  error { message type attempt at retryable } tags tenant createdBy
  createdAt updatedAt runAt startedAt finishedAt nextAttemptAt durationMs
}"""
_OF_EVENT = """
    __typename cursor at actor job { ...Fields }
    ... on JobScheduled { runAt }
    ... on JobStarted { workerId attempt supersedes }
    ... on JobProgress { progress message }
    ... on JobFailed { error { message type attempt at retryable } nextAttemptAt }
    ... on JobCompleted { durationMs }
    ... on JobDeadLetter { error { message type attempt at retryable } }"""
_JOB = f"""query Job($id: ID!) {{
  job(id: $id) {{ ...Fields waiting {{ reason detail until ahead }}
    rawPayload rawResult artifacts {{ name url contentType sizeBytes sha256 }} }}
}}{_FIELDS}"""
_PROGRESS = f"""subscription Progress($id: ID!, $after: String) {{
  jobProgress(id: $id, after: $after) {{{_OF_EVENT}
    ... on JobCompleted {{ job {{ rawResult }} }}
  }}
}}{_FIELDS}"""
_EVENTS = f"""subscription Events($filter: JobFilter, $after: String) {{
  jobEvents(filter: $filter, after: $after) {{{_OF_EVENT}
  }}
}}{_FIELDS}"""
_JOBS = f"""query Jobs($filter: JobFilter, $first: Int, $after: String) {{
  jobs(filter: $filter, first: $first, after: $after) {{
    edges {{ cursor node {{ ...Fields }} }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}{_FIELDS}"""
_COUNT = "query Count($filter: JobFilter!) { jobs(filter: $filter, first: 0) { totalCount } }"
_TYPES = "query Types { jobTypes { name payloadSchema } }"
_CREATE = f"""mutation Create($input: CreateJobInput!) {{
  createJob(input: $input) {{ deduplicated job {{ ...Fields }} }}
}}{_FIELDS}"""
_RETRY = f"mutation Retry($id: ID!) {{ retryJob(id: $id) {{ job {{ ...Fields }} }} }}{_FIELDS}"
_RETRY_MANY = """mutation RetryMany($filter: JobFilter!) {
  retryJobs(filter: $filter) { retriedCount remainingCount }
}"""
_CANCEL = f"mutation Cancel($id: ID!) {{ cancelJob(id: $id) {{ job {{ ...Fields }} }} }}{_FIELDS}"
_QUEUES = "query Queues { queues { name counts { status count } oldestQueuedAt workers unservedTypes } }"
_WORKERS = """query Workers {
  workers { id hostname queues jobTypes concurrency running startedAt lastSeenAt unable { jobType reason } }
}"""


class Refused(Exception):
    """The API has answered with errors.

    :param errors: as GraphQL has them; one at least.
    """

    def __init__(self, errors: list[Any]) -> None:
        self.errors: list[dict[str, Any]] = [one if isinstance(one, dict) else {"message": str(one)} for one in errors]
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
        waits = [found.get("retryAfter") for found in self.extensions()]
        return min(max((float(wait) for wait in waits if isinstance(wait, int)), default=0.0), _LONGEST_NAMED_WAIT)


class Unreachable(Exception):
    """Nothing answers at the address, or nothing that speaks GraphQL; the message is a sentence."""


class BadAddress(ValueError):
    """What was given is no address of an API, or no token; the message is a sentence that shows neither."""


def address_and_token(url: str | None, token: str | None) -> tuple[str, str | None]:
    """Return the GraphQL endpoint to ask, and what to say who asks; None for nothing.

    What is not given is taken from ``GQL_JOBS_URL`` and ``GQL_JOBS_TOKEN``, each also from a file (``…_FILE``) and from
    ``.env``; then the address is that of the ``gql-jobs dev`` that runs in the data folder, else ``DEFAULT_ADDRESS``.

    :raises BadAddress: if a value cannot be used, or its file cannot be read.
    """
    found: dict[str, str] = {}
    for given in reversed(variables_and_file()):
        values, problems = values_of_files(("URL", "TOKEN", "DATA_DIR"), given)
        if problems:
            raise BadAddress(" ".join(problems))
        found |= {name: value for name, value in {**given, **values}.items() if value}
    token = token or found.get("TOKEN")
    if token is not None:
        token = token.strip()
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise BadAddress("The token has characters that no key and no token has.")
        hide_values([token])
    address = url or found.get("URL") or address_of_dev(Path(found.get("DATA_DIR", ".gql-jobs"))) or DEFAULT_ADDRESS
    return _endpoint(address), token or None


def _endpoint(address: str) -> str:
    try:
        parts = urlsplit(address)
        is_usable = parts.scheme in {"http", "https"} and bool(httpx.URL(address).host) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        is_usable = False
    if not is_usable or not address.isprintable() or " " in address:
        raise BadAddress(f"The address of the API is no URL such as {DEFAULT_ADDRESS} ({PREFIX}URL or --url).")
    if parts.username is not None or parts.password is not None:
        raise BadAddress(f"An address holds no user and no password: give a key or token by {PREFIX}TOKEN.")
    return parts._replace(path=parts.path.rstrip("/") or "/graphql", fragment="").geturl()


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
            timeout=httpx.Timeout(_ANSWER_WITHIN, connect=_CONNECT_WITHIN),
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
        found: dict[str, Any] | None = self.ask(_JOB, id=job_id)["job"]
        return found

    def jobs(self, wanted: dict[str, Any], first: int, after: str | None) -> dict[str, Any]:
        """Return a page of jobs: ``edges`` and ``pageInfo``."""
        page: dict[str, Any] = self.ask(_JOBS, filter=wanted, first=first, after=after)["jobs"]
        return page

    def count(self, wanted: dict[str, Any]) -> int:
        """Return how many jobs match a filter."""
        return int(self.ask(_COUNT, filter=wanted)["jobs"]["totalCount"])

    def payload_schemas(self) -> dict[str, Any]:
        """Return the JSON Schema of each job type's payload, by the type's name."""
        return {one["name"]: one["payloadSchema"] for one in self.ask(_TYPES)["jobTypes"]}

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Create a job; return ``job`` and ``deduplicated``."""
        created: dict[str, Any] = self.ask(_CREATE, input=wanted)["createJob"]
        return created

    def retry(self, job_id: str) -> dict[str, Any]:
        """Run a job again, and return it."""
        retried: dict[str, Any] = self.ask(_RETRY, id=job_id)["retryJob"]["job"]
        return retried

    def retry_many(self, wanted: dict[str, Any]) -> dict[str, int]:
        """Run jobs again that match a filter; return ``retriedCount`` and ``remainingCount``."""
        counts: dict[str, int] = self.ask(_RETRY_MANY, filter=wanted)["retryJobs"]
        return counts

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job, and return it."""
        cancelled: dict[str, Any] = self.ask(_CANCEL, id=job_id)["cancelJob"]["job"]
        return cancelled

    def queues(self) -> list[dict[str, Any]]:
        """Return the queues."""
        return list(self.ask(_QUEUES)["queues"])

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers."""
        return list(self.ask(_WORKERS)["workers"])

    def progress(self, job_id: str, notify: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """Yield the events of a job, from its latest one to its terminal one."""
        return self._events(_PROGRESS, {"id": job_id}, notify)

    def events(
        self, wanted: dict[str, Any], after: str | None, notify: Callable[[str], None]
    ) -> Iterator[dict[str, Any]]:
        """Yield the events of all jobs that match, from now on or from behind a cursor."""
        return self._events(_EVENTS, {"filter": wanted, "after": after}, notify)

    def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return the data of a query or mutation.

        :raises Refused: if the answer has errors.
        :raises Unreachable: if there is none. Of a mutation the sentence says whether it may have been done.
        """
        try:
            response = self._http.post(
                self.address,
                content=_body(document, variables),
                headers={"Content-Type": "application/json", "Accept": "application/json"},
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(self._no_answer(error)) from error
        except httpx.HTTPError as error:
            doubt = " Whether it was done is not known." if document.lstrip().startswith("mutation") else ""
            raise Unreachable(self._no_answer(error) + doubt) from error
        return self._data_of(response)

    def _events(
        self, document: str, variables: Mapping[str, Any], notify: Callable[[str], None]
    ) -> Iterator[dict[str, Any]]:
        """Yield the events of a subscription until it completes, each once, whatever becomes of the connection.

        :param document: its one field takes ``$after``, and selects ``cursor``.
        :param variables: ``after`` may be among them.
        :param notify: is told in a sentence, once, when the connection is lost and when it is back.
        :raises Refused: if the API does not serve them, or not any more.
        :raises Unreachable: if the first connection fails; later ones are tried until one stands.
        """
        outage = _Outage(self.address, notify)
        cursor: str | None = variables.get("after")
        retry = 0.0
        while True:
            stream = _EventStream()
            try:
                with self._stream(document, {**variables, "after": cursor}, cursor) as chunks:
                    for chunk in chunks:
                        for kind, data in stream.feed(chunk):
                            if kind == "complete":
                                return
                            event = _event_of(data)
                            outage.is_over()
                            cursor = event["cursor"]
                            yield event
                        outage.is_over()
                why, wait = "the stream has broken off", 0.0
            except _Completed:
                return
            except Refused as refusal:
                if not outage.has_stood or not refusal.codes & _PASSING:
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
        timeout = httpx.Timeout(_SILENT_FOR, connect=_CONNECT_WITHIN)
        content = _body(document, variables)
        with self._http.stream("POST", self.address, content=content, headers=headers, timeout=timeout) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                raise _Completed
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                response.read()
                self._data_of(response)
                raise Unreachable(f"{self.address} does not answer with events.")
            yield response.iter_bytes()

    def _data_of(self, response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if isinstance(answer, dict) and isinstance(answer.get("errors"), list) and answer["errors"]:
            raise Refused(answer["errors"])
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
        self._tries = 0
        self.has_stood = False
        """Whether any connection has stood."""

    def is_over(self) -> None:
        """Note that the connection stands."""
        if self._lost_at is not None:
            self._notify(f"The connection is back after {time.monotonic() - self._lost_at:.0f} s.")
        self._lost_at, self._tries, self.has_stood = None, 0, True

    def wait(self, why: str, named: float) -> None:
        """Note that the connection is lost, and wait for the next try: at random, and longer each time.

        :param named: seconds that the server has named; 0 where it has not.
        """
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            since = time.strftime("%H:%M:%S")
            self._notify(f"The connection to {self._address} is lost since {since} ({why}); trying until it is back.")
        longest = max(named, min((named or _FIRST_WAIT) * 2**self._tries, _LONGEST_WAIT))
        self._tries = min(self._tries + 1, 10)
        time.sleep(random.uniform(named or longest / 2, longest))  # noqa: S311 - a wait is no secret


class _EventStream:
    """Reads server-sent events from bytes, by hand: what is text may hold all that Unicode calls a line break."""

    def __init__(self) -> None:
        self._rest = b""
        self._kind = ""
        self._data: list[bytes] = []
        self.retry = 0.0
        """Seconds after which the server wants to be asked again; 0 while it has not said."""

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield the kind and the data of each event that is complete with these bytes.

        :raises Unreachable: if an event is larger than any that the API sends.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) + sum(map(len, self._data)) > _MAX_MESSAGE:
            raise Unreachable(f"An event has more than {_MAX_MESSAGE} bytes.")
        for line in lines:
            name, colon, value = line.removesuffix(b"\r").partition(b":")
            value = value.removeprefix(b" ")
            if name == b"event":
                self._kind = value.decode("utf-8", "replace")
            elif name == b"data":
                self._data.append(value)
            elif name == b"retry" and value.isdigit():
                self.retry = min(int(value) / 1000, _LONGEST_NAMED_WAIT)
            elif not name and not colon and self._kind:
                kind, data, self._kind, self._data = self._kind, b"\n".join(self._data), "", []
                yield kind, data


def _body(document: str, variables: Mapping[str, Any]) -> bytes:
    # In ASCII, so that what is no Unicode text is the API's to refuse.
    return json.dumps({"query": document, "variables": dict(variables)}).encode()


def _event_of(data: bytes) -> dict[str, Any]:
    """Return the event of one result.

    :raises Refused: if it has errors instead.
    :raises Unreachable: if it is no result.
    """
    try:
        result = json.loads(data)
        if result.get("errors"):
            raise Refused(result["errors"])
        (event,) = result["data"].values()
        str(event["cursor"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unreachable("What came is no event of this API.") from error
    return dict(event)


def _reason(error: Exception) -> str:
    """Return why nothing came, in few words."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error).rstrip(".") or type(error).__name__
