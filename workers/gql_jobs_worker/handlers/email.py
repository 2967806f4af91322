"""The handler of the job type `email`: sends a mail over SMTP. Needs the extra ``email``.

Only this module may import aiosmtplib. It decides which failures are retried: 4xx answers and all failures of the
connection are, 5xx answers are not.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import localtime
from functools import cache
from typing import Any

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
from gql_jobs.jobs.types.email import EmailPayload, EmailResult
from gql_jobs.settings import Settings
from gql_jobs_worker.handlers import environment_settings

_PERMANENT = range(500, 600)
_QUIT_WITHIN = 2.0
"""Seconds that the server has to answer QUIT; the mail has been accepted by then."""
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
        message = _compose(payload, smtp.smtp_sender, message_id)
        context.progress(25, "Connecting to SMTP...")
        async with _connected(smtp) as client:
            context.progress(50, f"Sending to {payload.to}...")
            await client.send_message(message, sender=smtp.smtp_sender, recipients=[payload.to])
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


def _compose(payload: EmailPayload, sender: str, message_id: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    user, _, domain = payload.to.rpartition("@")
    message["To"] = Address(username=user, domain=domain)
    message["Subject"] = payload.subject
    message["Date"] = localtime()
    message["Message-ID"] = message_id
    message.set_content(payload.body)
    return message


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
