"""The handler of the job type `email`: sends a mail over SMTP. Needs the extra ``email``.

Only this module may import aiosmtplib. It decides which failures are retried: 4xx answers and all failures of the
connection are, 5xx answers are not. It writes the headers itself: Python's own ``email`` decodes what it is given
before it encodes it, and some versions then write line breaks that came out of that.
"""

import asyncio
import base64
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.policy import Policy, compat32, default
from email.utils import format_datetime, localtime, parseaddr
from functools import cache
from typing import Any, NamedTuple

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from gql_jobs.jobs.errors import HandlerError, PermanentError, TransientError
from gql_jobs.jobs.handler import JobContext
from gql_jobs.jobs.types.email import EmailPayload, EmailResult, is_one_line
from gql_jobs.settings import Settings
from gql_jobs_worker.handlers import environment_settings

_PERMANENT = range(500, 600)
_QUIT_WITHIN = 2.0
"""Seconds that the server has to answer QUIT; the mail has been accepted by then."""
_LINE = 76
"""Characters of a line of a header."""
_WORD = 45
"""Bytes of an encoded word's text: in base64, with what is around it, at most 75 characters."""
_TLS: dict[str, dict[str, Any]] = {
    "auto": {"use_tls": False, "start_tls": None},
    "none": {"use_tls": False, "start_tls": False},
    "starttls": {"use_tls": False, "start_tls": True},
    "tls": {"use_tls": True, "start_tls": False},
}


async def send_email(context: JobContext, payload: EmailPayload) -> EmailResult:
    """Send one mail; every attempt uses the same Message-ID.

    :raises TransientError: for a 4xx answer, a refused or lost connection, a timeout.
    :raises PermanentError: for a 5xx answer, or settings that ask for what the server does not support.
    """
    smtp = environment_settings()
    message_id = f"<{context.job_id}@gql-jobs>"
    try:
        mail = compose_mail(payload, smtp.smtp_sender, message_id)
        context.progress(25, "Connecting to SMTP...")
        async with _connected(smtp) as client:
            context.progress(50, f"Sending to {payload.to}...")
            options = ["SMTPUTF8"] if mail.utf8 else []
            await client.sendmail(mail.sender, [mail.recipient], mail.data, mail_options=options)
            context.progress(90, "Accepted by the SMTP server")
    except (SMTPException, OSError, ValueError) as error:
        raise _failure(error) from error
    return EmailResult(message_id=message_id)


@cache
def _own_name() -> str:
    """Return the host name for EHLO. A slow DNS makes this take seconds, so it is looked up once."""
    return socket.getfqdn()


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[SMTP]:
    password = settings.smtp_password
    client = SMTP(
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        username=settings.smtp_username,
        password=password.get_secret_value() if password is not None else None,
        timeout=settings.smtp_timeout,
        local_hostname=await asyncio.to_thread(_own_name),
        **_TLS[settings.smtp_tls],
    )
    try:
        await client.connect()
        yield client
        with suppress(SMTPException, OSError):  # the mail is accepted, whatever becomes of the QUIT
            await client.quit(timeout=_QUIT_WITHIN)
    finally:
        client.close()


class ComposedMail(NamedTuple):
    """A mail as it is sent: from and to which address, its bytes, and whether the addresses need SMTPUTF8."""

    sender: str
    recipient: str
    data: bytes
    utf8: bool


