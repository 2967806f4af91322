"""The scalars and enums of the schema: how values are written and read, and what they mean to a client.

Most enums belong to other packages, which know nothing of GraphQL; they are given their descriptions here, in place.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import partial
from operator import methodcaller
from typing import Any, NewType, cast
from uuid import UUID

import strawberry
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from strawberry.scalars import JSON
from strawberry.types.scalar import ScalarDefinition

from gql_jobs.graphql.engine.errors import CODES
from gql_jobs.graphql.engine.strawberry_internals import describe_enum
from gql_jobs.jobs.bulk import BulkAction, BulkState
from gql_jobs.jobs.errors import Unrepresentable
from gql_jobs.jobs.field_kinds import is_int
from gql_jobs.jobs.model import DependencyPolicy, JobPriority, JobStatus, OverlapPolicy
from gql_jobs.jobs.requests import OrderField
from gql_jobs.jobs.schedules import SkipReason
from gql_jobs.jobs.unique_keys import KeyPolicy
from gql_jobs.jobs.viewer import Scope


def _reader(parse: Callable[[str], object], expected: str) -> Callable[[Any], object]:
    def read(value: Any) -> object:
        if isinstance(value, str):
            try:
                return parse(value)
            except (ValueError, InvalidOperation):
                pass
        raise ValueError(f"expected {expected}")

    return read


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _same(value: Any) -> Any:
    return value


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("expected a decimal number, best written as a string")  # noqa: TRY004
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise ValueError("expected a decimal number, best written as a string")
    return number


def _duration(text: str) -> str:
    _DURATION.validate_python(text)
    return text


_DURATION = TypeAdapter(timedelta)


_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,1000}")


def _big_int(value: Any) -> int:
    if isinstance(value, str):
        # Python reads more than that as a number: spaces around it, underscores and digits of other scripts in it.
        if _WHOLE_NUMBER.fullmatch(value):
            return int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    elif isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError("expected a whole number, which may be written as a string")


BigIntValue = NewType("BigIntValue", int)
"""The type of whole numbers that may have more than 32 bits, as Strawberry knows it."""

SCALARS: dict[object, ScalarDefinition] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment in ISO 8601, as `2026-01-31T12:00:00Z`. Without an offset it is taken for UTC; in "
        "answers it always has one.",
        serialize=methodcaller("isoformat"),
        parse_value=_reader(_moment, "a moment in ISO 8601, as 2026-01-31T12:00:00Z"),
    ),
    date: strawberry.scalar(
        name="Date",
        description="A calendar date in ISO 8601, as `2026-01-31`.",
        serialize=methodcaller("isoformat"),
        parse_value=_reader(date.fromisoformat, "a date in ISO 8601, as 2026-01-31"),
    ),
    time: strawberry.scalar(
        name="Time",
        description="A time of day in ISO 8601, as `12:00:00`.",
        serialize=methodcaller("isoformat"),
        parse_value=_reader(time.fromisoformat, "a time in ISO 8601, as 12:00:00"),
    ),
    UUID: strawberry.scalar(
        name="UUID",
        description="A UUID, as `018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e42`.",
        specified_by_url="https://datatracker.ietf.org/doc/html/rfc9562",
        serialize=str,
        parse_value=_reader(UUID, "a UUID"),
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description="A decimal number, written as a string so that no digit is lost.",
        serialize=str,
        parse_value=_decimal,
    ),
    timedelta: strawberry.scalar(
        name="Duration",
        description="A length of time in ISO 8601, as `PT1H30M` or `P1DT0.5S`.",
        serialize=to_jsonable_python,
        parse_value=_reader(_duration, "a length of time in ISO 8601, as PT1H30M"),
    ),
    BigIntValue: strawberry.scalar(
        name="BigInt",
        description="A whole number that may have more than the 32 bits of `Int`, as the size of a file has. Written "
        "as a string, because JavaScript loses digits of numbers from 2^53; may be given as a string or as a number.",
        serialize=str,
        parse_value=_big_int,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value: an object, a list, a string, a number, a boolean or null.",
        serialize=_same,
        parse_value=_same,
    ),
}
"""The scalars by their Python types, for ``StrawberryConfig.scalar_map``."""


# The values of payloads and results, whose models run code of their users: nothing is taken for granted of them.


def written_json(value: Any) -> Any:
    """Return a value as a JSON value.

    :raises TypeError: if it is null.
    """
    written = to_jsonable_python(value, by_alias=True, fallback=str)
    if written is None:
        raise TypeError("null where none may be")
    return written


def written_text(value: Any) -> str:
    """Return a value that is a string in JSON.

    :raises TypeError: if it is none.
    """
    return _written_string(written_json(value))


def _exactly(of: type[Any], value: Any) -> Any:
    if not isinstance(value, of) or (of is not bool and isinstance(value, bool)):
        raise TypeError(f"{type(value).__name__} where {of.__name__} has to be")
    return value


def _written_string(value: Any) -> str:
    # Of a subclass, what it holds: it may say something else of itself.
    return str.__str__(_exactly(str, value))


def _written_int(value: Any) -> int:
    if not is_int(_exactly(int, value)):
        raise Unrepresentable("a number")
    return int(value)


def written_big_int(value: Any) -> int:
    """Return a whole number of any size.

    :raises TypeError: if it is none.
    """
    return int(_exactly(int, value))


def _written_float(value: Any) -> float:
    try:
        number = float(value if isinstance(value, float) else _exactly(int, value))
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Unrepresentable("a number")
    return number


def _written_moment(value: Any) -> datetime:
    moment: datetime = _exactly(datetime, value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


WRITTEN: dict[Any, Callable[[Any], Any]] = {
    **{scalar: partial(_exactly, scalar) for scalar in (bool, date, time, timedelta, UUID, Decimal)},
    str: _written_string,
    int: _written_int,
    float: _written_float,
    datetime: _written_moment,
}
"""What returns a value of a scalar as GraphQL can write it, by the scalar's Python type.

