"""docs/recipes.md to the letter: each patch applies to a copy of the product, and what it adds works there."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.running import ROOT

FOLDER = ROOT / "docs" / "recipes"
COPIED = ("gql_jobs", "workers", "tests", "docs", "frontend", "schema.graphql", "README.md", "pyproject.toml")
_RENEW = "The code has moved on; do the change anew as docs/recipes.md says under 'Renewing a patch'."

# Run in the copy, after the patch. Jobs, their events and an index that holds them come with the tests.
_BEGIN = """
import asyncio, os
from pathlib import Path
import gql_jobs
from gql_jobs.graphql.schema import build_schema
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.settings import Settings
from tests.graphql.sample_jobs import IDS, sample_context
from tests.running import JOB_TYPES

assert Path(gql_jobs.__file__).parents[1] == Path.cwd()

def answered(query, context):
    schema = build_schema(load_job_types(JOB_TYPES), Settings())
    result = asyncio.run(schema.execute(query, context_value=context))
    return result.data or result.errors[0].extensions
"""
_FIELD = """
with sample_context(Path("index.sqlite")) as context:
    shown = answered("{ jobs { nodes { id releaseCount } } }", context)
counts = {job["id"]: job["releaseCount"] for job in shown["jobs"]["nodes"]}
assert counts == dict.fromkeys(IDS, 0) | {IDS[4]: 1}, counts
"""
_EVENT_KIND = """
from gql_jobs.jobs.messages import Kind
from gql_jobs.log.codec import event_subject, read_message
from tests.stories import at

body = b'{"v":1,"submission":1,"attempt":1,"workerId":"w1","warning":"The disk is nearly full."}'
with sample_context(Path("index.sqlite")) as context:
    index = context.services().index
    message = read_message(event_subject(IDS[0], Kind.WARNED), body, 900, at(900))
    (event,) = index.apply([message], 900)
    assert (event.kind, event.job.status, event.job.event_seq) == (Kind.WARNED, "processing", 900), event
    query = '{ job(id: "%s") { events { __typename cursor ... on JobWarned { warning } } } }' % IDS[0]
    (*_, last) = answered(query, context)["job"]["events"]
assert last == {"__typename": "JobWarned", "cursor": "900", "warning": "The disk is nearly full."}, last
"""
_QUERY = """
with sample_context(Path("index.sqlite")) as context:
    shown = answered("{ tags(first: 1) { tag count } }", context)
    refused = answered("{ tags(first: 501) { tag } }", context)
assert shown == {"tags": [{"tag": "a", "count": 1}]}, shown
assert refused["code"] == "INVALID_ARGUMENT", refused
"""
_SETTING = """
from gql_jobs.jobs.types.image_processing import ImageOperation, ImageProcessingPayload
from gql_jobs.testing import arun_handler
from gql_jobs_worker.handlers.image_processing import process_image
from tests.file_server import file_server
from tests.pictures import encoded, gradient

assert Settings().download_user_agent == "gql-jobs"
os.environ["GQL_JOBS_DOWNLOAD_USER_AGENT"] = "shop/1.0"
os.environ["GQL_JOBS_DOWNLOAD_ALLOW_LOOPBACK"] = "true"

async def fetched():
    async with file_server() as server:
        url = server.put("/a.png", encoded(gradient(), "PNG"))
        payload = ImageProcessingPayload(image_url=url, operations=[ImageOperation.RESIZE], output_path="/b.png")
        await arun_handler(process_image, payload, in_process=True)
        return server.requests

