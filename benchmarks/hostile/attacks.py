"""The attacks: each what one client sends on purpose, from one address, for some seconds; the seed varies the details.

An attack returns what it was answered. Everything it asks for is either within the documented limits and must cost the
others nothing, or above them and must be refused just as cheaply.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from urllib.parse import quote

from benchmarks.chaos import stream
from benchmarks.hostile.wire import (
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    answer,
    asked,
    connected,
    frame,
    heard,
    message,
    post,
    send,
    websocket,
    with_body,
)

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Target:
    """An API process under attack, and what lies in its store. All on loopback."""

    port: int
    nats_url: str
    history: str
    """A job with about eighty events."""
    ids: list[str]


Seen = Counter[str]
Attack = Callable[[Target, random.Random], Awaitable[Seen]]


@dataclass
class Attacks:
    """All attacks by name, in the order in which they run."""

    by_name: dict[str, Attack] = field(default_factory=dict)
    descriptors: dict[str, int] = field(default_factory=dict)
    """The attacks whose target may open only so many files."""

    def add(self, attack: Attack) -> Attack:
        """Keep an attack under its function's name."""
        self.by_name[attack.__name__] = attack
        return attack


attacks = Attacks()


@attacks.add
async def nested_histories(target: Target, chance: random.Random) -> Seen:
    """A job's events, each with its job, each with its events, as POST and as a GET of an `<img>`."""
    seen: Seen = Counter()
    for nestings in (2, 3, 4):
        for arguments in ("", f"(first: {chance.randrange(50, 1000)})"):
            opening = f"events{arguments} {{ job {{ id " * nestings
            query = f'{{ job(id: "{target.history}") {{ {opening} {"} } " * nestings} }} }}'
            seen[await asked(target.port, post(query), 20)] += 1
            request = (
                f"GET /graphql?query={quote(query)} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: image/*\r\n"
                "Sec-Fetch-Site: cross-site\r\n\r\n"
            )
            seen[await asked(target.port, request.encode(), 20)] += 1
    wide = " ".join(f"a{n}: events {{ at job {{ id events {{ cursor }} }} }}" for n in range(chance.randrange(20, 50)))
    seen[await asked(target.port, post(f'{{ job(id: "{target.history}") {{ {wide} }} }}'), 20)] += 1
    return seen


