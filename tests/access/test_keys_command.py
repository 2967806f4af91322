"""``gql-jobs keys`` as an operator runs it."""

import asyncio
import re
from pathlib import Path

import pytest

from gql_jobs.access.authentication import Authentication
from gql_jobs.jobs.errors import Unauthenticated
from gql_jobs.jobs.viewer import Scope, ViewLimits
from gql_jobs.logs import redact
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.forked import run_command

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def keys(settings: Settings, tmp_path: Path) -> "Command":
    return Command(settings, tmp_path)


class Command:
    """``gql-jobs keys`` against the server of the test."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        environment = {"GQL_JOBS_NATS_URL": self._settings.nats_url or ""}
        return await asyncio.to_thread(run_command, "keys", *arguments, folder=self._folder, environment=environment)


async def test_a_key_stands_alone_on_standard_output_and_works_at_once(keys: Command, access: Authentication) -> None:
    limits = ("--queue", "default", "--queue", "slow", "--type", "email", "--tag", "a", "--tag", "b")
    scopes = ("--scope", "read", "--scope", "create")
    code, out, err = await keys("create", "shop", *scopes, "--tenant", "acme", *limits, "--expires", "90d")
    assert code == 0, err
    assert re.fullmatch(r"gj_\w{12}_\w{43}\n", out)
    assert out.strip() not in err
    text = out.strip()

    async def known() -> object:
        try:
            return await access.viewer_of(text)
        except Unauthenticated:
            return None

    await until(known, "the running process knows the key", within=1.0)
    viewer = await access.viewer_of(text)
    assert (viewer.subject, viewer.tenant) == ("key:shop", "acme")
    assert viewer.scopes == {Scope.READ, Scope.CREATE}
    assert viewer.limits == ViewLimits(
        queues=frozenset({"default", "slow"}), types=frozenset({"email"}), tags=frozenset({"a", "b"})
    )
    assert viewer.expires_at is not None


async def test_the_list_shows_all_but_secrets_and_what_is_revoked_ends_within_a_second(
    keys: Command, access: Authentication
) -> None:
    code, out, err = await keys("create", "shop", "--scope", "read")
    assert code == 0, err
    text = out.strip()
    key_id = text.split("_")[1]
    viewer = await access.viewer_of(text)
    told = asyncio.Event()
    with access.watch(lambda: viewer, told.set):
        code, out, err = await keys("revoke", key_id)
        assert (code, out) == (0, "")
        assert key_id in err
        await asyncio.wait_for(told.wait(), 1)
    with pytest.raises(Unauthenticated):
        await access.viewer_of(text)
    code, out, _ = await keys("list")
    assert code == 0
    head, row = out.splitlines()
    assert head.split() == ["id", "name", "scopes", "tenant", "limits", "created", "expires", "revoked"]
    assert row.split()[:5] == [key_id, "shop", "read", "-", "-"]
    assert not row.endswith("-"), "when it was revoked"
    assert text.split("_")[2] not in out
    code, _, err = await keys("revoke", key_id[::-1])
    assert (code, err.count("\n")) == (1, 1)


async def test_view_tokens_live_on_when_the_signing_key_is_replaced_unless_older_ones_are_dropped(
    keys: Command, access: Authentication
) -> None:
    _, out, _ = await keys("create", "shop", "--scope", "read")
    viewer = await access.viewer_of(out.strip())
    before = access.issue(viewer, ViewLimits(), {Scope.READ}, 60)
    code, _, err = await keys("rotate")
    assert code == 0, err
    await until(
        lambda: access.issue(viewer, ViewLimits(), {Scope.READ}, 60).id[:8] != before.id[:8], "another key signs"
    )
    assert (await access.viewer_of(before.token)).subject == "key:shop"
    code, _, err = await keys("rotate", "--drop-older")
    assert code == 0, err

    async def refused() -> bool:
        try:
            await access.viewer_of(before.token)
        except Unauthenticated:
            return True
        return False

    await until(refused, "what the older key has signed ends", within=1.0)
    assert (await access.viewer_of(out.strip())).subject == "key:shop", "keys are not signed"


async def test_a_view_token_is_revoked_by_its_id(keys: Command, access: Authentication) -> None:
    _, out, _ = await keys("create", "shop", "--scope", "read", "--tenant", "acme")
    viewer = await access.viewer_of(out.strip())
    issued = access.issue(viewer, ViewLimits(), {Scope.READ}, 60)
    code, _, err = await keys("revoke", issued.id)
    assert code == 0, err
    with pytest.raises(Unauthenticated):
        await access.viewer_of(issued.token)


@pytest.mark.parametrize(
    "wrong",
    [
        ("create", "shop"),
        ("create", "shop", "--scope", "everything"),
        ("create", "", "--scope", "read"),
        ("create", "a\nb", "--scope", "read"),
        ("create", "x" * 201, "--scope", "read"),
        ("create", "shop", "--scope", "read", "--tenant", ""),
        ("create", "shop", "--scope", "read", "--tag", ""),
        ("create", "shop", "--scope", "read", "--expires", "soon"),
        ("create", "shop", "--scope", "read", "--expires", "0d"),
        ("create", "shop", "--scope", "read", "--expires", "99999w"),
        ("revoke", "*"),
        ("revoke", ">"),
    ],
    ids=" ".join,
)
async def test_what_makes_no_sense_is_a_sentence_and_stores_nothing(keys: Command, wrong: tuple[str, ...]) -> None:
    code, out, err = await keys(*wrong)
    assert code != 0
    assert out == ""
    assert "Error: " in err
    assert "Traceback" not in err
    _, out, _ = await keys("list")
    assert len(out.splitlines()) == 1


async def test_an_unreachable_server_is_a_sentence(tmp_path: Path) -> None:
    keys = Command(Settings(nats_url="nats://127.0.0.1:9"), tmp_path)
    code, out, err = await keys("list")
    assert (code, out) == (2, "")
    assert "The NATS server cannot be reached; see GQL_JOBS_NATS_URL." in err


def test_a_key_in_a_text_is_hidden() -> None:
    for secret in (
        "gj_" + "a1" * 6 + "_" + "Zz9" * 14,
        "gjv_eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiJ4In0.c2ln",
        "gjt_" + "a-_9" * 10,
    ):
        assert secret[4:16] not in redact(f"it came with {secret}, and was refused")
