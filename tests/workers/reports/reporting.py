"""Runs the report handler as a worker does, with its checkpoints in a file; as a program, to be killed.

``python -m tests.workers.reports.reporting FOLDER FORMAT START END KILL_AT_REPORT``
"""

import asyncio
import hashlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from datetime import UTC, date, datetime
from logging import LoggerAdapter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
from pydantic import BaseModel

from gql_jobs.jobs.handler import ChildJob
from gql_jobs.jobs.model import Artifact, artifact_name, artifact_path, content_type_of
from gql_jobs.jobs.types.report_generation import ReportFormat, ReportGenerationPayload, ReportGenerationResult
from gql_jobs_worker.execution import checkpoint_json
from gql_jobs_worker.handlers.report_generation import generate_report

CHECKPOINT = "checkpoint.json"
JOB_ID = "018f3a52-0000-7000-8000-000000000001"
T = TypeVar("T")


class ReportContext:
    """A ``JobContext`` that outlives its process: its files, and the checkpoint that it begins with, lie in ``folder``.

    It dies at the progress report number ``kill_at``.
    """

    job_id = JOB_ID
    attempt = 1
    idempotency_token = JOB_ID
    log: "LoggerAdapter[Any]" = LoggerAdapter(logging.getLogger("test"))
    state = None

    def __init__(self, folder: Path, kill_at: int | None = None) -> None:
        self.folder = folder
        self.kill_at = kill_at
        self.said: list[tuple[float, str | None]] = []
        self.checkpoint_sizes: list[int] = []
        stored = folder / CHECKPOINT
        self.saved: Any = msgspec.json.decode(stored.read_bytes()) if stored.exists() else None

    @property
    def parts(self) -> list[str]:
        """The parts that were added up, as they were told."""
        return [message.split(":")[0] for _, message in self.said if message is not None and message.endswith(" rows")]

    def progress(self, percent: float, message: str | None = None) -> None:
        self.said.append((percent, message))
        with (self.folder / "said.txt").open("a") as file:
            file.write(f"{percent:.3f} {message}\n")
        if len(self.said) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def checkpoint(self, data: Any) -> None:
        # Refuses what the worker refuses, such as too much.
        body = checkpoint_json(data)
        self.checkpoint_sizes.append(len(body))
        written = self.folder / f"{CHECKPOINT}.new"
        written.write_bytes(body)
        written.replace(self.folder / CHECKPOINT)

    async def save_artifact(
        self, name: str, data: bytes | Path | BinaryIO, content_type: str | None = None
    ) -> Artifact:
        assert isinstance(data, Path)
        path, content = self.folder / artifact_name(name), await asyncio.to_thread(data.read_bytes)
        path.write_bytes(content)
        return Artifact(
            name=name,
            content_type=content_type or content_type_of(name),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            created_at=datetime.now(UTC),
            object=str(path),
        )

    def artifact_url(self, name: str) -> str:
        return artifact_path(JOB_ID, artifact_name(name))

    async def create(self, payload: BaseModel, **options: Any) -> ChildJob[Any]:
        raise NotImplementedError

    def wait(self, step: Coroutine[Any, Any, T]) -> T:
        raise NotImplementedError


def payload_of(kind: str, start: date | str, end: date | str) -> ReportGenerationPayload:
    """The payload that asks for it."""
    fields = {"reportType": "MONTHLY_SALES", "format": kind, "dateRange": {"start": start, "end": end}}
    return ReportGenerationPayload.model_validate(fields)


def run_report(context: ReportContext, kind: str, start: date | str, end: date | str) -> ReportGenerationResult:
    """The handler, on an event loop of its own as in the process for CPU-bound work."""
    result = asyncio.run(generate_report(context, payload_of(kind, start, end)))
    assert isinstance(result, ReportGenerationResult)
    return result


def report_file(folder: Path, kind: str) -> Path:
    """Where the context keeps the report."""
    return folder / f"report.{ReportFormat(kind).lower()}"


def main(arguments: Sequence[str]) -> None:
    """Run once, and die on the way."""
    folder, kind, start, end, kill_at = arguments
    run_report(ReportContext(Path(folder), int(kill_at)), kind, start, end)


if __name__ == "__main__":
    main(sys.argv[1:])
