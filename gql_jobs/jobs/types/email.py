"""The job type `email`: one plain-text message over SMTP.

What becomes a header is one line, also for a mail program that decodes it: ``=?utf-8?q?…?=`` in a header stands for
other characters, line breaks among them, and there are programs that take those for the end of the header.
"""

import base64
import quopri
import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, EmailStr, Field

from gql_jobs.jobs.registry import Model, Payload, job_type

# Wider than the standard, as some programs are: with blanks, without padding.
_ENCODED_WORD = re.compile(r"=\?([^?]*)\?([bq])\?([^?]*)", re.IGNORECASE)
_NO_LINE = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of characters that are no text of one line: controls, halves of surrogate pairs, separators of lines."""


def is_one_line(text: str) -> bool:
    """Return whether a text is one line without control characters but tabs, as it is and decoded as a header."""
    return all(_prints(each) for each in (text, *map(_decoded, _ENCODED_WORD.findall(text))))


def _prints(text: str) -> bool:
    return all(character == "\t" or unicodedata.category(character) not in _NO_LINE for character in text)


def _decoded(word: tuple[str, str, str]) -> str:
    """Return what an encoded word stands for; what cannot be decoded has no control characters that could come out."""
    charset, encoding, text = word
    if encoding in "bB":
        kept = re.sub(r"[^A-Za-z0-9+/]", "", text)
        data = base64.b64decode(kept[: len(kept) - (len(kept) % 4 == 1)] + "=" * (-len(kept) % 4 % 3))
    else:
        data = quopri.decodestring(text.encode("utf-8", "replace"), header=True)
    try:
        return data.decode(charset.partition("*")[0] or "ascii", "replace")
    except (LookupError, ValueError):
        return data.decode("latin-1")


def _one_line(text: str) -> str:
    if not is_one_line(text):
        raise ValueError("it must be one line without control characters, also where it is decoded as a header")
    return text


def _plain_address(address: str) -> str:
    if "=?" in address or not is_one_line(address):
        raise ValueError("it must be an address without encoded words and control characters")
    return address


class EmailResult(Model):
    """What the SMTP server accepted."""

    message_id: str = Field(description="The Message-ID the mail was sent with; it derives from the job id.")


class EmailPayload(Payload[EmailResult]):
    """An e-mail to send."""

    to: Annotated[EmailStr, AfterValidator(_plain_address)] = Field(
        description="The recipient's address.", max_length=320
    )
    subject: Annotated[str, AfterValidator(_one_line)] = Field(
        description="The subject line; one line.", max_length=998
    )
    body: str = Field(description="The text, plain.")


job_type(
    "email",
    payload=EmailPayload,
    handler="gql_jobs_worker.handlers.email:send_email",
    description="Sends one e-mail over SMTP.",
)
