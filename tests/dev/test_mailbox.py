"""The development mailbox, over real SMTP and HTTP."""

from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import httpx
import pytest

from gql_jobs.dev.mails import Mails
from tests.mailbox import RunningMailbox, running_mailbox


def _mail(to: str, *, subject: str = "Hello", message_id: str = "<one@test>", body: str = "text\n") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "from@test.example", to, subject
    message["Message-ID"] = message_id
    message.set_content(body)
    return message


async def _send(mailbox: RunningMailbox, message: EmailMessage) -> None:
    await aiosmtplib.send(message, hostname="127.0.0.1", port=mailbox.smtp_port, local_hostname="test")


async def test_a_mail_is_listed_as_json_and_filtered_by_recipient(tmp_path: Path) -> None:
    async with running_mailbox(tmp_path) as mailbox:
        await _send(mailbox, _mail("ada@example.com", subject="Größe ✓", body="Ünïcode\n"))
        await _send(mailbox, _mail("bob@example.com"))
        newest, oldest = await mailbox.mails()
        assert set(newest) == {"id", "from", "to", "subject", "messageId", "date", "body"}
        assert newest["to"] == "bob@example.com"
        assert oldest["from"] == "from@test.example"
        assert oldest["subject"] == "Größe ✓"
        assert oldest["messageId"] == "<one@test>"
        assert oldest["body"] == "Ünïcode\n"
        assert oldest["date"].endswith("+00:00")
        assert [mail["id"] for mail in await mailbox.mails(to="ADA@example.com")] == [oldest["id"]]
        assert len(await mailbox.mails(limit="1")) == 1


async def test_the_page_escapes_what_is_in_a_mail_and_forbids_scripts(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    async with running_mailbox(tmp_path) as mailbox:
        await _send(mailbox, _mail("ada@example.com", subject=evil, body=evil))
        (mail,) = await mailbox.mails()
        for page in (await mailbox.get("/"), await mailbox.get(f"/mails/{mail['id']}")):
            assert page.status_code == 200
            assert "&lt;script&gt;" in page.text
            assert "<script" not in page.text
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy


async def test_every_answer_of_the_mailbox_tells_browsers_what_not_to_do(tmp_path: Path) -> None:
    async with running_mailbox(tmp_path) as mailbox:
        await _send(mailbox, _mail("ada@example.com"))
        (mail,) = await mailbox.mails()
        paths = ("/", f"/mails/{mail['id']}", "/mails/nothing", "/messages", "/style.css", "/nowhere")
        answers = [await mailbox.get(path) for path in paths]
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{mailbox.http_port}/"
            answers.append(await client.get(url, headers={"Host": "evil.example"}))
    for answer in answers:
        told = {name: answer.headers[name] for name in ("x-frame-options", "referrer-policy", "cache-control")}
        assert told == {"x-frame-options": "DENY", "referrer-policy": "no-referrer", "cache-control": "no-store"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("mail_id", ["..%2f..%2fetc%2fpasswd", "nothing", "00000000000000000000-00000000"])
async def test_an_unknown_mail_is_not_found(tmp_path: Path, mail_id: str) -> None:
    async with running_mailbox(tmp_path) as mailbox:
        assert (await mailbox.get(f"/mails/{mail_id}")).status_code == 404


async def test_another_host_name_is_turned_away(tmp_path: Path) -> None:
    async with running_mailbox(tmp_path) as mailbox:
        import httpx  # noqa: PLC0415

        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{mailbox.http_port}/messages"
            assert (await client.get(url, headers={"Host": "evil.example"})).status_code == 400


async def test_a_reject_address_is_refused_with_550(tmp_path: Path) -> None:
    async with running_mailbox(tmp_path) as mailbox:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
            await _send(mailbox, _mail("nobody@Reject.Example"))
        assert refused.value.recipients[0].code == 550
        assert await mailbox.mails() == []


async def test_a_greylisted_address_is_refused_with_451_twice_for_each_mail(tmp_path: Path) -> None:
    async with running_mailbox(tmp_path) as mailbox:
        for message_id in ("<one@test>", "<two@test>"):
            for _ in range(2):
                with pytest.raises(aiosmtplib.SMTPDataError) as refused:
                    await _send(mailbox, _mail("slow@greylist.example", message_id=message_id))
                assert refused.value.code == 451
            await _send(mailbox, _mail("slow@greylist.example", message_id=message_id))
        assert [mail["messageId"] for mail in await mailbox.mails()] == ["<two@test>", "<one@test>"]


async def test_mails_are_files_that_survive_a_restart(tmp_path: Path) -> None:
    async with running_mailbox(tmp_path) as mailbox:
        await _send(mailbox, _mail("ada@example.com"))
    async with running_mailbox(tmp_path) as mailbox:
        assert [mail["subject"] for mail in await mailbox.mails()] == ["Hello"]
    assert len(list((tmp_path / "mails").glob("*.eml"))) == 1


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    mails = Mails(tmp_path, kept=3)
    ids = [mails.add("from@test.example", ["ada@example.com"], b"Subject: x\r\n\r\n") for _ in range(5)]
    assert [mail.id for mail in mails.newest_first()] == ids[:1:-1]
    assert len(list(tmp_path.iterdir())) == 3
    assert [mail.id for mail in Mails(tmp_path, kept=2).newest_first()] == ids[:2:-1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"Subject: =?nocharset?q?x?=\r\n\r\nbody",
        b"Content-Type: text/plain; charset=none\r\n\r\nb",
        b"From: <<>>@@\r\nMessage-ID: <[\r\nSubject: \xe4\r\n\r\n\xe4",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
    ],
)
def test_a_malformed_mail_can_be_shown(tmp_path: Path, content: bytes) -> None:
    mails = Mails(tmp_path)
    mails.add("from@test.example\rBcc: x", ["ada@example.com"], content)
    (mail,) = mails.newest_first()
    assert mail.to == "ada@example.com"
