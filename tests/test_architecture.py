"""The shape of the code: what docs/architecture.md says of it, and what keeps it easy to walk through."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from gql_jobs.settings import Settings
from tests import ways
from tests.running import ROOT

DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()
ENTRY_POINTS = {"gql_jobs/jobs/types/email.py"}
"""Named by an installed entry point, one for each job type."""
MOST_MODULES = 245
FEWEST_LINES = 60

SOURCES = sorted([*(ROOT / "gql_jobs").rglob("*.py"), *(ROOT / "workers" / "gql_jobs_worker").rglob("*.py")])
MODULES = [path for path in SOURCES if path.name not in {"__init__.py", "__main__.py"}]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    ("walk", "most"),
    [(ways.creation, 28), (ways.delivery, 16), (ways.event, 21)],
    ids=["creation", "delivery", "event"],
)
async def test_a_way_passes_through_the_files_that_the_document_draws_and_no_more(
    walk: Callable[[Settings], Awaitable[list[str]]], most: int, settings: Settings
) -> None:
    walked = await walk(settings)
    drawn = _between(walk.__name__)
    assert len(walked) <= most, walked
    assert set(walked) == set(re.findall(r"\b(?:gql_jobs|workers)/[\w/]+\.py", drawn))
    assert f"{len(walked)} files" in drawn


@pytest.mark.parametrize("named", sorted(set(re.findall(r"\b(?:gql_jobs|workers|tests|docs)/[\w/.]+\w", DOCUMENT))))
def test_each_place_that_the_document_names_exists(named: str) -> None:
    assert (ROOT / named).exists()


@pytest.mark.parametrize("names", re.findall(r"^\| \*\*[^|]+\*\* \| ([^|]+) \|", DOCUMENT, re.MULTILINE))
def test_the_code_uses_the_names_of_the_glossary(names: str) -> None:
    assert set(re.findall(r"`(\w+)`", names)) <= {name for path in SOURCES for name in _defined(path)}


def test_each_reach_into_private_api_has_a_test_that_exists() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "graphql" / "engine").glob("test_*.py"))
    named = re.findall(r"\| `(test_\w+)` \|$", _between("private"), re.MULTILINE)
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_there_are_few_modules_and_none_is_too_small_to_be_read_alone() -> None:
    assert len(MODULES) <= MOST_MODULES
    small = {_name(path) for path in MODULES if len(path.read_text().splitlines()) < FEWEST_LINES}
    assert small <= ENTRY_POINTS


def test_no_public_name_is_defined_in_two_modules_but_for_what_shows_a_value_of_that_name() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for name in _defined(path):
            if not name.startswith("_") and name != "log" and path.name != "__main__.py":
                places[name].append(_name(path))
    twice = {name: files for name, files in places.items() if len(files) > 1}
    told_apart = {name: _without_client(files) for name, files in twice.items()}
    assert {name: files for name, files in told_apart.items() if len(files) > 1 and not _shows_a_value(files)} == {}


def _without_client(files: list[str]) -> list[str]:
    """The places without one of the client, which calls what the API shows by the API's names."""
    return [file for file in files if file not in {"gql_jobs/client/errors.py", "gql_jobs/client/transport.py"}]


def _shows_a_value(files: list[str]) -> bool:
    """Whether one of two places is a GraphQL type and the other one the value that it shows."""
    graphql = [file for file in files if file.startswith("gql_jobs/graphql/") and "/engine/" not in file]
    return (
        len(files) == 2 and len(graphql) == 1 and all(f.startswith("gql_jobs/jobs/") for f in files if f not in graphql)
    )


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest cannot collect both at once."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("gql_jobs", "gql_jobs_worker", cache_dir=None)
    packages = {module for module in graph.modules if graph.find_children(module)}
    imports = {m: graph.find_modules_directly_imported_by(m) - packages for m in graph.modules - packages}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_module_of_the_workers_and_of_the_api_stands_in_a_layer() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    contracts = settings.split("[[tool.importlinter.contracts]]")[1:]
    for package in ("gql_jobs", "gql_jobs_worker"):
        (layers,) = [c for c in contracts if f'containers = ["{package}"]' in c]
        assert "exhaustive = true" in layers


def _between(name: str) -> str:
    return DOCUMENT.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]


@cache
def _defined(path: Path) -> set[str]:
    """What a module defines at its top level: classes, functions, constants."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names
