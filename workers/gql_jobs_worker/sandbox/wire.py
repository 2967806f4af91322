"""What a worker and the process of a CPU-bound handler say to each other: frames of JSON over a local socket."""

import struct
from typing import Any

import msgspec

from gql_jobs.jobs.model import Artifact
from gql_jobs.jobs.registry import JobType

LENGTH = struct.Struct("!I")


class CpuJob(msgspec.Struct, frozen=True):
    """What the process needs to run one attempt. ``socket``: where its worker listens, ``token``: for which attempt."""

    socket: str
    token: str
    job_type: JobType
    payload: bytes
    job_id: str
    attempt: int
    saved: Any
    max_result: int


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The first frame of a connection."""

    token: str


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Not answered."""

    percent: int
    message: str | None


class Checkpoint(msgspec.Struct, frozen=True, tag=True):
    """Answered when it is durable."""

    data: msgspec.Raw


class SaveArtifact(msgspec.Struct, frozen=True, tag=True):
    """The file at ``path`` shall be stored; answered with the artifact."""

    name: str
    path: str
    content_type: str | None


class Done(msgspec.Struct, frozen=True, tag=True):
    """The request succeeded."""

    artifact: Artifact | None = None


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The request failed; ``error`` is the name of the exception that the handler shall see."""

    error: str
    message: str


Request = Hello | Progress | Checkpoint | SaveArtifact
Answer = Done | Refused
decode_request = msgspec.json.Decoder(Request).decode
decode_answer = msgspec.json.Decoder(Answer).decode


def frame(message: Request | Answer) -> bytes:
    """A message with its length in front."""
    body = msgspec.json.encode(message)
    return LENGTH.pack(len(body)) + body
