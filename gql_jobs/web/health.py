"""Whether this process lives, and whether it should be sent requests. Looks only at what the parts report."""

from fastapi import APIRouter, Request, Response
from msgspec.json import encode

from gql_jobs.web.runtime import Opening

router = APIRouter()


@router.get("/healthz")
async def healthz() -> Response:
    """The process answers; nothing more is looked at, so that a supervisor does not restart it for others' faults."""
    return _json(200, {"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """200 while every check holds, else 503; the body says which do not, and how far the feed is."""
    opening: Opening = request.app.state.opening
    checks = await opening.checks()
    ready = all(check.ok for check in checks.values())
    shown = {name: {"ok": check.ok, "message": check.message} for name, check in checks.items()}
    status = "ready" if ready else "not ready"
    return _json(200 if ready else 503, {"status": status, "checks": shown, "feed": opening.feed})


def _json(status: int, body: object) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(encode(body), status_code=status, media_type="application/json", headers=headers)
