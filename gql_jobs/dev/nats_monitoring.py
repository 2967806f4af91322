"""NATS's monitoring on loopback, for programs and browsers of this machine but not for pages of other sites.

nats-server answers whatever host name it is asked under, and with a script where a page asks for one (``?callback=``).
So its own port lies below a path that nobody can guess, and this server passes on what may be asked for.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

from gql_jobs.jetstream.server import monitoring_url
from gql_jobs.processes.listening import LOOPBACK_NAMES, CannotListen

USUAL_PORT = 8222
"""The port where NATS servers usually have their monitoring."""
_HOST = "127.0.0.1"
_HEADERS = {
    # The list of pages has styles in it, and NATS's own picture.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ANSWERS_WITHIN = 10.0
"""Seconds that NATS, and a client that sends its request, may take."""


@contextmanager
def monitoring_page(data_dir: Path, port: int | None) -> Iterator[str]:
    """Serve the monitoring of the embedded server of that data folder until the block ends; yield the address.

    :param port: on loopback; 0 takes a free one, None 8222 or, where that is taken, a free one.
    :raises CannotListen: if the given port is taken.
    """
    with _listening(data_dir, port) as server:
        thread = threading.Thread(target=server.serve_forever, name="NATS monitoring", daemon=True)
        thread.start()
        try:
            yield f"http://{_HOST}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _listening(data_dir: Path, port: int | None) -> "_Server":
    try:
        return _Server(data_dir, USUAL_PORT if port is None else port)
    except OSError as error:
        if port is None:
            return _Server(data_dir, 0)
        raise CannotListen(
            f"Cannot listen on {_HOST}:{port} ({error.strerror}); choose another with --monitor-port."
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        super().__init__((_HOST, port), _Handler)

    def handle_error(self, *_: object) -> None:
        """Do nothing: a client that goes away is no trouble of this process."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _ANSWERS_WITHIN

    def do_GET(self) -> None:
        """Pass a request on, or refuse it."""
        try:
            asked, host = urlsplit(self.path), urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:  # a bracket without its other one
            asked, host = urlsplit("/"), None
        if host not in LOOPBACK_NAMES:
            self._answer(HTTPStatus.BAD_REQUEST, b"This host name is not served.\n")
        elif self._is_of_another_site() or "callback" in parse_qs(asked.query, keep_blank_values=True):
            self._answer(HTTPStatus.FORBIDDEN, b"Pages of other sites may not read this.\n")
        elif asked.netloc or not asked.path.startswith("/"):
            self._answer(HTTPStatus.BAD_REQUEST, b"Only a path can be asked for.\n")
        else:
            self._pass_on(asked)

    do_HEAD = do_GET  # noqa: N815

    def _is_of_another_site(self) -> bool:
        return self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"} and (
            self.headers.get("Sec-Fetch-Mode") != "navigate"
        )

    def _pass_on(self, asked: SplitResult) -> None:
        target = urlsplit(monitoring_url(self.server.data_dir) or "")
        connection = http.client.HTTPConnection(target.hostname or _HOST, target.port, timeout=_ANSWERS_WITHIN)
        try:
            if not target.port:
                raise ConnectionError
            # The list of pages is at the path itself, without a slash.
            connection.request("GET", f"{target.path}{self.path if asked.path != '/' else ''}")
            answer = connection.getresponse()
            # Its links name the path that is a secret.
            body = answer.read().replace(target.path.encode(), b"")
            self._answer(answer.status, body, answer.getheader("Content-Type", "text/plain"))
        except (OSError, http.client.HTTPException):
            self._answer(HTTPStatus.BAD_GATEWAY, b"The monitoring of NATS does not answer.\n")
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
        self.send_response(status)
        headers = {"Content-Type": content_type, "Content-Length": str(len(body))}
        for name, value in {**headers, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: only answers are asked for."""