Each raises Unrepresentable for a number that is beyond the type, and TypeError for a value of another type.
"""


class SortDirection(StrEnum):
    """Which end of an order comes first."""

    ASC = "asc"
    DESC = "desc"


class CancellationOutcome(StrEnum):
    """How the handler of a cancelled job ended."""

    STOPPED = "stopped"
    KILLED = "killed"
    IGNORED = "ignored"
    FINISHED = "finished"


# An enum cannot be extended, so the one that clients see is made of all codes; mypy knows only literal members.
ErrorCode = cast("Any", StrEnum)("ErrorCode", [(code, code) for code in CODES])

describe_enum(
    JobStatus,
    "Where a job stands.",
    {
        "SCHEDULED": "Held back until `runAt`.",
        "WAITING": "Held back by a limit, by other jobs that have to end first, or until it is queued again after a "
        "change; becomes QUEUED. `waiting` says what for.",
        "QUEUED": "Waiting for a worker.",
        "PROCESSING": "A worker runs it.",
        "RETRYING": "An attempt failed; the next one starts at `nextAttemptAt`.",
        "COMPLETED": "Done; `result` holds what came of it. Terminal.",
        "DEAD_LETTER": "Failed for good, with `error` saying why. Terminal until it is retried by hand.",
        "CANCELLED": "Cancelled by a client, or by the system as `cancelReason` says. Terminal until it is "
        "retried by hand.",
    },
)

describe_enum(
    JobPriority,
    "Which job starts first when workers are busy. Of sixteen starts of a worker, each priority below CRITICAL has "
    "some to itself while a job of it waits, so that none is starved.",
    {
        "LOW": "After all others, but for one start of sixteen.",
        "NORMAL": "The default: after HIGH and CRITICAL, but for two starts of sixteen.",
        "HIGH": "Before NORMAL and LOW, and after CRITICAL but for three starts of sixteen.",
        "CRITICAL": "Before all others, but for the starts that those have to themselves.",
    },
)

describe_enum(
    OverlapPolicy,
    "What becomes of a tick of a schedule, once it is due, while a job of an earlier tick has not ended.",
    {
        "SKIP": "It is skipped, which `Schedule.skips` counts.",
        "ALLOW": "Its job runs beside the other.",
        "CANCEL_OTHER": "The earlier job is cancelled, and its own runs.",
    },
)

describe_enum(
    SkipReason,
    "Why a tick of a schedule had no run.",
    {
        "OVERLAP": "A job of an earlier tick had not ended, and the schedule's `overlap` is SKIP; or 128 of its jobs "
        "waited, as behind a pause of their queue: no further ones are made then.",
        "OUTAGE": "An outage of NATS or of the API has held it up for longer than `catchUpSeconds`.",
        "REFUSED": "Its job could not be created within `catchUpSeconds`: its type is not known any more, the payload "
        "does not fit the type, or the store is full. The server's log says which.",
    },
)

describe_enum(
    KeyPolicy,
    "What becomes of a creation while another job, which has not ended, has its key. Where that is of another type, or "
    "the viewer may not see it, the creation is always refused with KEY_TAKEN.",
    {
        "RETURN": "That job is given back, whatever its payload is; nothing is stored.",
        "REJECT": "It is refused with KEY_TAKEN, whose `extensions.jobId` is that job; nothing is stored.",
        "REPLACE": "That job takes over its payload and its `runAt`, as long as it has not started. If it has, a new "
        "job is created that runs after it and has the key from then on.",
    },
)

describe_enum(
    DependencyPolicy,
    "What becomes of a job when one of those that it is to run after does not complete: that one fails for good, is "
    "cancelled, or is not kept any more.",
    {
        "CANCEL": "It is cancelled as soon as that is known, and `cancelReason` names the other one.",
        "RUN": "It runs all the same, once all of them have ended.",
    },
)

describe_enum(
    OrderField,
    "What a page of jobs is sorted by; the job id decides between equals.",
    {
        "CREATED_AT": "When the job was created.",
        "UPDATED_AT": "When the job last changed.",
        "FINISHED_AT": "When the job reached its terminal state; unfinished jobs count as earlier than all others.",
        "PRIORITY": "LOW is smallest, CRITICAL is greatest.",
    },
    name="JobOrderField",
)

describe_enum(
    Scope,
    "What a viewer may do with the jobs that there are for it.",
    {
        "READ": "See jobs, their events and files, queues, job types and workers.",
        "CREATE": "Create jobs. Without READ, what was created by the same subject is all that there is to see.",
        "CONTROL": "Cancel and retry jobs that may be seen, so with READ or CREATE.",
        "OPERATE": "What is about the installation: `/metrics`, and ending tokens and keys of others.",
    },
)

describe_enum(
    BulkAction,
    "What a bulk action does to each of its jobs.",
    {
        "RETRY": "Run a dead-lettered or cancelled job again, as `retryJob` does.",
        "CANCEL": "Cancel a job that has not ended, as `cancelJob` does.",
        "DELETE": "Delete a job that does not run, as `deleteJob` does; needs the scope OPERATE instead of CONTROL.",
    },
)

describe_enum(
    BulkState,
    "How a run of a bulk action stands.",
    {
        "RUNNING": "It goes on with one job after the other.",
        "STOPPED": "It was stopped by `stopBulk`, or its maker's key or token has ended; the rest was left alone.",
        "DONE": "It has come to all of its jobs.",
        "INTERRUPTED": "Its process has ended, or nothing was heard of it for 15 seconds; `runBulk` with the same plan "
        "goes on with what is left.",
    },
)

describe_enum(
    SortDirection,
    "Which end of the order comes first.",
    {"ASC": "Smallest or oldest first.", "DESC": "Greatest or newest first."},
)

describe_enum(
    CancellationOutcome,
    "How the handler of a cancelled job ended.",
    {
        "STOPPED": "It ended when it was told to.",
        "KILLED": "Its process was killed.",
        "IGNORED": "It did not end within the grace period of 5 s and was given up; it may still be running.",
        "FINISHED": "It had ended by itself before it could be told; what it returned was discarded.",
    },
)

describe_enum(
    ErrorCode,
    "Why something was refused or failed: `extensions.code` of an error, which stays the same from release to release.",
    {
        "INVALID_PAYLOAD": (
            "The payload does not fit its job type; `extensions.fields` lists path and message of each fault. "
            "Nothing was stored."
        ),
        "PAYLOAD_TOO_LARGE": (
            "The payload or the request body is too large; see `extensions.sizeBytes` and `extensions.limitBytes`."
        ),
        "INVALID_ARGUMENT": "An argument is missing, unreadable or out of range; `extensions.argument` names it.",
        "INVALID_STATE": "The job's state (`extensions.status`) does not allow the move.",
        "NOT_FOUND": "No job has this id.",
        "IDEMPOTENCY_CONFLICT": (
            "The idempotency key belongs to a job with another payload (`extensions.existingJobId`), "
            "or comes twice in a batch with different payloads."
        ),
        "KEY_TAKEN": (
            "Another job that has not ended has the `key` of the creation, or of the job that is to run again: "
            "`extensions.jobId`, if the viewer may see it."
        ),
        "QUEUE_FULL": "The store is nearly full; new jobs are refused until old ones have expired.",
        "QUEUE_UNAVAILABLE": (
            "NATS did not answer in time. With `extensions.jobId` the outcome of the write is unknown: "
            "look that job up."
        ),
        "UNAUTHENTICATED": "There is no key or token, or it is not valid (any more).",
        "FORBIDDEN": "The key or token does not allow this: the message names the scope that is needed, if one is.",
        "RATE_LIMITED": "Too many requests; try again later.",
        "TOO_COMPLEX": (
            "The operation asks for too much at once: `extensions.actual` of a measure (`extensions.measure`: depth, "
            "cost, …) above `extensions.limit`."
        ),
        "TIMEOUT": "The query took too long and was given up.",
        "UNREPRESENTABLE": (
            "A number of a payload or a result is beyond GraphQL's Int or Float; `rawPayload` or `rawResult` has it."
        ),
        "INTERNAL": "Something unexpected went wrong; the details are in the server's log.",
        "BAD_REQUEST": "The request is not one of GraphQL over HTTP, or not one that this transport serves.",
        "GRAPHQL_PARSE_FAILED": "The document is no GraphQL.",
        "GRAPHQL_VALIDATION_FAILED": "The document does not fit this schema.",
        "PERSISTED_QUERY_NOT_FOUND": "No document of that digest is kept here; send it again with `query`.",
        "SERVER_STOPPING": "The process that served the subscription stops; subscribe again with the last cursor.",
    },
)
