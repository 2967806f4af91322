"""The e-mail handler against a real SMTP server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import compat32, default
from pathlib import Path
from typing import Unpack

import pytest
from hypothesis import example, given
from hypothesis.strategies import characters, text
from pydantic import ValidationError

from gql_jobs.jobs.errors import InvalidPayload, PermanentError
from gql_jobs.jobs.types.email import EmailPayload, EmailResult
from gql_jobs.testing import ErrorKind, HandlerOutcome, HandlerRunOptions, arun_handler
from gql_jobs_worker.handlers import email as handler
from gql_jobs_worker.handlers import environment_settings
from tests.mailbox import RunningMailbox, running_mailbox


@pytest.fixture(autouse=True)
def _fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GQL_JOBS_SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("GQL_JOBS_SMTP_TIMEOUT", "5")
    environment_settings.cache_clear()
    yield
    environment_settings.cache_clear()


@pytest.fixture
async def mailbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningMailbox]:
    async with running_mailbox(tmp_path) as running:
        monkeypatch.setenv("GQL_JOBS_SMTP_PORT", str(running.smtp_port))
        yield running


async def _send(payload: EmailPayload, **options: Unpack[HandlerRunOptions]) -> HandlerOutcome[EmailResult]:
    return await arun_handler(handler.send_email, payload, **options)


def _payload(to: str = "ada@example.com", subject: str = "Hello", body: str = "text") -> EmailPayload:
    return EmailPayload(to=to, subject=subject, body=body)


async def test_the_server_accepts_it_and_the_message_id_is_the_job_s(mailbox: RunningMailbox) -> None:
    outcome = await _send(_payload())
    (mail,) = await mailbox.mails()
    assert outcome.result.message_id == mail["messageId"] == f"<{outcome.job_id}@gql-jobs>"
    assert (mail["from"], mail["to"], mail["subject"]) == ("gql-jobs@localhost", "ada@example.com", "Hello")
    assert outcome.progress == (
        (25, "Connecting to SMTP..."),
        (50, "Sending to ada@example.com..."),
        (90, "Accepted by the SMTP server"),
    )


@pytest.mark.parametrize("to", ["ada@example.com", "jörg@bücher.example", "o'hara+x@example.com"])
async def test_text_beyond_ascii_arrives_as_written(mailbox: RunningMailbox, to: str) -> None:
    subject, body = "Größe ✓ 😀 " + "lang " * 50, "Ünïcode ✓\n.\n..\n" + "x" * 3000
    assert (await _send(_payload(to, subject.strip(), body))).result
    (mail,) = await mailbox.mails()
    assert mail["subject"] == subject.strip()
    assert mail["body"].rstrip("\n") == body
    assert mail["to"] == to


async def test_a_line_break_cannot_become_a_header(mailbox: RunningMailbox) -> None:
    for payload in (
        EmailPayload.model_construct(to="ada@example.com", subject="x\r\nBcc: eve@example.com", body=""),
        EmailPayload.model_construct(to="ada@example.com\r\nBcc: eve@example.com", subject="x", body=""),
    ):
        with pytest.raises(InvalidPayload):
            await _send(payload)
    assert await mailbox.mails() == []


ATTACKS = [
    "=?utf-8?q?Hi=0D=0AReply-To:_e@evil.example?=",
    "=?utf-8?Q?Hi=0AReply-To:_e@evil.example?=",
    "=?utf-8?b?SGkNClJlcGx5LVRvOiBl?=",
    "=?utf-8?B?SGkNClJlcGx5LVRvOiBl",
    "=?utf-7?q?Hi+AA0ACg-Reply-To:_e?=",
    "=?utf-16-be?b?AEgADQAK?=",
    "=?us-ascii*en?q?Hi=0D=0AX:_e?=",
    "=?nonsense?q?Hi=0D=0AX:_e?=",
    "=?utf-8?q?Hi =0D=0AX: e?=",
    "before =?utf-8?q?a?= =?utf-8?q?=0D=0A?= after",
    "=?utf-8?q?nul=00?=",
    "=?utf-8?q?=E2=80=A8?=",
    "a\r\nb",
    "a\rb",
    "a\nb",
    "a\x00b",
    "a\x1bb",
    "a\x0bb",
    "a\x85b",
    "a\u2028b",
]


@pytest.mark.parametrize("subject", ATTACKS)
def test_a_subject_that_is_or_decodes_to_more_than_one_line_is_refused_when_the_job_is_created(subject: str) -> None:
    with pytest.raises(ValidationError, match="subject"):
        _payload(subject=subject)


@pytest.mark.parametrize("subject", ATTACKS)
def test_and_by_the_handler_too(subject: str) -> None:
    with pytest.raises(PermanentError):
        handler.compose_mail(
            EmailPayload.model_construct(to="ada@example.com", subject=subject, body=""), SENDER, "<1@x>"
        )


@pytest.mark.parametrize(
    "to",
    ["=?utf-8?q?a=0D=0A?=@example.com", "ada@example.com\r\nBcc: e@evil.example", "a,b@c"],
)
def test_an_address_is_no_more_than_an_address(to: str) -> None:
    with pytest.raises(ValidationError, match="to"):
        _payload(to=to)
    with pytest.raises(PermanentError):
        handler.compose_mail(EmailPayload.model_construct(to=to, subject="x", body=""), SENDER, "<1@x>")


SENDER = "gql-jobs@localhost"
HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Content-Type", "Content-Transfer-Encoding", "MIME-Version"]


@given(subject=text(max_size=200), body=text(max_size=50, alphabet=characters(exclude_categories=["Cs"])))
@example(subject="=?utf-8?q?Hi?=", body="")
@example(subject="Hi =?utf-8?b?SGk=?= there", body="From here\n.\n")
@example(subject="x" * 200, body="")
@example(subject="a  b\tc", body="")
@example(subject="Größe ✓ 😀 " * 15, body="")
def test_a_mail_has_exactly_the_headers_that_were_meant_however_it_is_parsed(subject: str, body: str) -> None:
    try:
        payload = _payload(subject=subject, body=body)
    except ValidationError:
        return
    mail = handler.compose_mail(payload, SENDER, "<1@x>")
    for policy in (default, compat32):
        read = message_from_bytes(mail.data, policy=policy)
        assert (read.keys(), read.defects) == (HEADERS, [])
        shown = read["Subject"] if policy is default else str(make_header(decode_header(read["Subject"])))
        assert shown == payload.subject.strip()
    assert all(len(line) <= 998 for line in mail.data.split(b"\r\n"))


@pytest.mark.parametrize(
    ("sender", "name", "address"),
    [
        ("shop@example.com", "", "shop@example.com"),
        ("Shop <shop@example.com>", "Shop", "shop@example.com"),
        ('"Smith, John" <j@example.com>', "Smith, John", "j@example.com"),
        ("Jörg Größe <j@example.com>", "Jörg Größe", "j@example.com"),
    ],
)
def test_the_sender_may_have_a_name(sender: str, name: str, address: str) -> None:
    mail = handler.compose_mail(_payload(), sender, "<1@x>")
    (read,) = message_from_bytes(mail.data, policy=default)["From"].addresses
    assert (read.display_name, read.addr_spec, mail.sender) == (name, address, address)


@pytest.mark.parametrize(
    "sender",
    [
        "",
        "x\r\nBcc: e@evil.example <x@y.example>",
        "=?utf-8?q?=0D=0A?= <x@y.example>",
        "=?utf-8?q?Shop?= <x@y.example>",
        "Shop, Inc. <x@y.example>",
    ],
)
def test_a_sender_that_is_none_is_refused_with_the_setting_s_name(sender: str) -> None:
    with pytest.raises(PermanentError, match="GQL_JOBS_SMTP_SENDER"):
        handler.compose_mail(_payload(), sender, "<1@x>")


async def test_greylisting_is_transient_and_the_third_try_is_accepted(mailbox: RunningMailbox) -> None:
    tries = [await _send(_payload("slow@greylist.example"), attempt=number, job_id="1") for number in (1, 2, 3)]
    for failed in tries[:2]:
        assert failed.error is not None
        assert (failed.error.kind, "451 4.7.1 Greylisted" in failed.error.message) == (ErrorKind.TRANSIENT, True)
    assert tries[2].result
    assert len(await mailbox.mails()) == 1


@pytest.mark.usefixtures("mailbox")
async def test_a_refused_recipient_is_permanent() -> None:
    error = (await _send(_payload("nobody@reject.example"))).error
    assert error is not None
    assert error.kind is ErrorKind.PERMANENT
    assert "refused the recipient: 550 5.1.1 No such recipient here" in error.message


@pytest.mark.usefixtures("mailbox")
@pytest.mark.parametrize("variable", ["GQL_JOBS_SMTP_TLS", "GQL_JOBS_SMTP_USERNAME"])
async def test_what_the_server_does_not_offer_is_permanent(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "starttls")
    monkeypatch.setenv("GQL_JOBS_SMTP_PASSWORD", "secret")
    error = (await _send(_payload())).error
    assert error is not None
    assert error.kind is ErrorKind.PERMANENT


async def test_a_refused_connection_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("GQL_JOBS_SMTP_PORT", str(unused.getsockname()[1]))
        error = (await _send(_payload())).error
    assert error is not None
    assert (error.kind, "cannot be reached" in error.message) == (ErrorKind.TRANSIENT, True)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([b"220 hi", None], ErrorKind.TRANSIENT),  # lost after the greeting
        ([None], ErrorKind.TRANSIENT),  # lost at once
        ([b"421 busy"], ErrorKind.TRANSIENT),
        ([b"554 no service"], ErrorKind.PERMANENT),
        ([b"nonsense"], ErrorKind.TRANSIENT),
        ([b"220 hi", b"250 me", b"452 full"], ErrorKind.TRANSIENT),
        ([b"220 hi", b"250 me", b"553 bad sender"], ErrorKind.PERMANENT),
        ([b"220 hi", b"250 me", b"250 ok", b"450 later"], ErrorKind.TRANSIENT),
        ([b"220 hi", b"250 me", b"250 ok", b"250 ok", b"354 go", b"554 spam"], ErrorKind.PERMANENT),
        ([b"220 hi", b"250 me", b"250 ok", b"250 ok", b"354 go", None], ErrorKind.TRANSIENT),
        ([], ErrorKind.TRANSIENT),  # says nothing: the timeout
    ],
)
async def test_what_the_server_says_decides(
    monkeypatch: pytest.MonkeyPatch, script: list[bytes | None], kind: ErrorKind
) -> None:
    async with _scripted(script) as port:
        monkeypatch.setenv("GQL_JOBS_SMTP_PORT", str(port))
        monkeypatch.setenv("GQL_JOBS_SMTP_TIMEOUT", "0.5")
        error = (await _send(_payload())).error
    assert error is not None
    assert error.kind is kind


async def test_a_lost_farewell_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[bytes | None] = [b"220 hi", b"250 me", b"250 ok", b"250 ok", b"354 go", b"250 kept", None]
    async with _scripted(accepted) as port:
        monkeypatch.setenv("GQL_JOBS_SMTP_PORT", str(port))
        assert (await _send(_payload())).result.message_id


class _scripted:  # noqa: N801
    """A server that says the given lines in turn, hanging up at None and silent at the end."""

    def __init__(self, script: list[bytes | None]) -> None:
        self._script = script
        self._talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._talks.values():
            writer.close()
        await asyncio.gather(*self._talks)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks[task] = writer
        try:
            for said in self._script:
                if said is None:
                    return
                writer.write(said + b"\r\n")
                heard = await reader.readline()
                while said.startswith(b"354") and heard not in (b".\r\n", b""):
                    heard = await reader.readline()
            await reader.read()
        finally:
            writer.close()
