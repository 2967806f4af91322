"""The development mailbox, a process of its own: SMTP that delivers nowhere, and a page that shows what came.

Owns both sockets. Must never pass a mail on. Nothing in a mail is trusted: the page escapes all of it.
"""

import argparse
import asyncio
import hashlib
import json
import logging
import signal
import socket
from collections import OrderedDict
from html import escape
from itertools import islice
from pathlib import Path

import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gql_jobs.dev.mails import Mail, Mails, message_id_of
from gql_jobs.logs import configure_logging
from gql_jobs.processes.listening import LOOPBACK_NAMES, CannotListen, listen
from gql_jobs.processes.lock import keep_private
from gql_jobs.processes.parent import CANNOT_START, stop_with_parent
from gql_jobs.settings import Settings, setting_problems

log = logging.getLogger("gql_jobs.dev.mailbox")  # it is run as ``__main__``

_LOOPBACK = "127.0.0.1"
_GREYLISTED_TRIES = 2
"""Tries of a greylisted mail that are rejected."""
_REMEMBERED = 10_000
"""Greylisted mails whose tries are counted; the one tried least recently is dropped first."""
_LISTED = 200
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer."""
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #8884; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #8884; padding: 1rem; }
"""


def run_mailbox(host: str, smtp_port: int, http_port: int, data_dir: Path, ports_file: Path | None = None) -> None:
    """Serve SMTP and the page until SIGTERM or SIGINT. Port 0 takes a free one.

    :param data_dir: the mails are in its folder ``mails``.
    :param ports_file: where the ports are written as JSON, once both are taken; by default they are printed.
    :raises CannotListen: if a port is taken.
    """
    mails = Mails(data_dir / "mails")
    smtp, http = listen(host, smtp_port, "--smtp-port"), listen(host, http_port, "--http-port")
    _announce(smtp, http, ports_file)
    asyncio.run(_serve(smtp, http, mails))


def _announce(smtp: list[socket.socket], http: list[socket.socket], ports_file: Path | None) -> None:
    ports = json.dumps({"smtp_port": smtp[0].getsockname()[1], "http_port": http[0].getsockname()[1]})
    if ports_file is None:
        print(ports, flush=True)  # noqa: T201
        return
    temporary = ports_file.with_suffix(".tmp")
    temporary.write_text(ports)
    temporary.replace(ports_file)


