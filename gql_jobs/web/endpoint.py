"""GraphQL over HTTP and WebSocket at one path: Strawberry's ASGI app beside FastAPI's routes.

Its own FastAPI router runs every request through dependency injection and costs two fifths of the throughput.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from cross_web import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from gql_jobs.graphql.context import Context
from gql_jobs.graphql.enums import DocumentError
from gql_jobs.graphql.schema import JobsSchema
from gql_jobs.settings import Settings
from gql_jobs.web.json_codec import decode, encode
from gql_jobs.web.opening import Opening
from gql_jobs.web.replies import refusal

INIT_TIMEOUT = timedelta(seconds=10)
MULTIPART = "multipart-subscription"


class Endpoint(GraphQL[Context, None]):
    """The schema on the wire. The parts it works with come from the lifespan, by ``app.state.opening``."""

    def __init__(self, schema: JobsSchema, settings: Settings) -> None:
        self.stopping = asyncio.Event()
        super().__init__(
            schema,
            graphql_ide="graphiql" if settings.graphiql else None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, MULTIPART),
            connection_init_wait_timeout=INIT_TIMEOUT,
            allowed_origins=settings.cors_origins,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; what is wrong with the request itself is said in JSON too."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        try:
            response = await self.run(Request(scope, receive))
        except HTTPException as error:
            response = refusal(error.status_code, error.reason, DocumentError.GRAPHQL_VALIDATION_FAILED)
        except ClientDisconnect:
            # It went away while it sent its body: nobody is left to answer, and nothing has gone wrong here.
            return
        await response(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:  # noqa: ARG002
        """The context of one request or socket."""
        opening: Opening = request.app.state.opening
        return Context(lambda: opening.runtime)

    async def create_streaming_response(
        self,
        request: Request | WebSocket,
        stream: Callable[[], AsyncIterator[str]],
        sub_response: Response,
        headers: Mapping[str, str],
    ) -> Response:
        """A subscription over HTTP. It ends when the server stops, which would wait for it otherwise."""

        def until_stopped() -> AsyncIterator[str]:
            return _until(self.stopping, stream())

        return await super().create_streaming_response(request, until_stopped, sub_response, headers)

    def parse_json(self, data: str | bytes) -> Any:
        """A request, a batch, or the variables in a URL; JSON that can be none of them is refused."""
        value = super().parse_json(data)
        if value is None:
            return {}
        if not isinstance(value, dict | list):
            raise HTTPException(400, "The request must be a JSON object.")
        return value

    def decode_json(self, data: str | bytes) -> object:
        """JSON from the wire."""
        return decode(data)

    def encode_json(self, data: object) -> str:
        """JSON for the wire; text, because a WebSocket would send bytes as a binary message."""
        return encode(data).decode()


async def _until(stopping: asyncio.Event, stream: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    stopped = asyncio.create_task(stopping.wait())
    step: asyncio.Future[str] | None = None
    try:
        while not stopping.is_set():
            step = asyncio.ensure_future(anext(stream))
            await asyncio.wait({step, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                return
            try:
                part = step.result()
            except StopAsyncIteration:
                return
            yield part
    finally:
        stopped.cancel()
        if step is not None and step.cancel():
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await step
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
