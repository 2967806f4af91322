"""Job types for forms: one payload with a field of every kind, and one whose handler fails until it is mended."""

import asyncio
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import EmailStr, Field, SecretStr

from gql_jobs import JobContext, Model, PermanentError
from gql_jobs.jobs.registry import JobType, Registry


class Colour(Enum):
    """An enum whose values are not its names."""

    RED = "#f00"
    BLUE = "#00f"


class Circle(Model):
    """One shape."""

    kind: Literal["circle"]
    radius: float


class Square(Model):
    """Another shape."""

    kind: Literal["square"]
    side: int
    label: str = ""


class Leaf(Model):
    """A model that may hold itself."""

    name: str
    below: "Leaf | None" = None


class EveryKindPayload(Model):
    """A field of every kind."""

    title: str = Field(description="What it is called.", max_length=40)
    mail: EmailStr | None = Field(None, description="Whom to tell.")
    colour: Colour = Field(description="Which colour.")
    colours: list[Colour] = Field(default_factory=list)
    day: date | None = None
    at: datetime | None = None
    price: Decimal | None = None
    share: float = Field(0.5, ge=0, le=1)
    times: int = 3
    strict: bool = True
    shape: Annotated[Circle | Square, Field(discriminator="kind")] | None = None
    either: int | str | None = None
    limits: dict[str, int] = Field(default_factory=dict)
    leaf: Leaf | None = None
    anything: Any = None
    key: SecretStr | None = None
    keys: list[SecretStr] = Field(default_factory=list)


class NeedsFilePayload(Model):
    """A file that has to be there."""

    file: str = Field(description="Without this file the job fails for good.")
    text: str = Field("", description="What the failure says, too.")
    gate: str | None = Field(None, description="A file to wait for first.")


class Done(Model):
    """That it is done."""

    done: bool = True


async def run(_context: JobContext, _payload: EveryKindPayload) -> Done:
    """Do nothing."""
    return Done()


async def need(_context: JobContext, payload: NeedsFilePayload) -> Done:
    """Fail where the file is missing."""
    while payload.gate is not None and not await asyncio.to_thread(Path(payload.gate).exists):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    if not await asyncio.to_thread(Path(payload.file).exists):
        raise PermanentError(f"A file is missing. {payload.text}".strip())
    return Done()


def registered() -> Registry:
    """The two types."""
    registry = Registry()
    registry.add(
        JobType(
            "every_kind",
            payload=EveryKindPayload,
            result=Done,
            handler=f"{__name__}:run",
            description="Takes a field of every kind.",
        )
    )
    registry.add(
        JobType(
            "needs_file",
            payload=NeedsFilePayload,
            result=Done,
            handler=f"{__name__}:need",
            description="Fails until a file is there.",
        )
    )
    return registry
