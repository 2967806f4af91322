"""Artifacts: files that a handler keeps with its job. Names and values only; where they lie is the log's business."""

import mimetypes
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from msgspec import Meta, Struct

MAX_NAME = 200
"""Bytes of a name."""
_TYPES = {".webp": "image/webp", ".avif": "image/avif", ".csv": "text/csv", ".pdf": "application/pdf"}
"""Types that not every system's table knows."""


class Artifact(Struct, frozen=True, rename="camel"):
    """A file of a job. ``object`` is where its bytes lie in the object store, ``sha256`` their digest in hex."""

    name: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: Annotated[datetime, Meta(tz=True)]
    object: str

    def url(self, job_id: str) -> str:
        """Its path below the API's address."""
        return artifact_url(job_id, self.name)


def artifact_url(job_id: str, name: str) -> str:
    """The path, below the API's address, of an artifact."""
    return f"/artifacts/{job_id}/{quote(name)}"


def artifact_name(path: str) -> str:
    """The name that a path inside the artifact store stands for; a leading ``/`` is the store's root.

    :raises ValueError: for a path that would leave the store, or that no URL or file system would keep as it is.
    """
    name = path.removeprefix("/")
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME:
        raise ValueError(f"An artifact's path must have 1 to {MAX_NAME} bytes.")
    if not name.isprintable() or "\\" in name:
        raise ValueError("An artifact's path must not contain backslashes or control characters.")
    if any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError("An artifact's path must not contain empty parts, '.' or '..'.")
    return name


def content_type_of(name: str) -> str:
    """The media type that the name's extension stands for."""
    for extension, media_type in _TYPES.items():
        if name.lower().endswith(extension):
            return media_type
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