async def _serve(smtp: list[socket.socket], http: list[socket.socket], mails: Mails) -> None:
    loop = asyncio.get_running_loop()
    handler = MailHandler(mails)

    def protocol() -> SMTP:
        return SMTP(handler, hostname="mailbox.localhost", ident="gql-jobs mailbox", enable_SMTPUTF8=True, loop=loop)

    servers = [await loop.create_server(protocol, sock=listener) for listener in smtp]
    page = uvicorn.Server(
        uvicorn.Config(
            mailbox_page(mails), log_config=None, access_log=False, lifespan="off", ws="none", log_level="warning"
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped, which must not end this process before SMTP is closed.
        loop.add_signal_handler(number, lambda: None)
    try:
        await page.serve(sockets=http)
    finally:
        for server in servers:
            server.close()  # not awaited: a client that stays connected must not keep us alive


class MailHandler:
    """The hooks that aiosmtpd calls; they return the answers of the SMTP server.

    Every mail is kept, but for two domains that are for trying failures: ``…@reject.example`` is refused with 550,
    ``…@greylist.example`` with 451 for the first two tries of each mail.
    """

    def __init__(self, mails: Mails) -> None:
        self._mails = mails
        self._tries: OrderedDict[str, int] = OrderedDict()

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Accept a recipient, or reject it with 550 by its domain."""
        if _domain(address) == "reject.example":
            return "550 5.1.1 No such recipient here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Store a mail, or reject it with 451 for now by the domain of a recipient."""
        content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        recipients = [str(recipient) for recipient in envelope.rcpt_tos]
        if any(_domain(recipient) == "greylist.example" for recipient in recipients) and self._is_early(content):
            return "451 4.7.1 Greylisted, please try again later"
        mail_id = await asyncio.to_thread(self._mails.add, envelope.mail_from or "", recipients, content)
        log.info("kept mail %s to %s", mail_id, ", ".join(recipients))
        return f"250 2.0.0 Kept as {mail_id}"

    def _is_early(self, content: bytes) -> bool:
        """Return whether this try is one of the first two of its mail, known by its Message-ID."""
        mail = message_id_of(content) or hashlib.sha256(content).hexdigest()
        tries = self._tries.pop(mail, 0)
        self._tries[mail] = min(tries + 1, _GREYLISTED_TRIES)
        if len(self._tries) > _REMEMBERED:
            self._tries.popitem(last=False)
        return tries < _GREYLISTED_TRIES


def _domain(address: str) -> str:
    return address.rpartition("@")[2].strip("<> ").lower()


def mailbox_page(mails: Mails) -> Starlette:
    """Return the ASGI application that shows the mails.

    ``/`` lists the last 200 mails, ``/mails/{id}`` shows one, and ``/messages[.json]`` returns all as JSON, the newest
    first; its parameters ``to`` and ``limit`` select those to one recipient, and at most so many.
    """

    async def index(_request: Request) -> Response:
        listed = await run_in_threadpool(lambda: list(islice(mails.newest_first(), _LISTED)))
        return _html("Mailbox", _table(listed), refresh=True)

    async def show(request: Request) -> Response:
        mail = await run_in_threadpool(mails.get, request.path_params["mail_id"])
        if mail is None:
            return PlainTextResponse("There is no such mail.", status_code=404)
        return _html(mail.subject or "(no subject)", _details(mail))

    async def messages(request: Request) -> Response:
        to, limit = request.query_params.get("to"), request.query_params.get("limit", "")
        count = int(limit) if limit.isascii() and limit.isdecimal() and len(limit) < 6 else None  # noqa: PLR2004
        found = await run_in_threadpool(lambda: list(islice(mails.newest_first(to), count)))
        return JSONResponse([mail.as_json() for mail in found])

    async def style(_request: Request) -> Response:
        return Response(_STYLE, media_type="text/css")

    return Starlette(
        routes=[
            Route("/", index),
            Route("/mails/{mail_id}", show),
            Route("/messages", messages),
            Route("/messages.json", messages),
            Route("/style.css", style),
        ],
        # A page elsewhere must not read the mails through a name of its own that resolves to this machine.
        middleware=[
            Middleware(_Headed),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK_NAMES)),
        ],
    )


class _Headed:
    """The ASGI layer that gives every answer its headers, refusals included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _html(title: str, body: str, *, refresh: bool = False) -> HTMLResponse:
    again = '<meta http-equiv="refresh" content="5">' if refresh else ""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f'<link rel="stylesheet" href="/style.css"></head><body><h1>{escape(title)}</h1>{body}</body></html>'
    )


def _table(mails: list[Mail]) -> str:
    if not mails:
        return "<p>No mails yet.</p>"
    rows = "".join(
        f'<tr><td>{escape(mail.date)}</td><td>{escape(mail.to)}</td><td><a href="/mails/{escape(mail.id)}">'
        f"{escape(mail.subject or '(no subject)')}</a></td></tr>"
        for mail in mails
    )
    return f"<table><thead><tr><th>Date</th><th>To</th><th>Subject</th></tr></thead><tbody>{rows}</tbody></table>"


def _details(mail: Mail) -> str:
    fields = {"From": mail.sender, "To": mail.to, "Date": mail.date, "Message-ID": mail.message_id}
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{escape(value)}</td></tr>' for name, value in fields.items())
    return f'<p><a href="/">All mails</a></p><table><tbody>{rows}</tbody></table><pre>{escape(mail.body)}</pre>'


def _main() -> None:
    """Run ``python -m gql_jobs.dev.mailbox``: its ports are a line of JSON, on stdout or in ``--ports-file``."""
    parser = argparse.ArgumentParser(prog="python -m gql_jobs.dev.mailbox", description=__doc__)
    parser.add_argument("--smtp-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--http-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--data-dir", type=Path, default=Path(".gql-jobs"))
    parser.add_argument("--ports-file", type=Path)
    options = parser.parse_args()
    try:
        settings = Settings()
    except ValidationError as error:
        parser.exit(CANNOT_START, f"mailbox: {' '.join(setting_problems(error))}\n")
    configure_logging(settings.log_level, settings.log_format, settings.secrets)
    keep_private(options.data_dir)
    stop_with_parent()
    try:
        run_mailbox(_LOOPBACK, options.smtp_port, options.http_port, options.data_dir, options.ports_file)
    except (CannotListen, OSError) as error:
        parser.exit(CANNOT_START, f"mailbox: {error}\n")


if __name__ == "__main__":
    _main()
