"""Where the commands find the API, and how they say who asks."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from gql_jobs.client.address import BadAddress, address_and_token, endpoint_of
from gql_jobs.processes.lock import DEV_LOCK, FolderLock, address_kept, address_of_dev
from gql_jobs.settings import Settings
from tests.forked import Ended, run_command
from tests.guarded import guarded
from tests.running_dev import running_dev
from tests.serving import HOST

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment without addresses and tokens."""
    for name in ("URL", "URL_FILE", "TOKEN", "TOKEN_FILE", "DATA_DIR"):
        monkeypatch.delenv(f"GQL_JOBS_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _found(url: str | None, token: str | None) -> tuple[str, str | None]:
    """The endpoint that is asked, and by whom."""
    address, found = address_and_token(url, token)
    return endpoint_of(address), found


async def _run(folder: Path, *arguments: str, **environment: str) -> Ended:
    return await asyncio.to_thread(run_command, *arguments, folder=folder, environment=environment)


async def test_the_dev_that_runs_here_is_found_by_itself_and_not_any_more_once_it_has_stopped(folder: Path) -> None:
    async with running_dev(folder) as dev:
        urls = await dev.ready()
        given = {"GQL_JOBS_DATA_DIR": str(folder / "data")}
        made = await _run(folder, "create", "email", "to=a@example.com", "subject=S", "body=B", "--follow", **given)
        assert made.code == 0, made.err
        kept = folder / "data" / "dev.json"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert json.loads(kept.read_text())["url"] == urls["API"].removesuffix("/graphql")
        dev.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(dev.process.wait(), 60) == 0
        assert not kept.exists()


def test_an_address_counts_only_while_the_dev_that_has_written_it_runs(folder: Path) -> None:
    assert address_of_dev(folder) is None
    with FolderLock(folder / DEV_LOCK), address_kept(folder, "http://127.0.0.1:8123"):
        assert address_of_dev(folder) == "http://127.0.0.1:8123"
        kept = (folder / "dev.json").read_text()
    (folder / "dev.json").write_text(kept)
    assert address_of_dev(folder) is None, "nobody holds the lock"
    with FolderLock(folder / DEV_LOCK):
        (folder / "dev.json").write_text(kept.replace(str(os.getpid()), "1"))
        assert address_of_dev(folder) is None, "it is of one that was killed"
        for text in ("", "[]", "{}", "\xff", '{"url": "x"}'):
            (folder / "dev.json").write_text(text)
            assert address_of_dev(folder) is None


def test_an_option_counts_more_than_the_environment_and_that_more_than_a_file_and_dev(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _found(None, None) == ("http://127.0.0.1:8000/graphql", None)
    data = folder / ".gql-jobs"
    data.mkdir()
    with FolderLock(data / DEV_LOCK), address_kept(data, "http://[::1]:8123"):
        assert _found(None, None) == ("http://[::1]:8123/graphql", None)
        (folder / ".env").write_text("GQL_JOBS_URL=https://jobs.example.com/\nGQL_JOBS_TOKEN=from-env-file\n")
        assert _found(None, None) == ("https://jobs.example.com/graphql", "from-env-file")
        (folder / "token").write_text("from-token-file\n")
        monkeypatch.setenv("GQL_JOBS_TOKEN_FILE", "token")
        monkeypatch.setenv("GQL_JOBS_URL", "http://here/sub/graphql?x=1")
        assert _found(None, None) == ("http://here/sub/graphql?x=1", "from-token-file")
        assert _found("http://there:1", "from-0ption") == ("http://there:1/graphql", "from-0ption")
    monkeypatch.setenv("GQL_JOBS_TOKEN_FILE", "missing")
    with pytest.raises(BadAddress, match=r"GQL_JOBS_TOKEN_FILE: the file cannot be read: No such file"):
        _found(None, None)


@pytest.mark.parametrize("name", ["GQL_JOBS_URL", "GQL_JOBS_TOKEN"])
async def test_what_clients_are_told_by_is_no_unknown_setting(folder: Path, name: str) -> None:
    found = await _run(folder, "worker", "--queues", "no.where", **{name: "http://127.0.0.1:1"})
    assert "is no setting" not in found.err


async def test_a_wrong_token_is_refused_and_shown_nowhere_and_a_right_one_lets_in(
    settings: Settings, folder: Path
) -> None:
    async with guarded(settings) as shop:
        url = f"http://{HOST}:{shop.api.port}"
        job_id = await shop.create()
        for arguments in (["list"], ["tail"], ["job", job_id], ["job", job_id, "--json"], ["create", "probe"]):
            for wrong in ("wrong-s3cretword", None):
                given = {} if wrong is None else {"GQL_JOBS_TOKEN": wrong}
                found = await _run(folder, *arguments, GQL_JOBS_URL=url, **given)
                assert (found.code, found.out) == (1, ""), arguments
                assert found.err.endswith("(UNAUTHENTICATED)\n")
                assert "s3cretword" not in found.err
        (folder / "key").write_text(shop.key + "\n")
        listed = await _run(folder, "list", GQL_JOBS_URL=url, GQL_JOBS_TOKEN_FILE="key")  # noqa: S106 - a path
        assert listed.out.startswith(job_id)
        issued = await shop.token()
        forbidden = await _run(folder, "cancel", job_id, "--url", url, GQL_JOBS_TOKEN=issued.token)
        assert forbidden.code == 1
        assert forbidden.err.endswith("(FORBIDDEN)\n")
