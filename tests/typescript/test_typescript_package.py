"""The TypeScript package as it is handed out: what is in it, what its README shows, types from an API under a key."""

import re
import shutil
from pathlib import Path

import pytest

from gql_jobs.graphql.schema import sdl
from gql_jobs.settings import Settings
from tests.guarded import guarded
from tests.job_types.form_jobs import registered
from tests.running import ROOT
from tests.serving import HOST, ServedApi
from tests.typescript.conftest import CODEGEN, PACKAGE, TSC, run

IN_NODE = """
import WebSocket from 'ws';
import { createJobsClient } from '@gql-jobs/client';
const client = createJobsClient({ url: process.argv[1], webSocket: WebSocket });
const job = await client.create('probe', { steps: 2 });
for await (const { job: { progress } } of job.watch()) console.log(progress);
console.log((await job.result()).attempt);
client.close();
"""
KINDS = """
import { createJobsClient } from '@gql-jobs/client';
import { jobTypes } from './jobs';

const client = createJobsClient({ url: '/graphql', types: jobTypes });
const job = await client.create('everyKind', {
  title: 'One', colour: 'RED', colours: ['BLUE'], day: '2026-01-31', at: new Date(), price: '1.50', times: 3,
  limits: { a: 1 }, shape: { circle: { radius: 2.5 } }, anything: [1, { b: 9007199254740993n }], key: 'secret',
});
const { done }: { done: boolean } = await job.result();
// @ts-expect-error: there is no such colour
await client.create('everyKind', { title: 'One', colour: 'GREEN' });
// @ts-expect-error: one shape it is
await client.create('everyKind', { title: '', colour: 'RED', shape: { circle: { radius: 1 }, square: { side: 1 } } });
// @ts-expect-error: a title is needed
await client.create('everyKind', { colour: 'RED' });
export { done };
"""
SHOWN = re.findall(r"```(tsx?)\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)


async def test_the_package_has_the_built_modules_their_types_and_the_licences_of_what_is_in_them(
    application: Path,
) -> None:
    installed = application / "node_modules" / "@gql-jobs" / "client"
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert {"README.md", "LICENSE", "package.json", "dist/codegen/licenses.txt", "bin/gql-jobs-codegen.mjs"} <= files
    modules = {path.stem for path in (PACKAGE / "src").glob("*.ts")}
    assert {f"dist/{name}{suffix}" for name in modules for suffix in (".js", ".d.ts")} <= files
    assert not any(file.startswith(("src/", "test/")) for file in files)


async def test_what_the_readme_of_the_package_shows_fits_the_types_of_the_bundled_jobs(
    application: Path, tmp_path: Path
) -> None:
    folder = _beside(application, tmp_path)
    await run("node", CODEGEN, str(ROOT / "schema.graphql"), "--out", "app/jobs.ts", cwd=tmp_path)
    first, steering, access, react = SHOWN
    (folder / f"watching.{first[0]}").write_text(first[1])
    (folder / f"steering.{steering[0]}").write_text(steering[1])
    (folder / f"client.{access[0]}").write_text(access[1])
    (folder / f"App.{react[0]}").write_text(react[1])
    await run("node", TSC, "--project", "app", cwd=tmp_path)


async def test_fields_of_every_kind_have_types_that_a_payload_fits(application: Path, tmp_path: Path) -> None:
    folder = _beside(application, tmp_path)
    (folder / "every.graphql").write_text(sdl(registered()))
    await run("node", CODEGEN, str(folder / "every.graphql"), "--out", "app/jobs.ts", cwd=tmp_path)
    (folder / "kinds.ts").write_text(KINDS)
    await run("node", TSC, "--project", "app", cwd=tmp_path)


def _beside(application: Path, folder: Path) -> Path:
    """A folder of a program that has the same packages."""
    (folder / "node_modules").symlink_to(application / "node_modules")
    (folder / "app").mkdir()
    shutil.copy(PACKAGE / "test" / "page" / "tsconfig.json", folder / "app")
    return folder / "app"


@pytest.mark.usefixtures("worker")
async def test_a_program_in_node_watches_a_job_and_ends_by_itself(api: ServedApi, application: Path) -> None:
    url = f"http://{HOST}:{api.port}/graphql"
    said = await run("node", "--input-type=module", "--eval", IN_NODE, url, cwd=application)
    *progress, attempt = said.split()
    assert progress == sorted(progress, key=int)
    assert (progress[-1], attempt) == ("100", "1")


async def test_an_api_that_asks_who_calls_gives_its_types_to_whoever_has_a_key(
    application: Path, settings: Settings, tmp_path: Path
) -> None:
    async with guarded(settings) as shop:
        url, out = f"http://{HOST}:{shop.api.port}/graphql", str(tmp_path / "jobs.ts")
        await run("node", CODEGEN, url, "--out", out, cwd=application, GQL_JOBS_TOKEN=shop.key)
        command = f"node {CODEGEN} {url} --out {out} || true"
        said = await run("sh", "-c", command, cwd=application, GQL_JOBS_TOKEN="")
    assert said == "This needs a valid key or token.\n"
    made = await run("cat", out, cwd=application)
    assert made == (application / "page" / "jobs.ts").read_text()
