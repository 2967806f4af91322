"""The way of the hot path past the router: which requests take it."""

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gql_jobs.settings import Settings
from gql_jobs.web.app import Front


def _noting(name: str, taken: list[str]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        taken.append(name)

    return app


@pytest.mark.parametrize(
    ("scope", "way"),
    [
        ({"type": "http", "path": "/graphql"}, "short"),
        ({"type": "websocket", "path": "/graphql"}, "short"),
        ({"type": "http", "path": "/jobs/graphql", "root_path": "/jobs"}, "short"),
        ({"type": "http", "path": "/graphql/"}, "long"),
        ({"type": "http", "path": "/graphql/graphiql.js"}, "long"),
        ({"type": "http", "path": "/healthz"}, "long"),
        ({"type": "lifespan"}, "long"),
    ],
)
async def test_only_the_path_itself_takes_the_shortcut(scope: Scope, way: str) -> None:
    taken: list[str] = []

    async def nothing(*_: object) -> dict[str, object]:
        return {}

    front = Front(_noting("long", taken), "/graphql", _noting("short", taken), Settings())
    await front({"headers": [], **scope}, nothing, nothing)  # type: ignore[arg-type]
    assert taken == [way]
