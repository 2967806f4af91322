"""Alerts and dashboard fit what is measured: promtool accepts them, and every metric and label they name exists."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gql_jobs.settings import Settings
from tests.api.operations import create, ended
from tests.running import running_worker
from tests.scraped import Samples, scrape
from tests.serving import free_port, serving

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
QUERIES = [target["expr"].replace("$__rate_interval", "5m") for panel in PANELS for target in panel["targets"]]
OPERATIONS = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
ADDED = {"instance", "job"}
"""The labels that Prometheus adds."""


def _promtool(*arguments: str, folder: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: it comes with Debian's package prometheus")
    done = subprocess.run((promtool, *arguments), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    ["check rules alerts.yml", "test rules alerts_test.yml", "check config prometheus.yml"],
)
def test_promtool_accepts_what_prometheus_reads(arguments: str) -> None:
    _promtool(*arguments.split(), folder=DEPLOY / "prometheus")


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:query{number}", "expr": query} for number, query in enumerate(QUERIES)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    _promtool("check", "rules", "queries.yml", folder=tmp_path)


def test_every_alert_is_tested_to_fire_and_has_its_paragraph() -> None:
    alerts = {rule["alert"] for rule in RULES}
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]
    fired = {t["alertname"] for test in tests for t in test["alert_rule_test"] if t.get("exp_alerts")}
    assert fired == alerts
    headings = re.findall(r"^### (\w+)\n\S", OPERATIONS, re.MULTILINE)
    assert sorted(headings) == sorted(alerts)
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


async def test_every_metric_and_label_that_is_asked_for_exists(settings: Settings) -> None:
    labels: dict[str, set[str]] = {}
    for page in await _pages(settings):
        for name, pairs in page:
            labels.setdefault(name, set()).update(label for label, _ in pairs)
    for query in [*QUERIES, *(rule["expr"] for rule in RULES)]:
        names = re.findall(r"\b(?:gql_jobs|process)_\w+", query) or re.findall(r"\bup\b", query)
        assert names, query
        if names == ["up"]:
            continue
        assert set(names) <= set(labels), query
        known = set.union(*(labels[name] for name in names))
        assert _labels(query) <= known | ADDED, query


async def test_every_query_of_the_dashboard_finds_something(settings: Settings, tmp_path: Path) -> None:
    pages = zip(("gql-jobs-api", "gql-jobs-worker"), await _pages(settings), strict=True)
    series = [
        {"series": _selector(name, {**dict(labels), "job": job, "instance": job}), "values": f"{value} {value}"}
        for job, page in pages
        for (name, labels), value in page.items()
    ]
    found = [{"labels": "{}", "value": 1}]
    expected = [{"expr": f"count({query}) > bool 0", "eval_time": "1m", "exp_samples": found} for query in QUERIES]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": expected}
    (tmp_path / "queries_test.yml").write_text(yaml.safe_dump({"tests": [test]}))
    _promtool("test", "rules", "queries_test.yml", folder=tmp_path)


async def _pages(settings: Settings) -> list[Samples]:
    """What an API process and a worker show when a job is completed, one has failed, and a request was refused."""
    port = free_port()
    shown = settings.model_copy(update={"metrics_port": port})
    async with serving(settings) as api, running_worker(shown), httpx.AsyncClient() as http:
        await ended(api, (await create(api, {"failAttempts": 1}))["id"])
        await ended(api, (await create(api, {"permanent": True}))["id"], "DEAD_LETTER")
        await api.refusal("{ nothing }")
        return [await scrape(api.http), await scrape(http, f"http://127.0.0.1:{port}/metrics")]


def _selector(name: str, labels: dict[str, str]) -> str:
    return f"{name}{{{', '.join(f'{label}={json.dumps(value)}' for label, value in labels.items())}}}"


def _labels(query: str) -> set[str]:
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
    matched = re.findall(r"(\w+)=~?\"", query)
    return {label.strip() for labels in grouped for label in labels.split(",") if label.strip()} | set(matched)
