"""The pages for browsers, the dashboard and GraphiQL: built files of this package, each under a policy of its own.

A page comes from this origin only, and is a client of the API like any other, so the page itself needs no
authentication: it tells nothing about any job. ``make web`` builds the files, and the wheel contains them; a checkout
without them serves a page that explains how to build them.
"""

from collections.abc import Mapping
from pathlib import Path

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gql_jobs.settings import Settings

_STATIC = Path(__file__).parent / "static"
_YEAR = 31_536_000
"""Seconds for which a file may be kept whose name changes with its content."""
# Relative addresses: a proxy may serve the API below a path of its own.
_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>gql-jobs</title>
<link rel="icon" href="data:,">
{head}</head>
<body>
{body}
</body>
</html>
"""
_CLOSED = {"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}


class BuiltPage:
    """A page whose files are built into ``static``; they are served below the path of the same name.

    ``files`` is the folder of its files.

    :param name: in words.
    :param folder: below ``static``.
    :param entry: the file without which the page is not built.
    :param policy: what a browser lets the page load, by directive of ``Content-Security-Policy``; all else is refused.
    :param varies: request headers on which it depends whether the page is answered.
    :param hashed: the folder of those files whose names change with their content, which browsers keep for a year.
    """

    def __init__(
        self, name: str, folder: str, entry: str, policy: Mapping[str, str], *, varies: str = "", hashed: str = ""
    ) -> None:
        self.files = _STATIC / folder
        self._name = name
        self._path = f"/{folder}"
        self._entry = entry
        self._hashed = hashed
        rules = {"default-src": "'none'", **policy, **_CLOSED}
        self._headers = {
            "Content-Security-Policy": "; ".join(f"{directive} {value}" for directive, value in rules.items()),
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            # Revalidated at each visit, and sent again only if it has changed.
            "Cache-Control": "no-cache",
            **({"Vary": varies} if varies else {}),
        }

    @property
    def is_built(self) -> bool:
        """Return whether this installation has the files of the page."""
        return (self.files / self._entry).is_file()

    @property
    def route(self) -> BaseRoute:
        """Return the route of its files."""
        return Mount(self._path, _Files(self.files, self._headers, self._hashed))

    def shown(self, text: str) -> Response:
        """Return the page, whose HTML is ``text``."""
        return HTMLResponse(text, headers=self._headers)

    @property
    def not_built(self) -> Response:
        """Return what stands in its place where its files are not there: which command makes them."""
        body = (
            f"<h1>{self._name} is not built</h1>\n"
            "<p>This checkout has no built files of it. One command makes them; then load this page again:</p>\n"
            "<pre>make web</pre>\n"
            '<p>The API itself works: send operations to <a href="graphql">its endpoint</a>.</p>'
        )
        return self.shown(_HTML.format(head="", body=body))


class _Files(StaticFiles):
    def __init__(self, directory: Path, headers: Mapping[str, str], hashed: str) -> None:
        super().__init__(directory=directory, check_dir=False)
        self._headers = dict(headers)
        self._hashed = hashed

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, with the page's policy: a worker obeys that of its own file.

        The build has left a compressed copy of each text beside it, which is sent to whoever takes it.
        """
        accepted = Headers(scope=scope).get("accept-encoding", "")
        packed = f"{path}.gz"
        is_packed = "gzip" in accepted and (await to_thread.run_sync(self.lookup_path, packed))[1] is not None
        response = await super().get_response(packed if is_packed else path, scope)
        response.headers.update(self._headers)
        response.headers.add_vary_header("Accept-Encoding")
        if is_packed:
            response.headers["Content-Encoding"] = "gzip"
        if self._hashed and path.startswith(f"{self._hashed}/"):
            response.headers["Cache-Control"] = f"public, max-age={_YEAR}, immutable"
        return response


GRAPHIQL = BuiltPage(
    "GraphiQL",
    folder="graphiql",
    entry="graphiql.js",
    policy={
        "script-src": "'self'",
        "worker-src": "'self'",
        "connect-src": "'self'",
        "font-src": "'self'",
        "img-src": "'self' data:",
        # The editor measures and colours text with styles that it writes itself.
        "style-src": "'self' 'unsafe-inline'",
    },
    varies="Accept",
)
DASHBOARD = BuiltPage(
    "The dashboard",
    folder="dashboard",
    entry="index.html",
    policy={
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        # A file of a job that was fetched with a token is shown from memory.
        "img-src": "'self' data: blob:",
        "font-src": "'self'",
        "manifest-src": "'self'",
        "frame-src": "'self' blob:",
    },
    hashed="assets",
)
_GRAPHIQL_HTML = _HTML.format(
    head='<link rel="stylesheet" href="graphiql/graphiql.css">\n'
    '<script type="module" src="graphiql/graphiql.js"></script>\n',
    body='<div id="graphiql"><noscript>GraphiQL needs JavaScript.</noscript></div>',
)


def graphiql() -> Response:
    """Return the page that a browser gets at the GraphQL endpoint; without built files, how to build them."""
    return GRAPHIQL.shown(_GRAPHIQL_HTML) if GRAPHIQL.is_built else GRAPHIQL.not_built


def dashboard(*, has_graphiql: bool) -> Response:
    """Return the page that a browser gets at ``/``; without built files, how to build them. Reads one small file.

    :param has_graphiql: whether the page may link to GraphiQL: its element ``html`` has ``data-graphiql`` then.
    """
    if not DASHBOARD.is_built:
        return DASHBOARD.not_built
    text = (DASHBOARD.files / "index.html").read_text(encoding="utf-8")
    return DASHBOARD.shown(text.replace("<html", "<html data-graphiql", 1) if has_graphiql else text)


def routes_of_files(settings: Settings) -> list[BaseRoute]:
    """Return the routes of the files of those pages that are served, and of the picture in GraphiQL's examples."""
    served = [DASHBOARD.route] if settings.dashboard else []
    return [*served, GRAPHIQL.route, Route("/example.jpg", _picture)] if settings.graphiql else served


async def _picture(_request: Request) -> Response:
    return FileResponse(_STATIC / "example.jpg")


def addresses(origin: str, settings: Settings) -> list[tuple[str, str]]:
    """Return what an API process announces at its start, each with its name: the pages that are there, and the API.

    :param origin: where it listens, without a path.
    """
    graphql = f"{origin}/graphql"
    pages = [("Dashboard", f"{origin}/")] if settings.dashboard and DASHBOARD.is_built else []
    pages += [("GraphiQL", graphql)] if settings.graphiql and GRAPHIQL.is_built else []
    return [*pages, ("API", graphql)]
