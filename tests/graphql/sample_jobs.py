"""Jobs of every kind to be asked for, and a context that answers from them, without a server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec import json

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.engine.budget import Budget
from gql_jobs.index.index import open_index
from gql_jobs.index.reader import Reader
from gql_jobs.jobs.messages import (
    Cancelled,
    Completed,
    DeadLetter,
    Edited,
    Failed,
    Message,
    Progress,
    Released,
    Saved,
    Started,
)
from gql_jobs.jobs.model import artifact_path
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.viewer import ANYBODY, Scope, Visibility
from gql_jobs.live.bus import EventBus
from gql_jobs.live.watch import Watch
from tests.running import JOB_TYPES
from tests.stories import artifact, queued, said, scheduled, spec, tell, waiting
from tests.viewers import viewer

IDS = [f"018f3c6e-7d3a-7c52-9d0a-3f5a8c1d7e{n:02d}" for n in range(7)]

SEEN_BY = (
    ANYBODY,
    viewer("ada", "acme"),
    viewer("bob", "bolt", Scope.READ),
    viewer("ada", None, Scope.CREATE),
    viewer("web", None, Scope.READ, ids=[IDS[0], IDS[3]]),
    viewer("web", "acme", tags=["a", "b"], types=["probe"]),
    viewer("web", "acme", ids=[]),
    viewer("ops", None, Scope.CONTROL, Scope.OPERATE),
)
"""Viewers to whom other parts of the jobs exist, and one who may see none."""


def _stories() -> Iterator[Message]:
    """A job in each state, an unknown type, a file, errors: whatever a page or an event may have to show."""
    seq = count(1)
    asked: list[dict[str, Any]] = [
        {"tags": ("a", "ä"), "tenant": "acme", "created_by": "ada"},
        {"tenant": "bolt", "created_by": "bob"},
        {"type": "gone", "tenant": "acme"},
        {"max_retries": 0, "created_by": "ada"},
        {},
    ]
    for job_id, options in zip(IDS, asked, strict=False):
        yield queued(next(seq), job_id=job_id, **options)
    yield scheduled(next(seq), job_id=IDS[5])
    told: list[tuple[str, type[Any], dict[str, Any]]] = [
        (IDS[0], Started, {}),
        (IDS[0], Progress, {"progress": 40, "message": "half"}),
        (IDS[1], Started, {}),
        (IDS[1], Completed, {}),
        (IDS[2], Started, {}),
        (IDS[2], Failed, {}),
        (IDS[3], Started, {}),
        (IDS[3], DeadLetter, {"spec": spec(max_retries=0)}),
        (IDS[4], Started, {}),
        (IDS[4], Released, {}),
    ]
    for job_id, kind, facts in told:
        submission = IDS.index(job_id) + 1
        body = said(0, kind, submission=submission, **facts).body
        yield tell(next(seq), body, job_id)
    yield tell(next(seq), Saved(artifact=artifact()), IDS[1])
    last = waiting(next(seq), job_id=IDS[6])
    yield last
    yield tell(next(seq), Edited(submission=last.seq, spec=last.body.spec, changed=("tags",)), IDS[6])
    yield tell(next(seq), Cancelled(submission=last.seq), IDS[6])


@contextmanager
def sample_context(path: Path, messages: list[Message] | None = None) -> Iterator[Context]:
    """A context over an index at ``path`` that holds the jobs.

    :param messages: what has happened instead.
    """
    with open_index(path, "2026-01-31T12:00:00Z", 1000, 86_400.0) as index:
        messages = messages or list(_stories())
        index.apply(messages, messages[-1].seq)
        reader = Reader(index)

        async def job(job_id: str, visibility: Visibility, _budget: Any) -> Any:
            found = index.job(job_id)
            return found if found is not None and visibility.shows(found) else None

        async def find(_: str) -> None:
            return None

        async def events(job_id: str, after: Any, first: int, budget: Any) -> Any:
            return await reader.history(job_id, after, first, partial(budget.take, 1))

        async def saved(job_id: str, budget: Any) -> Any:
            return await reader.artifacts(job_id, partial(budget.take, 1))

        bus = EventBus(reader.events_after, index.position)
        # Neither the stream nor its tail is asked for what the index has.
        nobody: Any = SimpleNamespace(position=index.position, find=find)
        services: Any = SimpleNamespace(
            index=index,
            reader=reader,
            registry=load_job_types(JOB_TYPES),
            watch=Watch(nobody, index, nobody, bus, nobody),
            job=job,
            events=events,
            saved=saved,
            presence=SimpleNamespace(workers=list),
            access=SimpleNamespace(artifact_url=lambda _viewer, job_id, name, _digest: artifact_path(job_id, name)),
        )
        yield Context(lambda: services)
        reader.close()


def shown_json(resolver: Callable[[Any], Any]) -> Any:
    """The value of a field of raw JSON, as it stands in an answer."""
    info = SimpleNamespace(context=SimpleNamespace(budget=Budget()))
    return json.decode(json.encode(resolver(info)))
