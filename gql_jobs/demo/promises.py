"""What the demo creates, and what it promises of each job."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

SCHEDULED_AHEAD = timedelta(seconds=3)
KINDS = ("email", "image", "report")
_YEAR = {"start": "2024-01-01", "end": "2024-12-31"}


class Broken(Exception):
    """A promise of the demo did not hold."""


@dataclass
class Promise:
    """One job: how it is created, how it ends, after how many retries, and which files it leaves.

    ``files``: the first bytes of each, by name.
    """

    name: str
    payload: dict[str, Any]
    priority: str = "NORMAL"
    ends: str = "COMPLETED"
    retries: int = 0
    run_at: datetime | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    id: str = ""

    @property
    def type(self) -> str:
        """The field of the payload that is set, which names the type of the job."""
        (name,) = self.payload
        return name

    def input(self, tag: str) -> dict[str, Any]:
        """The input of ``createJob``."""
        made: dict[str, Any] = {"payload": self.payload, "priority": self.priority, "tags": [tag]}
        if self.run_at is not None:
            made["runAt"] = self.run_at.isoformat()
        return made


def promises(kinds: tuple[str, ...], pictures: str, count: int) -> list[Promise]:
    """Every job of the demo; ``pictures`` is where its own server is, ``count`` how often the plain ones are made."""
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
    soon = datetime.now(UTC) + SCHEDULED_AHEAD
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
