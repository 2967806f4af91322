"""Jobs that are made of others from a terminal: exact as they were, changed by pairs, by a file or in an editor."""

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gql_jobs.jobs.registry import Registry, load_job_types
from gql_jobs.settings import Settings
from gql_jobs.terminal.client import exact_json, json_text
from gql_jobs.web import app, runtime
from tests.api.operations import UNKNOWN_ID, create
from tests.job_types import form_jobs, secret_jobs
from tests.running import JOB_TYPES
from tests.serving import HOST, ServedApi, serving
from tests.terminal.conftest import Command

pytestmark = pytest.mark.timeout(120)
NEWEST = """query { jobs(first: 1) {
  totalCount nodes { id type rawPayload tags priority maxRetries timeoutSeconds runAt origin { id } }
} }"""
_EDITOR = """
import json, os, pathlib, sys

name = pathlib.Path(sys.argv[-1])
seen = pathlib.Path({seen!r})
texts = {texts!r}
told = json.loads(seen.read_text()) if seen.exists() else []
told.append([str(name), name.stat().st_mode & 0o777, name.read_text()])
seen.write_text(json.dumps(told))
text = texts[min(len(told), len(texts)) - 1]
if text is not None:
    name.write_text(text)
"""


@pytest.fixture
async def api(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServedApi]:
    """An API that knows the probe, forms and secrets."""
    registry = Registry()
    for known in (*load_job_types(JOB_TYPES), *form_jobs.registered(), *secret_jobs.registered()):
        registry.add(known)
    for module in (app, runtime):
        monkeypatch.setattr(module, "load_job_types", lambda *_: registry)
    async with serving(settings) as served:
        yield served


async def _newest(api: ServedApi) -> dict[str, Any]:
    """The newest job, numbers as they were written."""
    answer = await api.http.post("/graphql", json={"query": NEWEST})
    found = json.loads(answer.text, parse_float=str)["data"]["jobs"]
    return {**found["nodes"][0], "number": found["totalCount"]}


def _editor(folder: Path, *texts: str | None) -> dict[str, str]:
    """An editor that leaves these texts behind, one each time; None to close without saving."""
    program = folder / "an editor.py"
    program.write_text(_EDITOR.format(seen=str(folder / "seen.json"), texts=texts))
    return {"VISUAL": "", "EDITOR": f"{sys.executable} '{program}'"}


def _seen(folder: Path) -> list[tuple[str, int, str]]:
    return [tuple(one) for one in json.loads((folder / "seen.json").read_text())]


async def test_a_job_is_made_of_another_with_its_options_and_every_digit(
    api: ServedApi, command: Command, tmp_path: Path
) -> None:
    saves = {"big": 9223372036854775807, "huge": 123456789012345678901234567890}
    (tmp_path / "payload.json").write_text(json.dumps({"steps": 7, "saves": saves}))
    given = (
        "--tag",
        "a",
        "--tag",
        "b",
        "--priority",
        "high",
        "--max-retries",
        "2",
        "--timeout",
        "20.5",
        "--key",
        "once",
    )
    made = await command("create", "probe", "@payload.json", *given)
    first = await _newest(api)
    assert first["id"] == made.out.strip(), made.err
    assert first["rawPayload"] == {"steps": 7, "saves": saves}
    again = await command("create", "--from", first["id"])
    assert (again.code, again.err) == (0, "")
    second = await _newest(api)
    assert second["id"] == again.out.strip() != first["id"]
    for name in ("type", "rawPayload", "tags", "priority", "maxRetries", "timeoutSeconds"):
        assert second[name] == first[name], name
    assert second["origin"] == {"id": first["id"]}
    changes = ("steps=8", "saves.big:=9007199254740993", "gate=", "--tag", "c", "--priority", "low")
    changed = await command("create", "--from", second["id"], *changes, "--json")
    third = await _newest(api)
    assert json.loads(changed.out)["job"]["id"] == third["id"]
    assert third["rawPayload"] == {"steps": 8, "gate": "", "saves": {**saves, "big": 9007199254740993}}
    assert (third["tags"], third["priority"], third["maxRetries"]) == (["c"], "LOW", 2)
    look = await command("job", third["id"], "--no-follow")
    assert f"origin\t{second['id']}" in look.out.splitlines()


