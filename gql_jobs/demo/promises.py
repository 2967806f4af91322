"""The jobs of the demo with their expected results, and the server of the pictures that its image jobs fetch."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image, ImageDraw

KINDS = ("email", "image", "report")
_SCHEDULED_AHEAD = timedelta(seconds=3)
_CHUNK = 16 * 1024
_YEAR = {"start": "2024-01-01", "end": "2024-12-31"}


class Broken(Exception):
    """A job did not end as its ``Promise`` says, or the server did not behave as it should."""


@dataclass
class Promise:
    """One job of the demo, and what is expected: its final status, its retries, and its files."""

    name: str
    payload: dict[str, Any]
    priority: str = "NORMAL"
    ends: str = "COMPLETED"
    retries: int = 0
    run_at: datetime | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    """The first bytes of each expected file, by its name."""
    id: str = ""
    """The id of the job, once it is created; empty before."""

    @property
    def type(self) -> str:
        """Return the member of the payload that is set, which names the type of the job."""
        (name,) = self.payload
        return name

    def input(self, tag: str) -> dict[str, Any]:
        """Return the input of ``createJob``, with the tag of this run."""
        made: dict[str, Any] = {"payload": self.payload, "priority": self.priority, "tags": [tag]}
        if self.run_at is not None:
            made["runAt"] = self.run_at.isoformat()
        return made


def promises(kinds: tuple[str, ...], pictures: str, count: int) -> list[Promise]:
    """Return every job of the demo.

    :param kinds: which of ``KINDS``.
    :param pictures: the address of the demo's own ``picture_server``.
    :param count: how often the plain jobs are made.
    """
    made: list[Promise] = []
    if "email" in kinds:
        made += _mails(count)
    if "image" in kinds:
        made += _images(pictures, count)
    if "report" in kinds:
        made += _reports()
    return made


def _mails(count: int) -> list[Promise]:
    plain = [
        Promise("welcome mail", _mail("ada@example.com", "Welcome"), "CRITICAL"),
        Promise("invoice", _mail("grace@example.com", "Your invoice"), "HIGH"),
    ]
    plain += [Promise(f"newsletter {n}", _mail(f"reader{n}@example.com", "News"), "LOW") for n in range(1, count + 1)]
    soon = datetime.now(UTC) + _SCHEDULED_AHEAD
    return [
        *plain,
        Promise("greylisted mail", _mail("margaret@greylist.example", "Hello"), retries=2),
        Promise("rejected mail", _mail("nobody@reject.example", "Hello"), "HIGH", ends="DEAD_LETTER"),
        Promise("mail in three seconds", _mail("alan@example.com", "On time"), run_at=soon),
    ]


def _mail(to: str, subject: str) -> dict[str, Any]:
    return {"email": {"to": to, "subject": subject, "body": "Sent by the demo of gql-jobs."}}


def _images(pictures: str, count: int) -> list[Promise]:
    operations = ["RESIZE", "WATERMARK"]
    made = [
        Promise(
            f"picture {n}",
            _image(f"{pictures}/picture.jpg", operations, "/output/processed.jpg"),
            "HIGH",
            files={"output/processed.jpg": b"\xff\xd8\xff"},
        )
        for n in range(1, count + 1)
    ]
    thumbnail = _image(f"{pictures}/picture.jpg", ["GRAYSCALE", "THUMBNAIL"], "/thumbnail.png")
    missing = _image(f"{pictures}/missing.jpg", ["THUMBNAIL"], "/never.jpg")
    return [
        *made,
        Promise("grey thumbnail", thumbnail, files={"thumbnail.png": b"\x89PNG"}),
        Promise("broken picture link", missing, ends="DEAD_LETTER"),
    ]


def _image(url: str, operations: list[str], output: str) -> dict[str, Any]:
    return {"imageProcessing": {"imageUrl": url, "operations": operations, "outputPath": output}}


def _reports() -> list[Promise]:
    begins = {"PDF": b"%PDF-", "CSV": b"section,name,rows,", "XLSX": b"PK"}
    return [
        Promise(
            f"sales report ({name})",
            {"reportGeneration": {"reportType": "MONTHLY_SALES", "format": name, "dateRange": _YEAR}},
            "LOW",
            files={f"report.{name.lower()}": begin},
        )
        for name, begin in begins.items()
    ]


def _picture() -> bytes:
    """Return a JPEG of 1 600 by 1 200 pixels."""
    image = Image.linear_gradient("L").resize((1600, 1200)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for step in range(8):
        draw.ellipse((100 + 150 * step, 300, 500 + 150 * step, 900), outline=(30 * step, 90, 220 - 20 * step), width=12)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=92)
    return target.getvalue()


@contextmanager
def picture_server(pause: float) -> Iterator[str]:
    """Serve the one picture of the image jobs on loopback, and none besides, until the block ends.

    :param pause: seconds after each 16 KiB, so that the download can be watched.
    :returns: the server's address; the picture is at ``/picture.jpg``.
    """
    body = _picture()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/picture.jpg":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for start in range(0, len(body), _CHUNK):
                self.wfile.write(body[start : start + _CHUNK])
                time.sleep(pause)

        def log_message(self, *_: object) -> None:
            """Nothing: the demo's output is about jobs."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="pictures", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
