"""What it costs to know who asks: two API processes beside one another that differ in ``GQL_JOBS_AUTH`` alone.

Both follow the same stream, so they have the same index. They are asked in turn, a little of each at a time, and what
is compared is the CPU time of the process that answers, which other load on the machine changes least.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks import stack
from benchmarks.http_load import Repeater, ask, graphql_request
from benchmarks.measurement import Bench, Plan, Sample
from benchmarks.measures.requests import CONNECTIONS, FINISHED, PAGE, PAGE_CONNECTIONS
from benchmarks.measures.target import CREATION, ours
from benchmarks.processes import exact_cpu_seconds
from benchmarks.stack import CREATE
from benchmarks.stock import finish
from gql_jobs.access.administration import create_key
from gql_jobs.jobs.viewer import Scope
from gql_jobs.settings import Settings

BENCH = "authentication"
NOBODY = "without"
CALLERS = ("a key", "a view token", "a JWT", "a key of a tenant")
"""Who asks where it has to be known; each is compared with ``NOBODY``."""
TENANT = "acme"
AT_A_TIME = 50
"""Answers of one turn: few, so that a slow moment of the machine meets both processes."""
WARM_UP = 2
"""Rounds that do not count."""
_ISSUER, _AUDIENCE = "https://id.example.com", "jobs"
_KEY_ID = "one"
_MAKE = """mutation ($input: CreateViewTokenInput!) { createViewToken(input: $input) { viewToken { token } } }"""
_MADE_FOR = {"input": {"limitedTo": {"types": ["noop"]}, "scopes": ["READ", "CREATE"], "ttlSeconds": 3600}}


@dataclass(frozen=True)
class Caller:
    """Who asks: at which process, with which token."""

    port: int
    pid: int
    token: str | None = None


@dataclass(frozen=True)
class Work:
    """One operation, asked for on so many connections; ``name`` and ``unit`` are those of its figures."""

    name: str
    unit: str
    query: str
    variables: Mapping[str, Any]
    connections: int


PAGES = Work("page", "pages", PAGE, FINISHED, PAGE_CONNECTIONS)
CREATIONS = Work("createJob", "requests", CREATE, {"input": CREATION}, CONNECTIONS)


async def _authentication(plan: Plan) -> list[Sample]:
    with tempfile.TemporaryDirectory(prefix="gql-jobs-bench-") as name:
        folder = Path(name)
        provider, token = _identity_provider(folder)
        stock = partial(finish, jobs=plan.size(10_000, 1_000), tenant=TENANT)
        async with stack.running(prepare=stock, environment={**provider, "GQL_JOBS_AUTH": "none"}) as system:
            known = {**provider, "GQL_JOBS_AUTH": "required"}
            async with stack.api_process(system.nats.url, folder, known) as (port, api):
                tokens = await _tokens(system.nats.url, port)
                callers = {caller: Caller(port, api.pid, tokens.get(caller, token)) for caller in CALLERS}
                callers[NOBODY] = Caller(system.port, system.api.pid)
                # Pages first: what is created afterwards would be in them.
                return [*await _compared(PAGES, callers, plan), *await _compared(CREATIONS, callers, plan)]


def _identity_provider(folder: Path) -> tuple[dict[str, str], str]:
    """The settings of an identity provider, whose keys are put into a file, and a token of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    place = folder / "jwks.json"
    place.write_text(json.dumps({"keys": [public | {"kid": _KEY_ID}]}))
    settings = {
        "GQL_JOBS_JWKS": str(place),
        "GQL_JOBS_JWT_ISSUER": _ISSUER,
        "GQL_JOBS_JWT_AUDIENCE": _AUDIENCE,
    }
    now = int(time.time())
    claims = {"iss": _ISSUER, "aud": _AUDIENCE, "sub": "ada", "iat": now, "exp": now + 3600, "scope": "read create"}
    return settings, jwt.encode(claims, key, "ES256", {"kid": _KEY_ID})


async def _tokens(nats_url: str, port: int) -> dict[str, str]:
    """Keys, and a view token that one of them has made, by who comes with them."""
    settings, scopes = Settings(nats_url=nats_url), (Scope.READ, Scope.CREATE)
    key, _ = await create_key(settings, "back end", scopes=scopes)
    of_tenant, _ = await create_key(settings, "back end", scopes=scopes, tenant=TENANT)
    made = await ask(port, _MAKE, _MADE_FOR, token=key)
    return {"a key": key, "a key of a tenant": of_tenant, "a view token": made["createViewToken"]["viewToken"]["token"]}


async def _compared(work: Work, callers: Mapping[str, Caller], plan: Plan) -> list[Sample]:
    """What the work costs each caller by what it costs nobody just before or after."""
    ratios: dict[str, list[float]] = {name: [] for name in CALLERS}
    without: list[float] = []
    async with AsyncExitStack() as opened:
        asking = {name: await opened.enter_async_context(_asking(work, one)) for name, one in callers.items()}
        for number in range(WARM_UP + plan.size(60, 6)):
            for name in CALLERS:
                # Each goes first as often as the other.
                turns = (NOBODY, name) if number % 2 else (name, NOBODY)
                costs = {one: await _cost(callers[one], asking[one]) for one in turns}
                if number >= WARM_UP:
                    ratios[name].append(costs[name] / costs[NOBODY])
                    without.append(costs[NOBODY])
    rate = Sample(BENCH, f"{work.name} {NOBODY}", 1 / median(without), f"{work.unit}/CPU s")
    return [
        rate,
        *(Sample(BENCH, f"{work.name} with {name}", median(found), "x the CPU time") for name, found in ratios.items()),
    ]


def _asking(work: Work, caller: Caller) -> Repeater:
    request = graphql_request(caller.port, work.query, dict(work.variables), token=caller.token)
    return Repeater(caller.port, request, work.connections)


async def _cost(caller: Caller, asking: Repeater) -> float:
    """CPU seconds of one answer."""
    await asking.ready()
    before = exact_cpu_seconds(caller.pid)
    await asking.repeat(AT_A_TIME)
    return (exact_cpu_seconds(caller.pid) - before) / AT_A_TIME


BENCHES = (
    Bench(
        BENCH, "createJob and a page as in their own benches: CPU time with authentication by that without",
        (ours(_authentication),),
    ),
)  # fmt: skip
