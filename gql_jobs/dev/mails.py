"""The caught mails as files: one ``.eml`` each, named so that they sort by arrival, the newest 1 000 kept.

Their content is untrusted and may be malformed in any way: no mail makes reading fail.
"""

import email.policy
import re
import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path

_KEPT = 1000
_ID = re.compile(r"\d{20}-[0-9a-f]{8}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_HEADER = (ValueError, LookupError, AttributeError, TypeError)
"""What the standard library's parser raises for malformed headers and unknown charsets."""


@dataclass(frozen=True)
class Mail:
    """One mail as the page and ``/messages`` show it; ``to`` and ``sender`` are those of the envelope."""

    id: str
    sender: str
    to: str
    subject: str
    message_id: str
    date: str
    body: str

    def as_json(self) -> dict[str, str]:
        """Return the mail with the names that ``/messages`` documents: ``from`` and ``messageId``."""
        fields = asdict(self)
        renamed = {"from": fields.pop("sender"), "messageId": fields.pop("message_id")}
        return {**fields, **renamed}


class Mails:
    """The mails in ``folder``. Its methods access the disk: call them from a thread.

    :param kept: how many are kept; older ones are removed.
    """

    def __init__(self, folder: Path, *, kept: int = _KEPT) -> None:
        self._folder = folder
        self._kept = kept
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in folder.glob("*.tmp"):
            unfinished.unlink()
        self._ids = deque(sorted(path.stem for path in folder.glob("*.eml") if _ID.fullmatch(path.stem)))
        self._trim()

    def add(self, sender: str, recipients: list[str], content: bytes) -> str:
        """Store one mail and return its id; remove the oldest if there are too many."""
        mail_id = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        path = self._path(mail_id)
        envelope = f"Return-Path: <{_clean(sender)}>\r\nDelivered-To: {_clean(', '.join(recipients))}\r\n"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(envelope.encode("utf-8", "surrogateescape") + content)
        temporary.replace(path)
        self._ids.append(mail_id)
        self._trim()
        return mail_id

    def get(self, mail_id: str) -> Mail | None:
        """Return the mail of that id, or None if there is none."""
        if not _ID.fullmatch(mail_id):
            return None
        try:
            content = self._path(mail_id).read_bytes()
        except FileNotFoundError:
            return None
        return _parse(mail_id, content)

    def newest_first(self, to: str | None = None) -> Iterator[Mail]:
        """Yield all mails, or those for one recipient, the newest first."""
        for mail_id in reversed(list(self._ids)):
            mail = self.get(mail_id)
            if mail is not None and (to is None or to.lower() in mail.to.lower().split(", ")):
                yield mail

    def _path(self, mail_id: str) -> Path:
        return self._folder / f"{mail_id}.eml"

    def _trim(self) -> None:
        while len(self._ids) > self._kept:
            self._path(self._ids.popleft()).unlink(missing_ok=True)


def _clean(address: str) -> str:
    # A bare carriage return in an address would start another header.
    return _CONTROL.sub("?", address)


def message_id_of(content: bytes) -> str | None:
    """Return the Message-ID of a raw mail, or None if it has none."""
    return _header(_message(content), "Message-ID") or None


def _message(content: bytes) -> EmailMessage:
    return message_from_bytes(content, policy=email.policy.default)


def _parse(mail_id: str, content: bytes) -> Mail:
    message = _message(content)
    arrived = datetime.fromtimestamp(int(mail_id[:20]) / 1e9, UTC)
    return Mail(
        id=mail_id,
        sender=_header(message, "From") or _header(message, "Return-Path"),
        to=_header(message, "Delivered-To"),
        subject=_header(message, "Subject"),
        message_id=_header(message, "Message-ID"),
        date=arrived.isoformat(timespec="milliseconds"),
        body=_body(message),
    )


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message[name] or "").strip()
    except _BAD_HEADER:
        return "(unreadable)"


def _body(message: EmailMessage) -> str:
    try:
        part = message.get_body(("plain", "html"))
        return str(part.get_content()).replace("\r\n", "\n") if part is not None else ""
    except _BAD_HEADER:
        return str(message.get_payload())