async def test_a_file_takes_the_place_of_the_payload_and_a_type_that_of_the_type(
    api: ServedApi, command: Command, tmp_path: Path
) -> None:
    first = await create(api, {"steps": 7})
    (tmp_path / "payload.json").write_text('{"resultBytes": 3}')
    await command("create", "--from", first["id"], "@payload.json")
    assert (await _newest(api))["rawPayload"] == {"resultBytes": 3}
    await command("create", "--from", first["id"], "probe_thread", "resultBytes=4")
    made = await _newest(api)
    assert (made["type"], made["rawPayload"]) == ("probe_thread", {"steps": 7, "resultBytes": 4})
    unknown = await command("create", "--from", UNKNOWN_ID)
    assert (unknown.code, unknown.err) == (5, f"Error: There is no job {UNKNOWN_ID!r}.\n")
    missing = await command("create", "steps=1")
    assert (missing.code, "Missing argument 'TYPE'." in missing.err) == (2, True)


async def test_what_the_api_names_otherwise_than_it_stores_it_is_translated(api: ServedApi, command: Command) -> None:
    payload = {"title": "One", "colour": "RED", "colours": ["BLUE", "RED"], "shape": {"circle": {"radius": 1.5}}}
    first = await create(api, payload, kind="everyKind")
    stored = (await _newest(api))["rawPayload"]
    assert (stored["colour"], stored["colours"]) == ("#f00", ["#00f", "#f00"])
    made = await command("create", "--from", first["id"], "title=Two")
    assert made.code == 0, made.err
    assert (await _newest(api))["rawPayload"] == {**stored, "title": "Two"}
    made = await command("create", "--from", first["id"], "colour=BLUE")
    assert (await _newest(api))["rawPayload"] == {**stored, "colour": "#00f"}


async def test_a_choice_of_a_union_is_given_by_its_member(api: ServedApi, command: Command) -> None:
    made = await command("create", "every_kind", "title=7", "colour=RED", "shape.square.side=2", "shape.square.label=8")
    assert made.code == 0, made.err
    stored = (await _newest(api))["rawPayload"]
    assert (stored["title"], stored["shape"]) == ("7", {"kind": "square", "side": 2, "label": "8"})


async def test_secrets_that_nobody_is_shown_have_to_be_given(api: ServedApi, command: Command, tmp_path: Path) -> None:
    payload = {"account": {"user": "ada", "password": "hunter2"}, "tokens": ["one", "two"], "trace": "x"}
    first = await create(api, payload, kind="secret")
    refused = await command("create", "--from", first["id"], "account.user=bob")
    assert (refused.code, refused.out) == (2, "")
    assert "give them: account.password=… tokens.0=… tokens.1=…, or --edit, or a file." in refused.err
    given = ("account.password=hunter3", 'tokens:=["three"]')
    assert (await command("create", "--from", first["id"], *given)).code == 0
    assert (await _newest(api))["origin"] == {"id": first["id"]}
    left = await command(
        "create",
        "--from",
        first["id"],
        "--edit",
        **_editor(tmp_path, json.dumps({**payload, "tokens": ["[redacted]"]})),
    )
    assert (left.code, left.out) == (1, "")
    assert "input.payload.secret.tokens.0" in left.err
    assert "hunter" not in left.err
    assert (await _newest(api))["number"] == 2


