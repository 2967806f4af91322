"""What the stored messages of one job make: the job, its events, its files. The same as the index tells, read anew."""

from typing import NamedTuple

from gql_jobs.jobs.artifact import Artifact
from gql_jobs.jobs.fold import Event, events_of, fold
from gql_jobs.jobs.messages import Saved
from gql_jobs.jobs.model import Job
from gql_jobs.log.codec import Unreadable
from gql_jobs.log.stored import StoredMessage


def folded(history: list[StoredMessage]) -> Job | None:
    """The job that a history makes; unreadable messages are passed over, as the feed does."""
    return read_history(history).job


class History(NamedTuple):
    """What the messages of one job make: the job, the events that clients see, oldest first, and its files by name."""

    job: Job | None
    events: list[Event]
    artifacts: list[Artifact]


def read_history(history: list[StoredMessage]) -> History:
    """The same from the stream as the index tells it; unreadable messages are passed over, as the feed does."""
    job: Job | None = None
    events: list[Event] = []
    files: dict[str, Artifact] = {}
    for stored in history:
        try:
            message = stored.read()
        except Unreadable:
            continue
        if message is None:
            continue
        if job is not None and isinstance(message.body, Saved):
            files[message.body.artifact.name] = message.body.artifact
        before, job = job, fold(job, message)
        if before is not None and job is None:
            events, files = [], {}
        events += events_of(before, message, job)
    return History(job, events, [files[name] for name in sorted(files)])
