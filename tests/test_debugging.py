"""The history that docs/debugging.md shows is that of a real job."""

import json
import re
from typing import Any

import nats

from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import ROOT, RunningWorker
from tests.stories import request

DOCUMENT = (ROOT / "docs" / "debugging.md").read_text()


async def test_a_job_that_failed_once_has_the_messages_that_the_document_shows(
    job_log: JobLog, settings: Settings, worker: RunningWorker
) -> None:
    assert worker.task is not None
    commands = JobCommands(job_log, settings)
    created = await commands.create(request(ProbePayload(fail_attempts=1, steps=1, saves={"page": 7})))

    async def has_ended() -> bool:
        found = await commands.find(created.job.id)
        return found is not None and found.status.is_terminal

    await until(has_ended, "the job has ended")
    stored = await _stored(settings, 7)

    told = re.findall(r"^\| (\d) \| `([^`]+)` \| (.+) \|$", _between("history"), re.MULTILINE)
    assert [int(seq) for seq, _, _ in told] == list(range(1, 8))
    for (_, subject, body), (real_subject, real_body, headers) in zip(told, stored, strict=True):
        assert subject.replace("<id>", created.job.id) == real_subject
        named = dict(re.findall(r"`(\w+)`(?: (\d+))?", body))
        if subject.endswith("checkpoint"):
            assert real_body == {"page": 7}
            continue
        assert set(named) == set(real_body)
        assert all(str(real_body[name]) == value for name, value in named.items() if value)
        assert "progress" in subject or re.fullmatch(r"[0-9a-f]{13,}", headers["Gql-Jobs-Nonce"])
    writers = [headers.get("Gql-Jobs-Nonce", "")[:12] for _, _, headers in stored]
    assert len({writers[n - 1] for n in (2, 4, 5, 7)}) == 1
    assert writers[0] != writers[1]


def _between(name: str) -> str:
    return DOCUMENT.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]


async def _stored(settings: Settings, number: int) -> list[tuple[str, Any, dict[str, str]]]:
    """Subject, JSON and headers of the first messages of the stream, as any NATS client reads them."""
    client = await nats.connect(settings.nats_url or "")
    try:
        found = [await client.jetstream().get_msg("JOBS", seq) for seq in range(1, number + 1)]
    finally:
        await client.close()
    return [(m.subject or "", json.loads(m.data or b"null"), dict(m.headers or {})) for m in found]
