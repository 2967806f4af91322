"""The frames of JSON that a worker and the process of a CPU-bound handler exchange over a pair of sockets.

The worker sends ``RunAttempt`` or ``TryImport``, and nothing else before the process has answered it with
``AttemptEnded`` or ``Imported``. Meanwhile it answers what is to be stored (``Stored``), in its order, and no other.
``EndProcess`` is answered by the end of the process.
"""

import struct
from typing import Any

import msgspec

from gql_jobs.jobs.handler import ChildJob
from gql_jobs.jobs.model import Artifact
from gql_jobs.jobs.registry import JobType
from gql_jobs_worker.children import AskedChild
from gql_jobs_worker.failures import Failure

LENGTH = struct.Struct("!I")
"""The head of a frame: how many bytes of JSON follow."""


class CpuJob(msgspec.Struct, frozen=True):
    """What the process needs to run one attempt; pickled, because it names classes.

    ``marks``: the places of secrets that were stored with the payload; ``saved``: the data of the last checkpoint;
    ``max_result``: bytes of the result's JSON, and of a child's payload; ``public_url``: where clients reach the API.
    """

    job_type: JobType
    payload: bytes
    marks: tuple[str, ...]
    job_id: str
    attempt: int
    saved: Any
    max_result: int
    public_url: str | None


class RunAttempt(msgspec.Struct, frozen=True, tag=True):
    """An attempt is to be run: ``job`` is a pickled ``CpuJob``, ``fields`` are those of the handler's log lines."""

    job: bytes
    type_name: str
    fields: dict[str, Any]


class TryImport(msgspec.Struct, frozen=True, tag=True):
    """The handler ``module:function`` is to be imported."""

    handler: str


class EndProcess(msgspec.Struct, frozen=True, tag=True):
    """What ``worker_shutdown`` has marked is to be run, and the process to end."""


class Preparing(msgspec.Struct, frozen=True, tag=True):
    """A function that ``worker_startup`` has marked begins: no time of the attempt until ``Began``. Not answered."""

    hook: str


class Began(msgspec.Struct, frozen=True, tag=True):
    """The handler is about to be called: from now on the attempt counts. Not answered."""


class ReportProgress(msgspec.Struct, frozen=True, tag=True):
    """The handler has reported progress; ``percent`` is from 0 to 100. Not answered."""

    percent: int
    message: str | None


class SaveCheckpoint(msgspec.Struct, frozen=True, tag=True):
    """The JSON is to be stored for the next attempt; answered when it is durable."""

    data: msgspec.Raw


class SaveArtifact(msgspec.Struct, frozen=True, tag=True):
    """The file at ``path`` is to be stored with the job; answered with the artifact."""

    name: str
    path: str
    content_type: str | None


class CreateChild(msgspec.Struct, frozen=True, tag=True):
    """A job is to be created; answered with the child when it is durable."""

    asked: AskedChild


class AttemptEnded(msgspec.Struct, frozen=True, tag=True):
    """The attempt is over: with the JSON of its result, or with its failure.

    ``memory``: bytes that the process holds now, but for what was made at its start; ``reusable``: false if the handler
    has damaged the process; ``has_end``: whether there is something that it does at ``EndProcess``.
    """

    result: bytes | None
    failure: Failure | None
    memory: int
    reusable: bool
    has_end: bool


class Imported(msgspec.Struct, frozen=True, tag=True):
    """The import is over; ``missing``: the message of its ImportError, if it failed with one."""

    missing: str | None


class RequestDone(msgspec.Struct, frozen=True, tag=True):
    """The request succeeded; ``artifact`` or ``child``: what was saved or created, if that was asked for."""

    artifact: Artifact | None = None
    child: ChildJob[Any] | None = None


class RequestFailed(msgspec.Struct, frozen=True, tag=True):
    """The request failed; ``error`` is the name of the exception that is raised in the handler."""

    error: str
    message: str


Stored = SaveCheckpoint | SaveArtifact | CreateChild
"""What the process asks its worker to store."""
Request = Preparing | Began | ReportProgress | Stored | AttemptEnded | Imported
"""What the process sends."""
Answer = RequestDone | RequestFailed
Order = RunAttempt | TryImport | EndProcess
"""What it is told to do."""
decode_request = msgspec.json.Decoder(Request).decode
decode_answer = msgspec.json.Decoder(Answer).decode
decode_order = msgspec.json.Decoder(Order).decode


def frame(message: Request | Answer | Order) -> bytes:
    """Return a message as JSON with its length in front."""
    body = msgspec.json.encode(message)
    return LENGTH.pack(len(body)) + body
