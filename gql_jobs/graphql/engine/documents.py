"""The documents that have passed validation, by their text: front ends send the same few for as long as they run.

Parsing and validating a page's document costs 4 ms, executing it 5 ms; a text that is known costs neither of the first.
Only what is valid is kept, and no more than a browser that makes up texts could be allowed to cost.
"""

from collections import OrderedDict
from hashlib import sha256
from typing import Any

from graphql import DocumentNode
from msgspec import Struct, field

from gql_jobs.graphql.engine.complexity import Complexity

MOST = 1000
"""Documents that are kept."""
LONGEST = 16 * 1024
"""Characters of a document that is kept; its syntax tree takes about a hundred times as many bytes."""


class Known(Struct):
    """A valid document, and what is known of its operations by their names."""

    document: DocumentNode
    complexity: dict[str | None, Complexity] = field(default_factory=dict)
    plans: dict[str | None, Any] | None = None
    """How its fields are read; None where that may differ from one execution to the next."""


class Documents:
    """The valid documents used last, for one schema."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Known] = OrderedDict()
        self._texts: dict[str, str] = {}

    def find(self, text: str) -> Known | None:
        """The document of that text, if it was valid before."""
        known = self._kept.get(text)
        if known is not None:
            self._kept.move_to_end(text)
        return known

    def keep(self, text: str, document: DocumentNode) -> Known | None:
        """Remember a document that is valid; None where this very tree is not kept.

        Two requests may bring a text at once, and what is kept with one tree speaks of its nodes.
        """
        if len(text) > LONGEST or text in self._kept:
            return None
        # Only directives make variables decide what is selected, and there is none without its sign.
        known = self._kept[text] = Known(document, plans=None if "@" in text else {})
        self._texts[digest(text)] = text
        if len(self._kept) > MOST:
            oldest, _ = self._kept.popitem(last=False)
            del self._texts[digest(oldest)]
        return known

    def text(self, named: str) -> str | None:
        """The text of that digest, if it was valid before and is still kept."""
        return self._texts.get(named)

    def __len__(self) -> int:
        return len(self._kept)


def digest(text: str) -> str:
    """By which clients name a document that they do not send: SHA-256 of its UTF-8, in hexadecimal digits."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
