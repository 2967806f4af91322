"""The beginnings of payloads and of messages, for lists: a page of them is small, however large its jobs are.

It is made without having its payloads in memory together.
"""

from collections.abc import Callable

from msgspec import Raw
from msgspec.structs import replace

from gql_jobs.graphql.context import Context
from gql_jobs.index.tables import UNREAD
from gql_jobs.jobs.errors import InvalidArgument
from gql_jobs.jobs.model import Job

DEFAULT_PREVIEW = 200
LARGEST_PREVIEW = 10_000
"""Bytes of the longest preview."""
LONGEST_SUMMARY = 200
"""Characters of the summary of a message, at most."""
CUT = "…"
"""Stands at the end of a preview in the place of what was cut off."""


async def preview_of(job: Job, size: int | None, shown: Callable[[Job], Raw], context: Context) -> str:
    """Return at most ``size`` bytes of a payload's JSON, in whole characters, and ``CUT`` if there is more.

    A payload that was not read with its page is read here: one at a time, once in an operation, and only the beginning
    is kept.

    :param shown: returns the payload as JSON without its secrets.
    :returns: an empty text for a job that has expired since the page was read.
    :raises InvalidArgument: for a size out of range.
    """
    size = DEFAULT_PREVIEW if size is None else size
    if not 0 <= size <= LARGEST_PREVIEW:
        raise InvalidArgument("bytes", f"bytes must be between 0 and {LARGEST_PREVIEW}.")
    if job.spec.payload != UNREAD:
        return cut(bytes(shown(job)), size)
    beginnings: dict[str, bytes] = context.shared(preview_of, dict)
    if job.id not in beginnings:
        async with context.services().reader.of_large_jobs:
            if job.id not in beginnings:
                beginnings[job.id] = await _beginning(job, shown, context)
    return cut(beginnings[job.id], size)


async def _beginning(job: Job, shown: Callable[[Job], Raw], context: Context) -> bytes:
    """Return so much of the payload's JSON that it can be seen whether a preview has all of it."""
    spec = await context.services().reader.spec(job.id)
    # The id of an expired job may have been given again.
    if spec is None or spec.created_at != job.spec.created_at:
        return b""
    return bytes(shown(replace(job, spec=spec)))[: LARGEST_PREVIEW + 1]


def cut(text: bytes, size: int) -> str:
    """Return at most so many bytes of a UTF-8 text, in whole characters, and ``CUT`` if that is not all of it."""
    beginning = text[:size].decode("utf-8", "ignore")
    return beginning if len(text) <= size else beginning + CUT


def summary_of(message: str) -> str:
    """Return the first line of a message that is not empty, cut to ``LONGEST_SUMMARY`` characters."""
    return message.lstrip().partition("\n")[0].rstrip()[:LONGEST_SUMMARY]
