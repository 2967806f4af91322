"""GraphQL over HTTP against any of several API processes, as a web application behind a load balancer would do it."""

import itertools
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

TIMEOUT = 10.0
"""Seconds that one request may take."""

_FIELD = re.compile(r"(?<={ )\w+")
CREATE = "mutation ($input: CreateJobInput!) { createJob(input: $input) { deduplicated job { id } } }"
CREATE_MANY = "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { jobs { id } } }"
CANCEL = "mutation ($id: ID!) { cancelJob(id: $id) { job { status } } }"
RETRY = "mutation ($id: ID!) { retryJob(id: $id) { job { status } } }"
FIND = "query ($id: ID!) { job(id: $id) { status } }"
LIMIT = (
    "mutation ($name: String!, $limits: QueueLimitsInput!)"
    " { setQueueLimits(name: $name, limits: $limits) { queue { name } } }"
)
SCHEDULE = "mutation ($input: ScheduleInput!) { upsertSchedule(input: $input) { schedule { name } } }"
UNSCHEDULE = "mutation ($name: String!) { deleteSchedule(name: $name) { deleted } }"
COUNT = "query ($status: [JobStatus!]) { jobs(filter: { status: $status }, first: 0) { totalCount } }"


class Refused(Exception):
    """The API answered with an error."""

    def __init__(self, code: str, extensions: dict[str, Any], message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.extensions = extensions


class NotSent(Exception):
    """There was no connection: the request cannot have had an effect."""


class Unanswered(Exception):
    """The connection broke or the time was over: whether the request had an effect is unknown."""


@asynccontextmanager
async def http_pools(count: int = 16) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Many small pools: httpx looks at every connection of a pool at every request. The first is for health checks."""
    async with AsyncExitStack() as stack:
        opening = [httpx.AsyncClient(trust_env=False, verify=False) for _ in range(count + 1)]  # noqa: S501  # no TLS
        yield [await stack.enter_async_context(client) for client in opening]


class Client:
    """Asks the API processes in turn. ``outcomes`` counts what was no answer, by field."""

    def __init__(self, urls: list[str], pools: list[httpx.AsyncClient]) -> None:
        self.http = pools[0]
        self._pools = itertools.cycle(pools[1:] or pools)
        self._urls = itertools.cycle(urls)
        self.outcomes: Counter[str] = Counter()
        self.slowest_refusal: dict[str, float] = {}

    async def ask(self, document: str, *, url: str | None = None, **variables: Any) -> Any:
        """The value of the operation's only field.

        :raises Refused: | NotSent | Unanswered:
        """
        began = time.monotonic()
        name = _FIELD.search(document)[0]  # type: ignore[index]  # every document here has one
        try:
            body = {"query": document, "variables": variables}
            response = await next(self._pools).post(url or next(self._urls), json=body, timeout=TIMEOUT)
            answer = response.json()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            self.outcomes[f"{name}: no connection"] += 1
            raise NotSent(str(error)) from error
        except (httpx.HTTPError, ValueError) as error:
            self.outcomes[f"{name}: {type(error).__name__}"] += 1
            raise Unanswered(type(error).__name__) from error
        for refusal in answer.get("errors") or ():
            extensions = refusal.get("extensions") or {}
            code = extensions.get("code", "?")
            self.outcomes[f"{name}: {code}"] += 1
            if code == "QUEUE_UNAVAILABLE":
                self.slowest_refusal[name] = max(self.slowest_refusal.get(name, 0.0), time.monotonic() - began)
            raise Refused(code, extensions, refusal.get("message", ""))
        (value,) = answer["data"].values()
        return value
