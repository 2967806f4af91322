"""Others' audits: graphql-http of a running server, @graphql-eslint of the schema, Grafana's types of the dashboard.

``python -m tests.audits.run``; it needs Node and npm, and installs the audits beside this file.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path

from gql_jobs.jetstream.server import embedded_server
from gql_jobs.settings import Settings
from tests.running import ROOT
from tests.serving import HOST, serving

HERE = Path(__file__).parent
SCHEMA = ROOT / "schema.graphql"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
STRICTLY = ("--strict", "--noEmit", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler")
QUIETLY = ("--no-package-lock", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error")


async def main() -> int:
    """The number of audits that failed."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        print(f"The audits need {' and '.join(missing)}, which cannot be found: install Node.js 20 or newer.")  # noqa: T201
        return 1
    if await _run("npm", "install", *QUIETLY):
        return 1
    return await _over_http() + await _lint() + await _dashboard()


async def _over_http() -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_server(Path(folder) / "store", max_store_bytes=1 << 30) as server:
            settings = Settings(nats_url=server.url, data_dir=Path(folder) / "data")
            async with serving(settings) as api:
                return await _run("node", "graphql_over_http.mjs", f"http://{HOST}:{api.port}/graphql")


async def _lint() -> int:
    # By its standard input, because ESLint ignores files outside its own folder.
    arguments = ("eslint", "--max-warnings", "0", "--stdin", "--stdin-filename", SCHEMA.name)
    failed = await _run("npx", "--no-install", *arguments, stdin=SCHEMA, SCHEMA=str(SCHEMA), NODE_ENV="production")
    print(f"schema lint: {'failed' if failed else 'passed'}")  # noqa: T201
    return failed


async def _dashboard() -> int:
    # As a literal, because TypeScript checks the values and the names of all properties of those only.
    typed = HERE / "node_modules" / "dashboard.ts"
    typed.write_text(
        f"import type {{ Dashboard }} from '@grafana/schema';\n"
        f"export const dashboard: Dashboard = {DASHBOARD.read_text()};\n"
    )
    failed = await _run("npx", "--no-install", "tsc", *STRICTLY, str(typed.relative_to(HERE)))
    print(f"dashboard: {'failed' if failed else 'passed'}")  # noqa: T201
    return failed


async def _run(*command: str, stdin: Path | None = None, **environment: str) -> int:
    with (stdin or Path(os.devnull)).open() as source:
        variables = {**os.environ, **environment}
        process = await asyncio.create_subprocess_exec(*command, cwd=HERE, env=variables, stdin=source)
        return int(await process.wait() != 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
