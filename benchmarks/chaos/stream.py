"""The streams as they lie on the server, read with plain nats-py: nothing of the code under test takes part."""

import json
from itertools import pairwise
from typing import Any, NamedTuple

import nats
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

_BATCH = 2000
_WITHIN = 10.0
STREAM = "JOBS"
DEAD_LETTERS = "jobs-dlq"


class Stored(NamedTuple):
    """One message. ``kind``: the subject from the job's id on, such as ``event.started`` or ``queued``."""

    seq: int
    job_id: str
    kind: str
    body: dict[str, Any]


def stored(seq: int, subject: str, data: bytes) -> Stored:
    """A message of subject ``jobs.<id>.<kind>``; a submission's queue and priority are in its body too.

    :raises ValueError: if the subject is none of a job's.
    """
    tokens = subject.split(".")
    if len(tokens) < 3 or tokens[0] != "jobs":  # noqa: PLR2004
        raise ValueError(f"message {seq} is on {subject!r}")
    kind = ".".join(tokens[2:4]) if tokens[2] == "event" else tokens[2]
    return Stored(seq, tokens[1], kind, json.loads(data) if kind not in _UNREAD else {})


_UNREAD = frozenset({"progress", "checkpoint", "note", "artifact"})
"""What changes no state: only that it is there is looked at."""


async def connected(url: str) -> Client:
    """A connection of the checker's own."""
    return await nats.connect(servers=url.split(","), connect_timeout=5, max_reconnect_attempts=-1)


async def read(client: Client, stream: str = STREAM) -> list[Stored]:
    """Every message of a stream in its order.

    :raises RuntimeError: if that is not as many as the server says it has.
    """
    jetstream = client.jetstream(timeout=_WITHIN)
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=60)
    subscription = await jetstream.pull_subscribe("", stream=stream, config=config)
    found: list[Stored] = []
    try:
        while len(found) < (info := await jetstream.stream_info(stream)).state.messages:
            try:
                fetched = await subscription.fetch(_BATCH, timeout=_WITHIN)
            except NatsTimeout:
                break
            found += [stored(m.metadata.sequence.stream, m.subject, m.data) for m in fetched]
    finally:
        await subscription.unsubscribe()
    if len(found) != info.state.messages or any(a.seq >= b.seq for a, b in pairwise(found)):
        raise RuntimeError(f"{len(found)} messages of {stream} were read, the server has {info.state.messages}")
    return found


async def leader(client: Client, stream: str = STREAM) -> str | None:
    """The name of the node that leads the stream; None on a single server."""
    cluster = (await client.jetstream(timeout=2).stream_info(stream)).cluster
    return cluster.leader if cluster is not None else None
