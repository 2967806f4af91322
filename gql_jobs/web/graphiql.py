"""The GraphiQL page: built files of this package, from this origin only, under a policy that allows no other.

The page is a client of the API like any other. ``make graphiql`` builds its files, and the wheel contains them; a
checkout without them serves a page that explains how to build them.
"""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
FILES = STATIC / "graphiql"
"""The folder of the built files."""


def is_built() -> bool:
    """Return whether this installation has the files of the page."""
    return (FILES / "graphiql.js").is_file()


_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "worker-src": "'self'",
    "connect-src": "'self'",
    "font-src": "'self'",
    "img-src": "'self' data:",
    # The editor measures and colours text with styles that it writes itself.
    "style-src": "'self' 'unsafe-inline'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # Revalidated at each visit, and sent again only if it has changed.
    "Cache-Control": "no-cache",
    "Vary": "Accept",
}
# Relative addresses: a proxy may serve the API below a path of its own.
_PAGE = """<!doctype html>
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
_BUILT = _PAGE.format(
    head='<link rel="stylesheet" href="graphiql/graphiql.css">\n'
    '<script type="module" src="graphiql/graphiql.js"></script>\n',
    body='<div id="graphiql"><noscript>GraphiQL needs JavaScript.</noscript></div>',
)
_NOT_BUILT = _PAGE.format(
    head="",
    body="<h1>GraphiQL is not built</h1>\n"
    "<p>This checkout has no built files of GraphiQL. One command makes them; then load this page again:</p>\n"
    "<pre>make graphiql</pre>\n"
    "<p>The API itself works: send operations to this address.</p>",
)


def page() -> Response:
    """Return the page that a browser gets at the GraphQL endpoint; without built files, how to build them."""
    return HTMLResponse(_BUILT if (FILES / "graphiql.js").is_file() else _NOT_BUILT, headers=_HEADERS)


def routes() -> list[BaseRoute]:
    """Return the routes of the page's files, and of the picture that its examples process."""
    return [Mount("/graphiql", _BuiltFiles(directory=FILES, check_dir=False)), Route("/example.jpg", _picture)]


async def _picture(_request: Request) -> Response:
    return FileResponse(STATIC / "example.jpg")


class _BuiltFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, with the page's policy: a worker obeys that of its own file."""
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response
