"""The program as it was before tenants: ``python -m tests.older_release gql_jobs api …`` or ``… gql_jobs_worker …``.

It reads and writes version 1 of the messages only, and drops what that version does not know of a spec, as a process of
the older release does that decodes a submission and writes it again for a retry.
"""

import runpy
import sys
from typing import Any

from msgspec.structs import replace

from gql_jobs.jobs import messages
from gql_jobs.jobs.messages import Body, Kind
from gql_jobs.log import codec
from gql_jobs.log.commands import JobCommands

UNKNOWN: dict[str, Any] = {"tenant": None, "created_by": None, "secrets": (), "origin": None, "parent": None}
"""The fields of a spec that came with version 2."""

_decode, _encode = codec.decode_body, codec.encode_body


def _without_unknown(body: Body) -> Body:
    changes: dict[str, Any] = {"actor": None} if getattr(body, "actor", None) is not None else {}
    if (spec := getattr(body, "spec", None)) is not None:
        changes["spec"] = replace(spec, **UNKNOWN)
    return replace(body, **changes)


def decode_older(kind: Kind, data: bytes) -> Body:
    """Return the body as the older release reads it."""
    return _without_unknown(_decode(kind, data))


def encode_older(body: Body) -> bytes:
    """Return the JSON that the older release writes."""
    return _encode(_without_unknown(body))


async def _never(*_: object) -> bool:
    return False


def run(program: str, *arguments: str) -> None:
    """Run a package as the older release would, until it ends."""
    # Only setattr is allowed to change what mypy knows as constants of another module.
    setattr(messages, "NEWEST_VERSION", 1)  # noqa: B010
    setattr(codec, "decode_body", decode_older)  # noqa: B010
    setattr(codec, "encode_body", encode_older)  # noqa: B010
    # It knows no limits, and so no gate.
    setattr(JobCommands, "_passes_gate", _never)  # noqa: B010
    if program == "gql_jobs_worker":
        from gql_jobs_worker import claim  # noqa: PLC0415 - the API does not need it

        setattr(claim, "NEWER_DELAY", 0.3)  # noqa: B010
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run(*sys.argv[1:])
