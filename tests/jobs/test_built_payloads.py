"""A payload that a program has built is stored as the very value that it is."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    SecretStr,
    Tag,
    computed_field,
    field_serializer,
    field_validator,
)

from gql_jobs import Model
from gql_jobs.jobs import built_payloads
from gql_jobs.jobs.built_payloads import BuiltPayload, accept_built, built_payload
from gql_jobs.jobs.payloads import AcceptedPayload, ModelMismatch, accept, read, secret_texts

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Colour(Enum):
    RED = "r"


class Inner(Model):
    size: int
    note: str = "none"


class Circle(Model):
    kind: Literal["circle"] = "circle"
    radius: float = 1


class Square(Model):
    kind: Literal["square"] = "square"
    side: int = 1


class Tagged(Model):
    kind: str = "tagged"


class Other(Model):
    kind: str = "other"


def _kind(value: Any) -> str:
    return str(value["kind"] if isinstance(value, dict) else value.kind)


@dataclass
class Plain:
    words: list[str] = field(default_factory=list)


class Order(Model):
    order_number: int
    at: datetime | None = None
    colour: Colour | None = None
    inner: Inner | None = None
    inners: list[Inner] = Field(default_factory=list)
    shape: Annotated[Circle | Square, Field(discriminator="kind")] = Field(default_factory=Circle)
    names: list[str] = []  # noqa: RUF012
    serial: str = Field(default_factory=lambda: uuid.uuid4().hex)
    plain: Plain | None = None
    hidden: str = Field("", exclude=True)
    _seen: int = PrivateAttr(0)


def _accepted(payload: BaseModel) -> AcceptedPayload:
    return accept_built(type(payload), built_payload(payload))


def _json(text: bytes) -> Any:
    return msgspec.json.decode(text)


def test_what_was_given_is_stored_under_the_aliases_and_defaults_are_left_to_whoever_reads() -> None:
    order = Order(order_number=7, at=NOON, colour=Colour.RED, inner=Inner(size=1), hidden="kept", plain=Plain(["a"]))
    accepted = _accepted(order)
    given = {
        "orderNumber": 7,
        "at": "2026-01-31T12:00:00Z",
        "colour": "r",
        "inner": {"size": 1},
        "hidden": "kept",
        "plain": {"words": ["a"]},
    }
    drawn = {"serial": order.serial, "inners": [], "shape": {"kind": "circle"}}
    assert _json(accepted.stored) == given | drawn
    assert accepted.value == order


def test_what_factories_drew_is_stored_as_it_was_drawn_and_is_no_part_of_what_was_asked_for() -> None:
    first, second = Order(order_number=7), Order(order_number=7)
    assert read(Order, _accepted(first).stored).serial == first.serial != second.serial
    assert _accepted(first).sent == _accepted(second).sent
    assert "serial" not in _json(_accepted(first).sent)
    assert _json(_accepted(Order(order_number=7, serial="given")).sent)["serial"] == "given"


def test_what_was_changed_after_it_was_built_is_stored_and_asked_for() -> None:
    order = Order(order_number=7)
    order.names.append("ada")
    order.inners.append(Inner(size=2))
    assert isinstance(order.shape, Circle)
    order.shape.radius = 3
    accepted = _accepted(order)
    assert accepted.value == order
    sent = _json(accepted.sent)
    assert (sent["names"], sent["inners"], sent["shape"]) == (["ada"], [{"size": 2}], {"kind": "circle", "radius": 3.0})


def test_a_discriminator_that_is_a_default_is_written() -> None:
    class Drawing(Model):
        shape: Annotated[Circle | Square, Field(discriminator="kind")]

    accepted = _accepted(Drawing(shape=Square()))
    assert (_json(accepted.stored), accepted.value) == ({"shape": {"kind": "square"}}, Drawing(shape=Square()))


def test_defaults_are_written_where_the_model_cannot_be_read_without() -> None:
    class Drawing(Model):
        part: Annotated[
            Annotated[Tagged, Tag("tagged")] | Annotated[Other, Tag("other")],
            Discriminator(_kind),
        ]

    assert _json(_accepted(Drawing(part=Other())).stored) == {"part": {"kind": "other"}}


def test_values_that_only_their_field_can_write_are_written_by_it() -> None:
    class Encoded(Model):
        data: Base64Bytes
        inside: Json[list[int]]
        moment: datetime

    encoded = Encoded(data=b"/w==", inside="[1, 2]", moment=NOON)
    assert encoded.data == b"\xff"
    accepted = _accepted(encoded)
    assert (accepted.value, _json(accepted.stored)["inside"]) == (encoded, "[1,2]")


def test_secrets_are_stored_in_clear_with_their_places() -> None:
    class Backup(Model):
        password: SecretStr
        spare: SecretStr = Field(default_factory=lambda: SecretStr("drawn secret"))

    accepted = _accepted(Backup(password=SecretStr("do not tell")))
    assert _json(accepted.stored) == {"password": "do not tell", "spare": "drawn secret"}
    assert set(accepted.secrets) == {"/password", "/spare"}
    assert _json(accepted.sent) == {"password": "do not tell"}


def test_bytes_that_are_no_text_beside_a_secret_are_no_obstacle_to_finding_it() -> None:
    class Sealed(Model):
        password: SecretStr
        data: Base64Bytes

    accepted = _accepted(Sealed(password=SecretStr("do not tell"), data=b"/w=="))
    assert secret_texts(Sealed, accepted.stored, accepted.secrets, accepted.value) == ["do not tell"]


def test_aliases_extra_fields_and_root_models_read_back() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        one: int = Field(validation_alias=AliasChoices("first", "second"))

    class Names(RootModel[list[Open]]):
        pass

    opened = Open.model_validate({"second": 1, "more": {"a": [1, None]}})
    accepted = _accepted(opened)
    assert (_json(accepted.stored), accepted.value) == ({"first": 1, "more": {"a": [1, None]}}, opened)
    assert _accepted(Names([opened])).value == Names([opened])


def test_numbers_of_any_size_are_kept() -> None:
    class Numbers(Model):
        whole: Annotated[int, Field(le=2**80)]
        anything: Any

    numbers = Numbers(whole=2**70, anything=[2**80, 0.1])
    assert _accepted(numbers).value == numbers


def test_what_the_model_does_not_take_is_refused_with_its_place() -> None:
    order = Order(order_number=7, inner=Inner(size=1))
    assert order.inner is not None
    order.inner.size = "many"  # type: ignore[assignment]
    with pytest.raises(ModelMismatch, match=r"inner\.size: Input should be a valid integer"):
        built_payload(order)
    with pytest.raises(ModelMismatch, match="orderNumber: Field required"):
        built_payload(Order.model_construct(**{}))  # noqa: PIE804  # without its field, which a type checker asks for


def test_what_does_not_read_back_as_the_same_is_refused() -> None:
    class Halved(Model):
        share: Annotated[float, AfterValidator(lambda value: value / 2)]

    with pytest.raises(ModelMismatch, match="share: It reads back as another value"):
        built_payload(Halved(share=8))


def test_an_object_of_which_only_a_text_could_be_stored_is_refused_unless_it_is_read_back_from_that() -> None:
    class Place:
        def __init__(self, name: str) -> None:
            self.name = name

        def __str__(self) -> str:
            return self.name

    class Visit(Model):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        where: Annotated[Any, BeforeValidator(lambda value: Place(value) if isinstance(value, str) else value)] = None
        notes: Any = None
        drawn: Any = Field(default_factory=lambda: Place("Ghent"))

    visit = _accepted(Visit(where=Place("Ghent"), drawn=None)).value
    assert isinstance(visit, Visit)
    assert visit.where.name == "Ghent"
    with pytest.raises(ModelMismatch, match=r"notes\.at: It reads back as another value"):
        built_payload(Visit(notes={"at": Place("Ghent")}, drawn=None))
    with pytest.raises(ModelMismatch, match="drawn: It reads back as another value"):
        built_payload(Visit())
    with pytest.raises(ModelMismatch):
        accept(Visit, {})


def test_code_of_the_model_that_fails_is_a_refusal_too() -> None:
    class Failing(Model):
        text: str

        @field_validator("text")
        @classmethod
        def _fail(cls, text: str) -> str:
            if text == "bad":
                raise KeyError(text)
            return text

    payload = Failing(text="good")
    payload.text = "bad"
    with pytest.raises(ModelMismatch, match="The model's own code failed with KeyError"):
        built_payload(payload)


class Letter(Model):
    to: str
    copies: int = 1
    share: float | None = None
    urgent: bool = False
    title: str = Field("", max_length=5)


def _outcome(payload: BaseModel) -> object:
    try:
        return built_payload(payload)
    except ModelMismatch as mismatch:
        return mismatch.faults


def _acceptance(built: BuiltPayload) -> object:
    try:
        return accept_built(Letter, built)
    except ModelMismatch as mismatch:
        return mismatch.faults


_SHARES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.one_of(
    st.text(max_size=6),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.just("\ud800"),
    st.just([1]),
    st.just(b"a"),
)


@settings(max_examples=300, deadline=None)
@given(
    st.builds(
        Letter, to=st.text(), copies=st.integers(), share=st.none() | st.floats(allow_nan=False, allow_infinity=False)
    ),
    st.dictionaries(st.sampled_from(sorted(Letter.model_fields)), _VALUES),
)
def test_a_plain_model_is_written_in_one_step_as_it_is_in_many(letter: Letter, changed: dict[str, Any]) -> None:
    assert built_payloads._is_plain(Letter)  # noqa: SLF001
    for name, value in changed.items():
        setattr(letter, name, value)
    in_one = _outcome(letter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built_payloads, "_is_plain", lambda _: False)
        assert _outcome(letter) == in_one
        if isinstance(in_one, BuiltPayload):
            in_many = _acceptance(in_one)
    if isinstance(in_one, BuiltPayload):
        assert _acceptance(in_one) == in_many


def test_names_and_code_of_their_own_make_a_model_less_plain() -> None:
    class Renamed(Model):
        one: str = Field(serialization_alias="other")

    class Hidden(Model):
        one: str = Field("", exclude=True)

    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    class Computed(Model):
        one: str

        @computed_field  # type: ignore[prop-decorator]
        @property
        def two(self) -> str:
            return self.one

    class Written(Model):
        one: str

        @field_serializer("one")
        def _write(self, one: str) -> str:
            return one.upper()

    class Checked(Model):
        one: str

        @field_validator("one")
        @classmethod
        def _check(cls, one: str) -> str:
            return one

    class Nested(Model):
        inner: Inner

    for model in (Order, Circle, Renamed, Hidden, Open, Computed, Written, Checked, Nested):
        assert not built_payloads._is_plain(model)  # noqa: SLF001


def test_stored_payloads_of_plain_models_that_do_not_fit_are_refused_with_their_places() -> None:
    stored = msgspec.Raw(b'{"to": 1}')
    with pytest.raises(ModelMismatch, match="to: Input should be a valid string"):
        accept_built(Letter, BuiltPayload(stored, stored))
