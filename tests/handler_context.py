"""What a worker gives a handler, for tests of handlers alone: remembers the progress, keeps artifacts in a folder."""

import hashlib
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime
from logging import LoggerAdapter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from gql_jobs.jobs.model import Artifact, artifact_name, content_type_of

T = TypeVar("T")
JOB_ID = "018f3a52-0000-7000-8000-000000000001"


class FolderContext:
    """A ``JobContext`` whose artifacts are files below ``folder``."""

    job_id = JOB_ID
    attempt = 1
    idempotency_token = JOB_ID
    log: "LoggerAdapter[Any]" = LoggerAdapter(logging.getLogger("test"))
    saved = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[tuple[float, str | None]] = []

    def progress(self, percent: float, message: str | None = None) -> None:
        self.said.append((percent, message))

    async def checkpoint(self, data: Any) -> None:
        raise NotImplementedError

    async def save_artifact(
        self, name: str, data: bytes | Path | BinaryIO, content_type: str | None = None
    ) -> Artifact:
        path = self.folder / artifact_name(name)
        content = _kept(data, path)
        return Artifact(
            name=artifact_name(name),
            content_type=content_type or content_type_of(name),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            created_at=datetime.now(UTC),
            object=str(path),
        )

    def wait(self, step: Coroutine[Any, Any, T]) -> T:
        raise NotImplementedError


def _kept(data: bytes | Path | BinaryIO, path: Path) -> bytes:
    content = data if isinstance(data, bytes) else data.read_bytes() if isinstance(data, Path) else data.read()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content
