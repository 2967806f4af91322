"""The files of jobs over HTTP: fetched from the object store into a cache on disk, and sent from there.

The cache is a folder, and may be deleted at any time. Starlette serves the plain files, with ranges and streaming.
"""

import asyncio
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from email.utils import parsedate_to_datetime
from functools import partial
from hashlib import sha256
from io import BufferedWriter
from pathlib import Path
from urllib.parse import quote
from weakref import WeakValueDictionary

from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from gql_jobs.jobs.errors import BadRequest, GqlJobsError, QueueUnavailable
from gql_jobs.jobs.model import Artifact, media_type, parse_job_id
from gql_jobs.jobs.viewer import Viewer
from gql_jobs.log.artifacts import ArtifactStore
from gql_jobs.web.connections import CONNECTION_EXTENSION, client_of
from gql_jobs.web.graphql_request import error_response
from gql_jobs.web.request_authentication import (
    HOST_VIEWER,
    RequestAuthentication,
    refusal_of,
    refuse_token_in_url,
)
from gql_jobs.web.runtime import RuntimeOpener

log = logging.getLogger(__name__)
artifacts_router = APIRouter()

_INLINE = frozenset(
    {"image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "application/pdf", "text/plain", "text/csv"}
)
"""Media types that a browser may show; any other is sent as a download, since it could run as a page of this origin."""
_DIGEST = re.compile("[0-9a-f]{64}")
_TRIES = 3
"""How often a file is fetched that is removed again before it can be sent."""
_IN_USE = 600.0
"""Seconds for which a cached file is not removed, because a response may still be reading it."""


class ArtifactCache:
    """Fetched files under ``folder``; the least recently used are removed when they exceed ``max_bytes`` together.

    Those of one job are in a folder of theirs. Each has a name of its own, whatever is in it: were alike files one,
    whoever has a file made could tell by the time that it takes whether somebody else has fetched the same content.
    """

    def __init__(self, store: ArtifactStore, folder: Path, max_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self._max_bytes = max_bytes
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def file(self, artifact: Artifact) -> Path:
        """Return the path of a file with the artifact's bytes, fetched if it is not in the folder.

        :raises KeyError: if the object store does not have them any more.
        :raises QueueUnavailable: if they cannot be read now.
        """
        path = self._folder_of(artifact.object.partition("/")[0]) / _digest(artifact.object)
        for _ in range(_TRIES):
            try:
                async with self._fetching.setdefault(path.name, asyncio.Lock()):
                    if not path.exists():
                        await self._fetch(artifact, path)
                        await asyncio.to_thread(self._trim)
                os.utime(path)
            except FileNotFoundError:
                # Another process has removed the file, or somebody the folder.
                continue
            except OSError as error:
                log.warning("the file %s cannot be kept in %s: %s", artifact.name, self._folder, error)
                break
            return path
        raise QueueUnavailable("The file cannot be read at the moment; try again.")

    async def forget(self, job_ids: Sequence[str]) -> None:
        """Remove the files of jobs that are gone from the stream, and from the object store before."""
        for job_id in job_ids:
            await asyncio.to_thread(shutil.rmtree, self._folder_of(job_id), ignore_errors=True)

    def _folder_of(self, job_id: str) -> Path:
        return self._folder / _digest(job_id)

    async def _fetch(self, artifact: Artifact, path: Path) -> None:
        # Written under another name until it is complete: processes may share the folder, and may be killed.
        partial = self._folder / f".{secrets.token_hex(8)}"
        try:
            with await asyncio.to_thread(self._create, partial, path.parent) as file:
                await self._store.read(artifact, file)
            # Which fails if the job has been forgotten meanwhile.
            await asyncio.to_thread(partial.replace, path)
        finally:
            await asyncio.to_thread(partial.unlink, missing_ok=True)

    def _create(self, path: Path, folder: Path) -> BufferedWriter:
        folder.mkdir(parents=True, exist_ok=True)
        return path.open("xb")

    def _trim(self) -> None:
        files = []
        for entry in _files_below(self._folder):
            # One that is being written is renamed meanwhile.
            with suppress(FileNotFoundError):
                files.append((entry.stat(), Path(entry)))
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
            if total <= self._max_bytes or time.time() - stat.st_mtime < _IN_USE:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size
            if path.parent != self._folder:
                # Not if there are others of the job.
                with suppress(OSError):
                    path.parent.rmdir()


def _files_below(folder: Path) -> Iterator["os.DirEntry[str]"]:
    # A folder may be removed meanwhile.
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files_below(Path(entry))
            else:
                yield entry


def _digest(name: str) -> str:
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


@artifacts_router.api_route("/artifacts/{job_id}/{name:path}", methods=["GET", "HEAD"])
async def send_artifact(request: Request, job_id: str, name: str) -> Response:
    """Answer with a file of a job, whole or in ranges; 404 if there is none, 503 while it cannot be looked up.

    Under authentication it takes a bearer, or the signature that is in ``Artifact.url``; without either it is 401.
    """
    opener: RuntimeOpener = request.app.state.opener
    authentication: RequestAuthentication = request.app.state.authentication
    known = parse_job_id(job_id)
    try:
        viewer = await _viewer(request, authentication, job_id, name)
        runtime = opener.runtime
        found = await runtime.artifact(known, name, viewer.visibility) if known is not None else None
        if found is None or not _DIGEST.fullmatch(found.sha256):
            # What is no digest would be no ETag.
            return _not_found()
        headers = _headers(found)
        if _has_it(request, headers["ETag"], found):
            return Response(status_code=304, headers=headers)
        if request.method == "HEAD":
            # The record says it all, and the file need not be fetched.
            size = {"Content-Length": str(found.size_bytes), "Accept-Ranges": "bytes"}
            return Response(headers={**headers, **size}, media_type=_content_type(found))
        cache: ArtifactCache = request.app.state.artifact_cache
        path = await cache.file(found)
    except GqlJobsError as error:
        return refusal_of(error)
    except KeyError:
        return _not_found()
    file = FileResponse(path, headers=headers, media_type=_content_type(found))
    return EndingResponse(file, partial(authentication.until_ended, viewer))


async def _viewer(request: Request, authentication: RequestAuthentication, job_id: str, name: str) -> Viewer:
    """Return who asks for a file, by the signature in the URL or else by the bearer.

    :raises Unauthenticated, RateLimited, BadRequest, QueueUnavailable: as ``RequestAuthentication`` has them.
    """
    signatures = request.query_params.getlist("signature")
    if not signatures or HOST_VIEWER in request.scope:
        return await authentication.viewer(request.scope)
    refuse_token_in_url(request.scope)
    if len(signatures) > 1:
        raise BadRequest("A URL has one signature.")

    async def verify(signature: str, _digest: bytes) -> Viewer:
        return authentication.access.artifact_viewer(job_id, name, signature)

    return await authentication.verified(signatures[0], client_of(request.scope), verify)


class EndingResponse(Response):
    """A response that breaks off once the credential of whoever asked for it has ended.

    :param until_ended: has a function called when that is so.
    """

    def __init__(
        self, response: Response, until_ended: Callable[[Callable[[], None]], AbstractContextManager[None]]
    ) -> None:
        super().__init__()
        self._response = response
        self._until_ended = until_ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response as far as it may be sent."""
        has_ended = False
        close = scope.get("extensions", {}).get(CONNECTION_EXTENSION, {}).get("close")

        def end() -> None:
            nonlocal has_ended
            has_ended = True
            if close is not None:
                close()

        async def send_on(message: Message) -> None:
            if has_ended:
                raise _Ended
            await send(message)

        with suppress(_Ended), self._until_ended(end):
            await self._response(scope, receive, send_on)


class _Ended(Exception):
    pass


def _not_found() -> Response:
    return error_response(404, "There is no such artifact.", "NOT_FOUND")


def _has_it(request: Request, etag: str, found: Artifact) -> bool:
    """Return whether the client has this version of the file; its date counts only without tags (RFC 9110, 13.1.3)."""
    tags, since = request.headers.get("if-none-match"), request.headers.get("if-modified-since")
    if tags is not None:
        return not {tag.strip().removeprefix("W/") for tag in tags.split(",")}.isdisjoint({etag, "*"})
    try:
        return since is not None and parsedate_to_datetime(since) >= found.created_at.replace(microsecond=0)
    except (ValueError, TypeError):
        # No date, or one without an offset.
        return False


def _content_type(found: Artifact) -> str:
    try:
        return media_type(found.content_type)
    except ValueError:
        # It was saved by an earlier version, and no header can have it.
        return "application/octet-stream"


def _headers(found: Artifact) -> dict[str, str]:
    inline = _content_type(found).partition(";")[0].strip().lower() in _INLINE
    disposition = "inline" if inline else "attachment"
    headers = {
        "ETag": f'"{found.sha256}"',
        "Last-Modified": found.created_at.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        # A retry may replace the file under the same name.
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        # Its address may be signed, and is nobody else's.
        "Referrer-Policy": "no-referrer",
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(found.name.rsplit('/', 1)[-1], safe='')}",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    # A viewer of pictures or PDF needs styles of its own.
    policy = "script-src 'none'; form-action 'none'" if inline else "sandbox; default-src 'none'"
    headers["Content-Security-Policy"] = f"{policy}; base-uri 'none'; frame-ancestors 'none'"
    return headers
