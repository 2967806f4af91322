"""How this project's own processes write their log: one line a record, to stderr."""

import logging

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"
_QUIET = ("mail.log", "asyncio", "nats", "httpx")
"""Libraries whose INFO says nothing about jobs."""


class _OneLine(logging.Formatter):
    """Line breaks in a message are shown, not obeyed: job data must not forge log lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


def configure_logging(level: int = logging.INFO) -> None:
    """Send every record of ``level`` and above to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(_FORMAT, datefmt="%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
