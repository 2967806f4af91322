"""The handler of types that change: it says what it was given."""

from typing import Any

from pydantic import BaseModel

from gql_jobs import JobContext


async def run(_: JobContext, payload: BaseModel) -> dict[str, Any]:
    """Return the payload as the handler sees it."""
    return {"seen": payload.model_dump(mode="json")}
