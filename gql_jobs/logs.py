"""How this project's own processes write their log: one line a record, to stderr."""

import logging
import time

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"
_QUIET = ("mail.log", "asyncio", "nats", "httpx")
"""Libraries whose INFO says nothing about jobs."""


class _OneLine(logging.Formatter):
    """Line breaks in a message are shown, not obeyed: job data must not forge log lines."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)
        self._second = (0, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        second = int(record.created)
        if self._second[0] != second:
            self._second = second, time.strftime("%H:%M:%S", time.localtime(second))
        return self._second[1]

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


def configure_logging(level: int | str = logging.INFO) -> None:
    """Send every record of ``level`` and above to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    # What no line shows is not looked up for every line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
