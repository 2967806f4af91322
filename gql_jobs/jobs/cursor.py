"""A cursor: a position in the stream of events, opaque to clients (``sequence`` or ``sequence.index``)."""

import re
from typing import NamedTuple, Self

from gql_jobs.jobs.errors import InvalidArgument

_CURSOR = re.compile(r"(\d{1,18})(?:\.(\d{1,3}))?")


class Cursor(NamedTuple):
    """The event number ``nth`` of the message ``seq``; cursors compare as positions do."""

    seq: int
    nth: int = 0

    @classmethod
    def parse(cls, text: str, argument: str = "after") -> Self:
        """:raises InvalidArgument: if the text is no cursor of ours."""
        match = _CURSOR.fullmatch(text) if text.isascii() else None
        if match is None:
            raise InvalidArgument(argument, "The cursor is not one this API has given out.")
        return cls(int(match[1]), int(match[2] or 0))

    def __str__(self) -> str:
        return f"{self.seq}.{self.nth}" if self.nth else str(self.seq)
