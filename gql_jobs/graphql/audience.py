"""Who watches the same: operations with one text, name and variables share the results of their events.

A result is made once an event and not once a subscriber. Only results that follow from the event alone are shared: one
for which a resolver has looked at anything else (the job's files, its history) may be another one a moment later.
Nothing an operation shows depends on who asks; when something does, the asker becomes part of the key.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from msgspec import json
from strawberry.types import ExecutionResult

_KEPT = 64
"""Results that are kept of one operation: what its subscribers lie apart, at most."""


@dataclass
class EventResult(ExecutionResult):
    """A result that several subscribers are sent. ``rendered``: what the transports have made of it, once one has."""

    rendered: Any = None


class Audience:
    """The subscribers of one operation; it ends with the last of them."""

    def __init__(self) -> None:
        self._results: OrderedDict[str, EventResult] = OrderedDict()

    def result(self, event: Any) -> ExecutionResult | None:
        """What another subscriber was sent for this event."""
        return self._results.get(event.cursor)

    def keep(self, event: Any, result: ExecutionResult) -> EventResult:
        """Share a result with the others."""
        shared = self._results[event.cursor] = EventResult(data=result.data, errors=result.errors)
        if len(self._results) > _KEPT:
            self._results.popitem(last=False)
        return shared


class Audiences:
    """Of one schema."""

    def __init__(self) -> None:
        self._by_operation: WeakValueDictionary[tuple[str, str | None, bytes], Audience] = WeakValueDictionary()

    def of(self, text: str, name: str | None, variables: dict[str, Any]) -> Audience:
        """Those who watch the same. Whoever holds it belongs to it."""
        key = (text, name, json.encode(variables, order="sorted"))
        return self._by_operation.setdefault(key, Audience())
