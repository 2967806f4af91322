"""The result model of a job type follows from its payload model, at run time and for type checkers."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel

from gql_jobs import Model, Payload
from gql_jobs.jobs.registry import JobType, Registry, declared_result, job_type, registry
from tests.running import ROOT


class Sent(Model):
    """What came of it."""

    parts: int


class Text(Payload["Sent"]):
    """A text message."""

    to: str


class Urgent(Text):
    """A text message that cannot wait."""

    level: int


class Ping(Payload[None]):
    """Nothing comes of it."""

    host: str


R = TypeVar("R", bound=BaseModel | None)
T = TypeVar("T")


class Batch(Payload[R], Generic[R, T]):
    """Open: its results are named by those who derive from it."""

    items: list[T]


class Texts(Batch[Sent, str]):
    """Closed."""


class Pings(Batch[None, int]):
    """Closed, without a result."""


class Open(Payload[R]):
    """Its own parameter stands for the result."""


class Closed(Open[Sent]):
    """Through another class."""


class Mixed(Sent, Payload[Sent]):
    """Beside another base."""


class Unnamed(Payload):  # type: ignore[type-arg]
    """Names none."""


class Mistaken(Payload["Nowhere"]):  # type: ignore[name-defined]
    """Names what is not there."""


class Plain(Model):
    """No Payload."""


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        (Text, Sent),
        (Urgent, Sent),
        (Ping, None),
        (Texts, Sent),
        (Batch[Sent, int], Sent),
        (Pings, None),
        (Closed, Sent),
        (Mixed, Sent),
        (Payload[Sent], Sent),
        (Unnamed, ...),
        (Batch, ...),
        (Plain, ...),
        (int, ...),
    ],
)
def test_a_payload_names_its_result_also_through_other_classes(payload: Any, result: Any) -> None:
    assert declared_result(payload) is result


@pytest.fixture
def emptied(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry of this process, for one test without its types."""
    types: dict[str, JobType] = {}
    monkeypatch.setattr(registry, "_types", types)
    monkeypatch.setattr(registry, "get", types.get)
    return registry


@pytest.mark.usefixtures("emptied")
def test_a_result_may_be_left_out_where_the_payload_names_it() -> None:
    assert job_type("text", payload=Text, handler="m:f").result is Sent
    assert job_type("ping", payload=Ping, handler="m:f").result is None
    assert job_type("again", payload=Text, result=Sent, handler="m:f").result is Sent
    assert job_type("silent", payload=Plain, result=None, handler="m:f").result is None


@pytest.mark.usefixtures("emptied")
@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ({"payload": Text, "result": Plain}, "result of the job type 'text' is Plain, but its payload Text names Sent"),
        ({"payload": Text, "result": None}, "is nothing, but its payload Text names Sent"),
        (dict[str, Any](payload=Ping, result=Sent), "is Sent, but its payload Ping names nothing"),
        ({"payload": Plain}, "The job type 'text' names no result model: give it as result, None if"),
        ({"payload": Unnamed}, "names no result model"),
        ({"payload": Mistaken}, "Mistaken names 'Nowhere' as its result, which the module .* does not have"),
        ({"payload": Payload["Sent"]}, "has no module of its own to find 'Sent' in: derive a class"),
        ({"payload": int}, "names no result model: .* or make int a Payload"),
        ({"payload": Payload[int]}, "A payload or result must be a pydantic model, not <class 'int'>"),  # type: ignore[type-var]
    ],
)  # fmt: skip
def test_a_result_that_is_not_named_or_named_twice_is_refused_in_a_sentence(models: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        job_type("text", handler="m:f", **models)


def test_a_type_is_found_by_its_payload_model(emptied: Registry) -> None:
    text = job_type("text", payload=Text, handler="m:f")
    assert emptied.of_payload(Text) is text
    assert emptied.of_payload(Text, "text") is text
    with pytest.raises(
        LookupError, match=r"test_result_models.Urgent is that of no registered job type: import the mo"
    ):
        emptied.of_payload(Urgent)
    reminder = job_type("reminder", payload=Text, handler="m:f")
    with pytest.raises(
        LookupError, match=r"Text is that of several job types: say which is meant of 'reminder', 'text'"
    ):
        emptied.of_payload(Text)
    assert emptied.of_payload(Text, "reminder") is reminder
    job_type("ping", payload=Ping, handler="m:f")
    with pytest.raises(
        LookupError, match=r"'ping' has not the payload model .*Text, which is that of 'reminder', 'text'"
    ):
        emptied.of_payload(Text, "ping")


CLIENT = """
from typing import Generic, TypeVar
from pydantic import BaseModel
from gql_jobs import Model, Payload, job_type

class Sent(Model):
    parts: int

class Text(Payload[Sent]):
    to: str

class Urgent(Text):
    level: int = 1

class Ping(Payload[None]):
    host: str

class Plain(BaseModel):
    host: str

R = TypeVar("R", bound=BaseModel | None)

class Handle(Generic[R]):
    def result(self) -> R: ...

def create(payload: Payload[R]) -> Handle[R]: ...

job_type("text", payload=Text, handler="m:f")
job_type("plain", payload=Plain, result=None, handler="m:f")
reveal_type(create(Text(to="a")).result())
reveal_type(create(Urgent(to="a", level=2)).result())
reveal_type(create(Ping(host="a")))
create(Plain(host="a"))
Text(too="a")
"""


@pytest.mark.timeout(240)
def test_type_checkers_infer_the_result_from_the_payload(tmp_path: Path) -> None:
    client = tmp_path / "client.py"
    client.write_text(CLIENT)
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file",
            "",
            "--cache-dir",
            tmp_path,
            "--disable-error-code",
            "empty-body",
            client,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line.partition(": ")[2] for line in checked.stdout.splitlines()]
    assert [line for line in said if line.startswith("note: Revealed")] == [
        'note: Revealed type is "client.Sent"',
        'note: Revealed type is "client.Sent"',
        'note: Revealed type is "client.Handle[None]"',
    ], checked.stdout
    errors = [line for line in said if line.startswith("error")]
    assert len(errors) == 2, checked.stdout
    assert 'Argument 1 to "create" has incompatible type "Plain"' in errors[0]
    assert 'Unexpected keyword argument "too" for "Text"' in errors[1] or "Missing named argument" in errors[1]
