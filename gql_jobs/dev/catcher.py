"""What the development SMTP server answers: it keeps every mail, except where an address asks for trouble.

``…@reject.example`` is refused with 550, ``…@greylist.example`` with 451 for the first two tries of each mail.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict

from aiosmtpd.smtp import SMTP, Envelope, Session

from gql_jobs.dev.mails import Mails, message_id_of

log = logging.getLogger(__name__)

_REFUSALS = 2
_REMEMBERED = 10_000
"""Mails whose refusals are counted; the longest untried is forgotten first."""


class Catcher:
    """The hooks that aiosmtpd calls."""

    def __init__(self, mails: Mails) -> None:
        self._mails = mails
        self._refusals: OrderedDict[str, int] = OrderedDict()

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Called for each recipient."""
        if _domain(address) == "reject.example":
            return "550 5.1.1 No such recipient here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Called when the whole mail is there."""
        content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        recipients = [str(recipient) for recipient in envelope.rcpt_tos]
        if any(_domain(recipient) == "greylist.example" for recipient in recipients) and self._refuses(content):
            return "451 4.7.1 Greylisted, please try again later"
        mail_id = await asyncio.to_thread(self._mails.add, envelope.mail_from or "", recipients, content)
        log.info("kept mail %s to %s", mail_id, ", ".join(recipients))
        return f"250 2.0.0 Kept as {mail_id}"

    def _refuses(self, content: bytes) -> bool:
        """Whether this try is one of the first two of its mail, known by its Message-ID."""
        mail = message_id_of(content) or hashlib.sha256(content).hexdigest()
        refused = self._refusals.pop(mail, 0)
        self._refusals[mail] = min(refused + 1, _REFUSALS)
        if len(self._refusals) > _REMEMBERED:
            self._refusals.popitem(last=False)
        return refused < _REFUSALS


def _domain(address: str) -> str:
    return address.rpartition("@")[2].strip("<> ").lower()
