"""The bundled data set, made once a session; settings of the handler, made anew for each test."""

import os
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import TypeAlias

import pytest

from gql_jobs.jobs.types.report_generation import ReportGenerationResult
from gql_jobs_worker.handlers import environment_settings
from gql_jobs_worker.reports.generator import ensure_sales
from tests.workers.reports.reporting import ReportContext, report_file, run_report

Reporting: TypeAlias = Callable[[str, str | date, str | date], Path]
"""Makes a report of a format from a day to a day; returns the file."""


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder that holds the bundled data set; the processes of pytest-xdist share one."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundled"
    ensure_sales(folder / "sales")
    return folder


@pytest.fixture(autouse=True)
def _fresh_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("GQL_JOBS_DATA_DIR", str(tmp_path / "no data"))
    environment_settings.cache_clear()
    yield
    environment_settings.cache_clear()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Points the handler at sales: ``source(place, columns=…, table=…)``."""

    def point(place: Path | str, **settings: str) -> None:
        environment_settings.cache_clear()
        monkeypatch.setenv("GQL_JOBS_SALES_SOURCE", str(place))
        for name, value in settings.items():
            monkeypatch.setenv(f"GQL_JOBS_SALES_{name.upper()}", value)

    return point


@pytest.fixture
def context(tmp_path: Path) -> ReportContext:
    """A job's context, with a folder of its own."""
    (tmp_path / "job").mkdir()
    return ReportContext(tmp_path / "job")


@pytest.fixture
def results() -> list[ReportGenerationResult]:
    """What the reports of the test returned."""
    return []


@pytest.fixture
def report(context: ReportContext, results: list[ReportGenerationResult]) -> Reporting:
    """Make a report, each as the first attempt of its job."""

    def run(kind: str, start: str | date, end: str | date) -> Path:
        context.saved = None
        context.said.clear()
        results.append(run_report(context, kind, start, end))
        return report_file(context.folder, kind)

    return run