async def test_an_editor_gets_a_private_file_that_is_gone_afterwards(
    api: ServedApi, command: Command, tmp_path: Path
) -> None:
    first = await create(api, {"saves": {"text": "Ünï", "big": 9223372036854775807}})
    edited = '{"steps": 3, "saves": 12345678901234567890}\n'
    made = await command("create", "--from", first["id"], "steps=2", "--edit", **_editor(tmp_path, edited))
    assert (made.code, made.err) == (0, "")
    newest = await _newest(api)
    assert newest["rawPayload"] == {"steps": 3, "saves": 12345678901234567890}
    assert newest["origin"] == {"id": first["id"]}
    ((name, mode, text),) = _seen(tmp_path)
    assert mode == 0o600
    assert not os.path.exists(name)  # noqa: ASYNC240, PTH110 - at once
    assert '"big": 9223372036854775807' in text
    assert '"text": "Ünï"' in text
    assert '\n  "steps": 2' in text


async def test_what_an_editor_leaves_as_it_was_or_wrong_creates_nothing(
    api: ServedApi, command: Command, tmp_path: Path
) -> None:
    first = await create(api, {"steps": 2})
    same = "Nothing was created: the payload is as it was.\n"
    none = "Error: What the editor has left is no JSON"
    cases = [
        (None, 1, same),
        ('{\n  "steps": 2\n}\n\n', 1, same),
        ("", 1, "Nothing was created: the payload is empty.\n"),
        ('{"steps": ', 2, f"{none}: Expecting value: line 1 column 11 (char 10).\n"),
        ("[1]", 2, f"{none} object.\n"),
        ('{"steps": "many"}', 1, "Error: The payload is not valid. (INVALID_PAYLOAD)\n"),
    ]
    for number, (left, code, said) in enumerate(cases, 1):
        found = await command("create", "--from", first["id"], "--edit", **_editor(tmp_path, *[left] * number))
        assert (found.code, found.out) == (code, "")
        assert found.err.startswith(said)
        assert len(_seen(tmp_path)) == number, "it opens once"
    assert (await _newest(api))["number"] == 1
    assert not any(map(os.path.exists, [name for name, _, _ in _seen(tmp_path)]))


async def test_on_a_terminal_the_editor_opens_again_with_what_was_wrong(
    api: ServedApi, on_a_terminal: Command, tmp_path: Path
) -> None:
    first = await create(api, {"steps": 2})
    texts = ('{"steps": ', '{"steps": "many"}', '{"steps": 4}')
    arguments = ("create", "--from", first["id"], "--edit", "--url", f"http://{HOST}:{api.port}")
    made = await on_a_terminal(*arguments, answers=(b"Open the editor again?", b"\n"), **_editor(tmp_path, *texts))
    assert made.code == 0, made.out
    assert "is no JSON: Expecting value" in made.out
    assert "input.payload.probe.steps: " in made.out
    assert (await _newest(api))["rawPayload"] == {"steps": 4}
    assert [text for _, _, text in _seen(tmp_path)] == ['{\n  "steps": 2\n}\n', *texts[:2]], "what was typed is kept"
    given_up = await on_a_terminal(*arguments, answers=(b"again?", b"n\n"), **_editor(tmp_path, "{"))
    assert given_up.code == 2
    assert (await _newest(api))["number"] == 2


async def test_an_editor_that_fails_is_a_sentence(api: ServedApi, command: Command) -> None:
    first = await create(api)
    found = await command("create", "--from", first["id"], "--edit", VISUAL="", EDITOR="no-such-editor")
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith("Error: no-such-editor: Editing failed")
    nobody = await command("create", "--from", first["id"], "--edit", VISUAL="", EDITOR="")
    assert (nobody.code, nobody.out) == (2, "")
    assert "There is no terminal for an editor, and VISUAL and EDITOR name none that needs none." in nobody.err


@pytest.mark.parametrize("text", ['{"a": [1.10, 1E400, -0, 0.1e-7], "b": {"c": "1"}}', '["\\ud800", null, true, 7]'])
def test_what_is_read_exactly_is_written_as_it_was(text: str) -> None:
    assert json_text(exact_json(text)) == text