def compose_mail(payload: EmailPayload, sender: str, message_id: str) -> ComposedMail:
    """Return the mail, whose headers are read as they were meant.

    :param sender: an address, perhaps with a name in front of it: ``Shop <shop@example.com>``.
    :raises PermanentError: for an address or a subject that no header can hold.
    """
    name, address = parseaddr(sender)
    # A comma ends an address: ``Shop, Inc. <…>`` is one called Shop, and another one.
    if not address or not is_one_line(sender) or "=?" in sender or ("<" in sender and f"<{address}>" not in sender):
        raise PermanentError(
            "GQL_JOBS_SMTP_SENDER is no address such as shop@example.com or Shop <shop@example.com>; "
            'a name with a comma stands in quotes, as in "Shop, Inc." <shop@example.com>.'
        )
    for each in (address, payload.to):
        if "=?" in each or not is_one_line(each) or any(character in "<>, \t" for character in each):
            raise PermanentError("The mail cannot be sent this way: an address has characters that none may have.")
    subject = payload.subject.strip()
    if not is_one_line(subject):
        raise PermanentError("The mail cannot be sent this way: the subject must be one line.")
    headers = {
        "From": f"{_phrase(name)} <{address}>" if name else address,
        "To": payload.to,
        "Subject": _header_text(subject, len("Subject: ")),
        "Date": format_datetime(localtime()),
        "Message-ID": message_id,
    }
    content = EmailMessage(policy=SMTP_POLICY.clone(cte_type="7bit"))
    content.set_content(payload.body)
    head = "".join(f"{field}: {text}\r\n" for field, text in headers.items())
    data = head.encode() + content.as_bytes()
    intended = {**headers, **dict(content.items()), "Subject": subject, "From": f"{name} <{address}>"}
    if any(_read_back(data, policy) != intended for policy in (default, compat32)):
        raise PermanentError("The mail cannot be sent this way: its headers would be read as others than they are.")
    return ComposedMail(address, payload.to, data, utf8=not (address + payload.to).isascii())


def _phrase(name: str) -> str:
    """Return the name before an address as it stands in a header."""
    return f'"{name}"' if re.fullmatch(r"[ !#-<>-\[\]-~=]*", name) and "=?" not in name else _encoded_words(name)


def _header_text(text: str, taken: int) -> str:
    """Return a text as it stands in a header, after ``taken`` characters of its line."""
    if text.isascii() and text.isprintable() and "=?" not in text and len(text) + taken <= _LINE:
        return text
    return _encoded_words(text)


def _encoded_words(text: str) -> str:
    """Return a text as encoded words, a line for each, of which none cuts a character."""
    words, begun = [], b""
    for character in text:
        data = character.encode()
        if len(begun) + len(data) > _WORD:
            words.append(begun)
            begun = b""
        begun += data
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(word).decode()}?=" for word in [*words, begun])


def _read_back(data: bytes, policy: "Policy[Any]") -> dict[str, str] | None:
    """Return the headers of a mail as a program reads them that goes by this policy; None if one comes twice."""
    mail = message_from_bytes(data, policy=policy)
    read: dict[str, str] = {}
    for field, value in mail.raw_items():
        if field in read:
            return None
        # Addresses beyond ASCII stand in headers as UTF-8, which the parser keeps as escaped bytes.
        text = str(value).encode("utf-8", "surrogateescape").decode().replace("\r\n ", " ")
        if field == "From":
            name, address = parseaddr(text)
            if policy is default and text.isascii():
                (one,) = mail["From"].addresses
                name, address = one.display_name, one.addr_spec
            read[field] = f"{_plain(name)} <{address}>"
        elif policy is default and text.isascii():
            read[field] = str(mail[field])
        else:
            read[field] = _plain(text)
    return read


def _plain(text: str) -> str:
    return str(make_header(decode_header(text))) if "=?" in text else text


def _answer(error: BaseException) -> BaseException:
    """Return the server's answer: where the RSET after it failed too, aiosmtplib raises only that failure."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SMTPResponseException | SMTPRecipientsRefused):
            return cause
        cause = cause.__context__
    return error


def _failure(error: Exception) -> HandlerError:
    """Return the error of the attempt for an exception of the SMTP client: permanent or transient."""
    match _answer(error):
        case SMTPRecipientsRefused() as refused:
            answers = [(recipient.code, recipient.message) for recipient in refused.recipients]
            what = "refused the recipient"
        case SMTPSenderRefused() as refused:
            answers, what = [(refused.code, refused.message)], "refused the sender"
        case SMTPResponseException() as refused:
            answers, what = [(refused.code, refused.message)], "refused the mail"
        case SMTPNotSupported() | ValueError():
            return PermanentError(f"The mail cannot be sent this way: {error}")
        case SMTPException() if type(error) is SMTPException:  # STARTTLS or a login that the server does not offer
            return PermanentError(f"The SMTP server does not do what the settings ask for: {error}")
        case _:
            return TransientError(f"The SMTP server cannot be reached: {error or type(error).__name__}")
    listed = "; ".join(f"{code} {message}" for code, message in answers)
    kind = PermanentError if all(code in _PERMANENT for code, _ in answers) else TransientError
    return kind(f"The SMTP server {what}: {listed}")
