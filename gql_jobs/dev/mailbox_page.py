"""The caught mails in a browser and as JSON. Nothing in a mail is trusted: all of it is escaped."""

from html import escape
from itertools import islice

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gql_jobs.dev.mails import Mail, Mails
from gql_jobs.processes.listening import LOOPBACK_NAMES

_LISTED = 200
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #8884; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #8884; padding: 1rem; }
"""


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
            return PlainTextResponse("There is no such mail.", status_code=404, headers=_HEADERS)
        return _html(mail.subject or "(no subject)", _details(mail))

    async def messages(request: Request) -> Response:
        to, limit = request.query_params.get("to"), request.query_params.get("limit", "")
        count = int(limit) if limit.isascii() and limit.isdecimal() and len(limit) < 6 else None  # noqa: PLR2004
        found = await run_in_threadpool(lambda: list(islice(mails.newest_first(to), count)))
        return JSONResponse([mail.as_json() for mail in found], headers=_HEADERS)

    async def style(_request: Request) -> Response:
        return Response(_STYLE, media_type="text/css", headers={"X-Content-Type-Options": "nosniff"})

    return Starlette(
        routes=[
            Route("/", index),
            Route("/mails/{mail_id}", show),
            Route("/messages", messages),
            Route("/messages.json", messages),
            Route("/style.css", style),
        ],
        # A page elsewhere must not read the mails through a name of its own that resolves to this machine.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK_NAMES))],
    )


def _html(title: str, body: str, *, refresh: bool = False) -> HTMLResponse:
    again = '<meta http-equiv="refresh" content="5">' if refresh else ""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f'<link rel="stylesheet" href="/style.css"></head><body><h1>{escape(title)}</h1>{body}</body></html>',
        headers=_HEADERS,
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