@attacks.add
async def large_connection_data(target: Target, chance: random.Random) -> Seen:
    """Idle sockets that were given megabytes to remember: in their init, in variables, in the id of an operation."""
    seen: Seen = Counter()
    blob = "x" * (7 * MEBIBYTE + chance.randrange(MEBIBYTE // 2))
    query = "subscription { jobEvents { cursor } }"
    id_of_job = 'subscription { jobProgress(id: "%s") { cursor } }' % target.ids[0]  # noqa: UP031 - braces
    kinds = (
        [message(type="connection_init", payload={"token": blob})],
        [_INIT, message(id="1", type="subscribe", payload={"query": query, "variables": {"unknown": blob}})],
        [_INIT, message(id=blob, type="subscribe", payload={"query": query})],
        [_INIT, message(id="1", type="subscribe", payload={"query": query, "extensions": {"unknown": blob}})],
        [_INIT, message(id="1", type="subscribe", payload={"query": query + "#" + blob[: MEBIBYTE // 5]})],
        [_INIT, message(id="1", type="subscribe", payload={"query": id_of_job, "operationName": blob})],
    )
    async with AsyncExitStack() as stack:
        for number in range(60):
            with suppress(OSError):
                reader, writer = await stack.enter_async_context(websocket(target.port))
                for part in kinds[number % len(kinds)]:
                    await send(writer, part)
                seen[await heard(reader, 0.5)] += 1
        await asyncio.sleep(1)
    return seen


@attacks.add
async def multiplied_refusals(target: Target, chance: random.Random) -> Seen:
    """One large faulty value, named by many inputs: each fault would quote it."""
    seen: Seen = Counter()
    key = "k" * (MEBIBYTE + chance.randrange(MEBIBYTE))
    many = ", ".join(["{payload: $p}"] * chance.randrange(700, 820))
    typed = f"mutation ($p: JobPayloadInput!) {{ createJobs(inputs: [{many}]) {{ jobs {{ id }} }} }}"
    for faulty in ({key: 1}, {"noop": {key: 1}}, {"noop": {"to": [key], "subject": {}, "body": key}}):
        seen[await asked(target.port, post(typed, {"p": faulty}))] += 1
    inputs = [{"payload": {"noop": {key[:2000]: number}}} for number in range(1000)]
    whole = "mutation ($i: [CreateJobInput!]!) { createJobs(inputs: $i) { jobs { id } } }"
    seen[await asked(target.port, post(whole, {"i": inputs}))] += 1
    seen[await asked(target.port, post("query ($id: ID!) { job(id: $id) { id } }", {"id": [key] * 3}))] += 1
    ids = "query ($f: JobFilter) { jobs(filter: $f) { totalCount } }"
    for wrong in ({"status": [key]}, {"createdAfter": key}, {"ids": [{"a": key}]}, {key: key}):
        seen[await asked(target.port, post(ids, {"f": wrong}))] += 1
    return seen


@attacks.add
async def pipelined_and_unread(target: Target, chance: random.Random) -> Seen:
    """Small requests one after the other on connections whose answers are never read."""
    seen: Seen = Counter()
    small = b"GET /healthz HTTP/1.1\r\nHost:a\r\n\r\n"
    query = post("{ jobs(first: 500) { nodes { id events { cursor } } } }")

    async def flood(request: bytes) -> None:
        async with connected(target.port) as (_, writer):
            ends = time.monotonic() + 5
            while time.monotonic() < ends:
                if not await send(writer, request * max(1, 60_000 // len(request)), 1):
                    seen["paused"] += 1
                    if writer.is_closing():
                        break

    async with asyncio.TaskGroup() as group:
        for number in range(chance.randrange(6, 10)):
            group.create_task(flood(small if number % 2 else query))
    return seen


@attacks.add
async def unread_event_streams(target: Target, chance: random.Random) -> Seen:
    """Pages and replays of all events, asked for as server-sent events on hundreds of connections that read nothing."""
    seen: Seen = Counter()
    page = "{ jobs(first: 500) { nodes { id rawPayload events { cursor } } } }"
    replay = 'subscription { jobEvents(after: "0") { cursor job { id rawPayload } } }'
    for query, number in ((page, chance.randrange(250, 350)), (replay, chance.randrange(100, 150))):
        async with AsyncExitStack() as stack:
            for _ in range(number):
                with suppress(OSError):
                    _, writer = await stack.enter_async_context(connected(target.port))
                    seen["sent" if await send(writer, post(query, accept="text/event-stream")) else "not taken"] += 1
            await asyncio.sleep(3)
    return seen


@attacks.add
async def empty_frames(target: Target, chance: random.Random) -> Seen:
    """Pings, pongs and fragments without content, as fast as they can be sent."""
    seen: Seen = Counter()
    floods = [
        frame(PING),
        frame(PONG),
        frame(CONTINUATION, last=False),
        frame(PING, b"p" * chance.randrange(1, 125)),
        frame(TEXT, b"{}"),
        message(type="ping"),
    ]
    for flood in floods:
        with suppress(OSError):
            async with websocket(target.port) as (reader, writer):
                await send(writer, _INIT)
                await heard(reader)
                if flood[0] & 0xF == CONTINUATION:
                    await send(writer, frame(TEXT, last=False))
                for _ in range(4):
                    if not await send(writer, flood * (MEBIBYTE // len(flood)), 3):
                        break
                last, word = "", "frame"
                while word in ("frame", "pong", "connection_ack"):
                    last, word = word, await heard(reader, 1)
                seen[word if word != "no frame" else f"{last or 'nothing'} to the end"] += 1
    return seen


@attacks.add
async def costly_documents(target: Target, chance: random.Random) -> Seen:
    """Documents of some kilobytes whose validation grows with the square of what is in them, some each second."""
    seen: Seen = Counter()
    name = f"n{chance.randrange(1000)}"
    for number in range(5):
        for text in _costly(f"{name}_{number}"):
            seen[await asked(target.port, post(text), 20)] += 1
        await asyncio.sleep(0.2)
    return seen


def _costly(name: str) -> list[str]:
    cycle = (f"fragment f{n} on Query {{ ...f{(n + 1) % 500} {name}: __typename }}" for n in range(500))
    ids = ",".join(f'"{name}{n}"' for n in range(1500))
    return [
        f"{{ jobTypes {{ {'name ' * 3270} {name}: name }} }}",
        f"{{ {name}: __typename {'__typename ' * 1400} }}",
        f"{{ {' '.join(f'...f{n}' for n in range(500))} }} {' '.join(cycle)}",
        f"query {name}({' '.join(f'$v{n}: Int' for n in range(900))}) {{ __typename }}",
        f"{{ jobs(filter: {{ ids: [{ids}] }}) {{ totalCount }} }}",
        f"{{ {' '.join(f'{name}_{n}: nothing' for n in range(1500))} }}",
        "{" * 200 + name + "}" * 200,
        f"{{ job(id: {'[' * 1500}1{']' * 1500}) {{ {name}: id }} }}",
    ]


@attacks.add
async def repeated_document(target: Target, chance: random.Random) -> Seen:
    """The same refused document, over HTTP and on a socket, as fast as it is answered."""
    seen: Seen = Counter()
    query = "{ jobTypes { " + "name " * (3200 + chance.randrange(60)) + "} unknown }"
    async with connected(target.port) as (reader, writer):
        for _ in range(60):
            await send(writer, post(query))
            seen[await answer(reader, 20)] += 1
    with suppress(OSError):
        async with websocket(target.port) as (reader, writer):
            await send(writer, _INIT)
            await heard(reader)
            for number in range(60):
                if not await send(writer, message(id=str(number), type="subscribe", payload={"query": query})):
                    break
                seen[await heard(reader)] += 1
    return seen


@attacks.add
async def long_filters(target: Target, chance: random.Random) -> Seen:
    """Filters with thousands of tags and ids, in queries and in subscriptions that look at every event."""
    seen: Seen = Counter()
    queried = "query ($f: JobFilter) { jobs(filter: $f) { totalCount nodes { id } } }"
    live = "subscription ($f: JobFilter) { jobEvents(filter: $f) { cursor } }"
    filters: list[dict[str, list[str]]] = [
        {"tags": [f"t{n}" for n in range(count)]} for count in (33, 998, 1001, 30_000 + chance.randrange(1000))
    ]
    filters += [{"ids": [f"{n:x}" for n in range(190_000)]}, {"type": ["noop"] * 100_000}]
    filters += [{"status": ["QUEUED"] * 100_000}, {"queue": [f"q{n}" for n in range(100_000)]}]
    for one in filters:
        seen[await asked(target.port, post(queried, {"f": one}), 20)] += 1
    async with AsyncExitStack() as stack:
        for one in filters:
            with suppress(OSError):
                reader, writer = await stack.enter_async_context(websocket(target.port))
                await send(writer, _INIT)
                await heard(reader)
                payload = {"query": live, "variables": {"f": one}}
                await send(writer, message(id="1", type="subscribe", payload=payload))
                seen[await heard(reader, 0.5)] += 1
        inputs = [{"payload": {"noop": _LETTER}} for _ in range(1000)]
        created = "mutation ($i: [CreateJobInput!]!) { createJobs(inputs: $i) { jobs { id } } }"
        seen[await asked(target.port, post(created, {"i": inputs}), 20)] += 1
    return seen


@attacks.add
async def distinct_documents(target: Target, chance: random.Random) -> Seen:
    """Hundreds of different valid documents, each as long as tokens allow: what is kept of them adds up."""
    seen: Seen = Counter()
    fields = "id type queue status priority progress attempt tags createdAt updatedAt"
    async with connected(target.port) as (reader, writer):
        for number in range(300):
            selections = " ".join([fields] * (120 + chance.randrange(20)))
            query = f"query n{number} {{ jobs(first: 0) {{ nodes {{ {selections} }} }} }}"
            if not await send(writer, post(query)):
                break
            seen[await answer(reader, 20)] += 1
    return seen


@attacks.add
async def half_sent_bodies(target: Target, chance: random.Random) -> Seen:
    """Forty requests of eight megabytes of which the last byte never comes."""
    seen: Seen = Counter()
    async with AsyncExitStack() as stack:
        for _ in range(40):
            with suppress(OSError):
                _, writer = await stack.enter_async_context(connected(target.port))
                body = b" " * (4 * MEBIBYTE + chance.randrange(3 * MEBIBYTE))
                whole = await send(writer, with_body(body, length=8 * MEBIBYTE), 0.3)
                seen["taken" if whole else "paused"] += 1
        await asyncio.sleep(1)
    return seen


@attacks.add
async def idle_connections(target: Target, chance: random.Random) -> Seen:
    """Four hundred connections that say nothing, to a process that may open 256 files."""
    seen: Seen = Counter()
    async with AsyncExitStack() as stack:
        for _ in range(400):
            try:
                async with asyncio.timeout(1):
                    await stack.enter_async_context(connected(target.port))
            except OSError:
                seen["not connected"] += 1
        await asyncio.sleep(2 + chance.random())
    return seen


attacks.descriptors["idle_connections"] = 256


@attacks.add
async def bodies_above_the_limit(target: Target, chance: random.Random) -> Seen:
    """Bodies that are too large, sent to their end: whoever sends them has to learn why they are refused."""
    seen: Seen = Counter()
    for _ in range(10):
        body = b"x" * (9 * MEBIBYTE + chance.randrange(4 * MEBIBYTE))
        seen[await asked(target.port, with_body(body), 10)] += 1
        with suppress(OSError):
            async with websocket(target.port) as (reader, writer):
                await send(writer, _INIT)
                await heard(reader)
                await send(writer, frame(TEXT, body))
                seen[await heard(reader)] += 1
    return seen


@attacks.add
async def large_jobs(target: Target, chance: random.Random) -> Seen:
    """Jobs of 0.9 MB each, hundreds of them, and pages of them whose answers are not read."""
    seen: Seen = Counter()
    blob = "x" * (900_000 + chance.randrange(50_000))
    created = "mutation ($i: [CreateJobInput!]!) { createJobs(inputs: $i) { jobs { id } } }"
    inputs = [{"payload": {"noop": {"to": "a@b.c", "subject": str(n), "body": blob}}} for n in range(8)]
    for _ in range(40):
        seen[await asked(target.port, post(created, {"i": inputs}))] += 1
    seen[await asked(target.port, post("{ jobs(first: 500) { nodes { id } } }"))] += 1
    types = post("{ jobs(first: 500) { nodes { __typename id } } }")
    seen.update(await asyncio.gather(*(asked(target.port, types) for _ in range(20))))
    pages = "{ jobs(first: 500) { nodes { rawPayload } } }"
    async with AsyncExitStack() as stack:
        for _ in range(4):
            _, writer = await stack.enter_async_context(connected(target.port))
            await send(writer, post(pages))
        for _ in range(4):
            with suppress(OSError):
                reader, writer = await stack.enter_async_context(websocket(target.port))
                await send(writer, _INIT)
                await heard(reader)
                replay = 'subscription { jobEvents(after: "0") { cursor job { rawPayload } } }'
                await send(writer, message(id="1", type="subscribe", payload={"query": replay}))
        await asyncio.sleep(4)
    return seen


@attacks.add
async def wide_batches_and_pages(target: Target, chance: random.Random) -> Seen:
    """Batches of a thousand jobs with all that each may carry, and pages that show nearly all of it."""
    seen: Seen = Counter()
    tags = [f"tag{number}" for number in range(32)]
    created = f"mutation ($i: [CreateJobInput!]!) {{ createJobs(inputs: $i) {{ jobs {{ {_MUCH} }} }} }}"
    for _ in range(3):
        inputs = [
            {"payload": {"noop": _LETTER}, "tags": tags, "idempotencyKey": f"{chance.random()} {number}"}
            for number in range(1000)
        ]
        seen[await asked(target.port, post(created, {"i": inputs}))] += 1
    page = f"{{ jobs(first: 500) {{ totalCount edges {{ cursor node {{ {_MUCH} events(first: 5) {{ at }} }} }} }} }}"
    for _ in range(8):
        seen[await asked(target.port, post(page))] += 1
    return seen


@attacks.add
async def retries_without_copies(target: Target, chance: random.Random) -> Seen:
    """A bulk retry of ten thousand dead letters after their stream was purged."""
    seen: Seen = Counter()
    await asyncio.sleep(chance.random())
    connection = await stream.connected(target.nats_url)
    await connection.jetstream().purge_stream(stream.DEAD_LETTERS)
    await connection.close()
    mutation = "mutation { retryJobs(filter: {}) { retriedCount } }"
    for within in (1.0, 30.0):
        seen[await asked(target.port, post(mutation), within)] += 1
    return seen


_INIT = message(type="connection_init")
_MUCH = (
    "__typename id type queue status priority progress tags attempt retryCount maxRetries createdAt updatedAt"
    " rawPayload error { message type attempt at } ... on NoopJob { payload { __typename to subject body } }"
)
_LETTER = {"to": "ada@example.com", "subject": "Your report", "body": json.dumps({"ready": True})}
