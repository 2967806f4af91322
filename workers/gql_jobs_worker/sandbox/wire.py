"""The frames of JSON that a worker and the process of a CPU-bound handler exchange over a local socket.

The process sends requests. The worker answers ``SaveCheckpoint`` and ``SaveArtifact``, in their order, and no other.
"""

import struct
from typing import Any

import msgspec

from gql_jobs.jobs.model import Artifact
from gql_jobs.jobs.registry import JobType

LENGTH = struct.Struct("!I")
"""The head of a frame: how many bytes of JSON follow."""


class CpuJob(msgspec.Struct, frozen=True):
    """What the process needs to run one attempt; it reaches the process by pickle, not by a frame.

    ``socket``: the path where its worker listens; ``token``: identifies the attempt there; ``saved``: the data of the
    last checkpoint; ``max_result``: bytes of the result's JSON; ``fields``: of the handler's log lines.
    """

    socket: str
    token: str
    job_type: JobType
    payload: bytes
    job_id: str
    attempt: int
    saved: Any
    max_result: int
    fields: dict[str, Any]


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The first frame of a connection, which names its attempt by the token of the ``CpuJob``. Not answered."""

    token: str


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


class RequestDone(msgspec.Struct, frozen=True, tag=True):
    """The request succeeded; ``artifact``: what was saved, if that was asked for."""

    artifact: Artifact | None = None


class RequestFailed(msgspec.Struct, frozen=True, tag=True):
    """The request failed; ``error`` is the name of the exception that is raised in the handler."""

    error: str
    message: str


Request = Hello | ReportProgress | SaveCheckpoint | SaveArtifact
Answer = RequestDone | RequestFailed
decode_request = msgspec.json.Decoder(Request).decode
decode_answer = msgspec.json.Decoder(Answer).decode


def frame(message: Request | Answer) -> bytes:
    """Return a message as JSON with its length in front."""
    body = msgspec.json.encode(message)
    return LENGTH.pack(len(body)) + body