((_, headers),) = asyncio.run(fetched())
assert headers["user-agent"] == "shop/1.0", headers
"""
_LIMIT = """
query = "{ ...R ...R } fragment R on Query { __typename }"
assert answered(query, None) == {"__typename": "Query"}
os.environ["GQL_JOBS_MAX_OPERATION_SPREADS"] = "1"
refused = answered(query, None)
assert refused == {"code": "TOO_COMPLEX", "measure": "number of spreads", "limit": 1, "actual": 2}, refused
"""


class Recipe(NamedTuple):
    """What has to hold in the copy: a program that uses what is new, and tests, of tables above all, that pass."""

    program: str
    tests: tuple[str, ...]


_README = "tests/test_readme.py::test_"
_ROWS = "tests/index/test_index.py::test_a_row_keeps_whatever_fields"
_SCHEMA = tuple(
    f"tests/graphql/test_schema.py::test_{name}"
    for name in (
        "everything_is_described",
        "names_that_every_schema_has_are_reserved",
        "the_example_is_valid",
        "there_is_an_example_for_every_operation",
    )
)
RECIPES = {
    "field": Recipe(_FIELD, ("tests/jobs/test_fold.py", f"{_ROWS}_a_job_has_and_another_field_is_another_format")),
    "event_kind": Recipe(
        _EVENT_KIND,
        (
            *("tests/jobs/test_fold.py", "tests/jobs/test_claim.py", "tests/jobs/test_state_machine.py"),
            *("tests/log/test_codec.py", *_SCHEMA),
            "tests/graphql/engine/test_plain_events.py::test_events_of_all_kinds_are_read_without_an_executor",
        ),
    ),
    "query": Recipe(
        _QUERY,
        (
            "tests/index/test_reader.py::test_tags_are_counted_those_of_most_jobs_first",
            *(*_SCHEMA, f"{_README}every_operation_shown_is_valid"),
        ),
    ),
    "setting": Recipe(
        _SETTING,
        (
            "tests/workers/images/test_image_processing_handler.py::test_the_user_agent_is_a_setting",
            f"{_README}the_configuration_table_lists_every_setting",
        ),
    ),
    "limit": Recipe(
        _LIMIT,
        (
            *("tests/graphql/engine/test_limits.py", "tests/test_limits_table.py"),
            f"{_README}the_configuration_table_lists_every_setting",
        ),
    ),
}


def _places(name: str) -> list[str]:
    """The files that the recipe of that patch lists, in its order."""
    sections = re.split(r"^## ", (ROOT / "docs" / "recipes.md").read_text(), flags=re.MULTILINE)
    (section,) = (text for text in sections if f"(recipes/{name}.patch)" in text)
    return re.findall(r"^\d+\. `([^`]+)`", section, re.MULTILINE)


def test_every_patch_has_its_recipe_and_its_proof() -> None:
    linked = re.findall(r"\(recipes/(\w+)\.patch\)", (ROOT / "docs" / "recipes.md").read_text())
    assert sorted(linked) == sorted(RECIPES) == sorted(path.stem for path in FOLDER.glob("*.patch"))


def test_every_file_that_the_recipes_name_exists_or_is_made_by_a_patch() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()
    named = set(re.findall(r"`([\w/]+/\w+\.(?:py|md|graphql|mjs))`", text))
    patches = "".join(path.read_text() for path in FOLDER.glob("*.patch"))
    made = set(re.findall(r"^--- /dev/null\n\+\+\+ b/(\S+)$", patches, re.MULTILINE))
    assert len(named) > 30
    assert {name for name in named if not (ROOT / name).exists()} == made


@pytest.mark.parametrize("name", RECIPES)
def test_a_patch_touches_exactly_the_places_that_its_recipe_lists(name: str) -> None:
    touched = re.findall(r"^diff --git a/(\S+) b/\1$", (FOLDER / f"{name}.patch").read_text(), re.MULTILINE)
    assert sorted(_places(name)) == sorted(touched)


@pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")
@pytest.mark.timeout(180)  # five processes, one of them a suite of its own
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_is_followed_works(name: str, tmp_path: Path) -> None:
    copy, patch = _copy(tmp_path / "copy"), FOLDER / f"{name}.patch"
    applied = _run(copy, "git", "apply", "--whitespace=error", str(patch))
    assert applied[0] == 0, f"docs/recipes/{name}.patch does not apply any more. {_RENEW}\n{applied[1]}"
    python = [place for place in _places(name) if place.endswith(".py")]
    recipe = RECIPES[name]
    checks: dict[str, tuple[str, ...]] = {
        "ruff check": ("-m", "ruff", "check", "--no-cache", *python),
        "ruff format --check": ("-m", "ruff", "format", "--no-cache", "--check", *python),
        "gql-jobs schema --check": ("-m", "gql_jobs", "schema", "--check"),
        "the program that uses it": ("-W", "error", "-c", _BEGIN + recipe.program),
        "pytest": ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *recipe.tests),
    }
    with ThreadPoolExecutor(len(checks)) as threads:
        results = list(threads.map(lambda command: _run(copy, sys.executable, *command), checks.values()))
    for check, (ended, said) in zip(checks, results, strict=True):
        assert ended == 0, f"docs/recipes/{name}.patch applies, but {check} fails. {_RENEW}\n{said}"


def _copy(folder: Path) -> Path:
    """The product and its tests, as they are in this checkout."""
    folder.mkdir()
    ignored = shutil.ignore_patterns("node_modules", "recipes")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


def _run(folder: Path, *command: str) -> tuple[int, str]:
    """Run a command in the copy, where neither this checkout, nor a repository around it, nor its settings are seen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "GQL_JOBS_", "PYTEST_"))}
    paths = {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'workers'}", "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    done = subprocess.run(command, cwd=folder, env=kept | paths, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout[-6000:] + done.stderr[-6000:]
