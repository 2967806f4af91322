"""What steers jobs, as this process's index has it: limits, pauses, schedules, and who holds the gate.

Each is the value of its newest message in the stream (``jobs.gate.<what>.<name>.checkpoint``), so that it takes effect
at a position among the messages of jobs. It is followed by the feed and kept in memory; nothing is written here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeVar

import msgspec

from gql_jobs.jobs.limits import UNLIMITED, Limits
from gql_jobs.jobs.messages import SteeringMessage
from gql_jobs.jobs.pause import Pause
from gql_jobs.log import codec

_T = TypeVar("_T")

OnSteering = Callable[[SteeringMessage], None]
"""Is told of a message that is newer than what was known."""


class Steering:
    """The newest messages by what they are about, for the event loop's thread only.

    ``on_change``: called with each message that is applied, after all of its batch are known.
    """

    def __init__(self, known: Iterable[SteeringMessage] = ()) -> None:
        """:param known: what is known to begin with."""
        self._newest: defaultdict[str, dict[str, SteeringMessage]] = defaultdict(dict)
        self._decoded: dict[tuple[str, str], tuple[int, object]] = {}
        self.on_change: list[OnSteering] = []
        for message in known:
            self._newest[message.what][message.name] = message

    def apply(self, messages: Iterable[SteeringMessage]) -> None:
        """Take in messages in the order of the stream, and tell of those that are new."""
        new = []
        for message in messages:
            known = self._newest[message.what].get(message.name)
            if known is None or known.seq < message.seq:
                self._newest[message.what][message.name] = message
                new.append(message)
        for message in new:
            for told in self.on_change:
                told(message)

    def all(self, what: str) -> Mapping[str, SteeringMessage]:
        """Return the newest messages of one kind by name, those that say that something is removed among them."""
        return self._newest[what]

    def values(self, what: str, kind: type[_T]) -> dict[str, _T]:
        """Return the values of one kind by name, without those that are removed or cannot be read."""
        found = ((name, self.value(what, name, kind)) for name in self._newest[what])
        return {name: value for name, value in found if value is not None}

    def pauses(self, now: datetime) -> dict[str, Pause]:
        """Return the pauses of queues that are in effect, by their names.

        :param now: by the server's clock.
        """
        return {queue: pause for queue, pause in self.values(codec.PAUSES, Pause).items() if not pause.is_over(now)}

    def pause_of(self, queue: str, now: datetime) -> Pause | None:
        """Return the pause of a queue; None if it is not paused.

        :param now: by the server's clock.
        """
        pause = self.value(codec.PAUSES, queue, Pause)
        return pause if pause is not None and not pause.is_over(now) else None

    def is_paused(self, queue: str, now: datetime) -> bool:
        """Return whether a queue is paused.

        :param now: by the server's clock.
        """
        return self.pause_of(queue, now) is not None

    def limits_of_queue(self, queue: str) -> Limits:
        """Return what a queue is limited to."""
        return self.value(codec.QUEUE_LIMITS, queue, Limits) or UNLIMITED

    def limits_of_type(self, type_name: str) -> Limits:
        """Return what a job type is limited to, as the API process that started last has registered it."""
        return self.value(codec.TYPE_LIMITS, type_name, Limits) or UNLIMITED

    def is_limited(self, queue: str, type_name: str) -> bool:
        """Return whether jobs of a queue and a type have to pass the gate because of limits."""
        if not (self._newest[codec.QUEUE_LIMITS] or self._newest[codec.TYPE_LIMITS]):
            # Asked for every job that is created.
            return False
        return not (self.limits_of_queue(queue).is_none and self.limits_of_type(type_name).is_none)

    def value(self, what: str, name: str, kind: type[_T]) -> _T | None:
        """Return one value; None if there is none, if it is removed, or if it cannot be read as ``kind``."""
        message = self._newest[what].get(name)
        if message is None or message.value is None:
            return None
        decoded = self._decoded.get((what, name))
        if decoded is None or decoded[0] != message.seq:
            try:
                value: object = msgspec.json.decode(message.value, type=kind)
            except msgspec.MsgspecError:
                value = None
            decoded = self._decoded[what, name] = message.seq, value
        found = decoded[1]
        return found if isinstance(found, kind) else None
