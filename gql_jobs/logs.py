"""The log of all processes: one line per record on stderr, as text or as JSON.

Records about a job have its id, attempt, type and worker as fields (``job_fields``). Text shows the message only; JSON
(``GQL_JOBS_LOG_FORMAT=json``) has every field of the record.
"""

import json
import logging
import time
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]
"""The values of the setting ``log_format``."""

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"
_QUIET = ("mail.log", "asyncio", "nats", "httpx")
"""Loggers of libraries whose INFO lines are not shown."""
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""The attributes that every record has; all others came through ``extra``, which may have none of these names."""


def configure_logging(level: int | str = logging.INFO, log_format: LogFormat = "text") -> None:
    """Write every record of ``level`` and above to stderr, on one line each; in text a traceback follows on more.

    Replaces handlers that were installed before. Call it once, at the start of a process.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLine() if log_format == "json" else _TextLine())
    # No line shows these, so they need not be looked up for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def job_fields(
    *,
    job_id: str,
    attempt: int | None = None,
    type: str | None = None,  # noqa: A002 - the name of the field
    worker: str | None = None,
) -> dict[str, Any]:
    """Return the fields of a record about a job, to be passed as ``extra``; those that are None are left out.

    :param job_id: the whole id.
    :param attempt: the attempt's number, from 1; None before the first.
    :param type: the name of the job type.
    :param worker: the id of the worker process.
    """
    fields = {"job_id": job_id, "attempt": attempt, "type": type, "worker": worker}
    return {name: value for name, value in fields.items() if value is not None}


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records have the fields of one job, in addition to the ``extra`` of each call.

    No ``extra`` makes a call fail: what cannot be a field of a record is left out.
    """

    def __init__(self, type_name: str, fields: Mapping[str, Any]) -> None:
        super().__init__(logging.getLogger(f"gql_jobs.jobs.{type_name}"), fields)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the message and ``kwargs`` with the job's fields; they replace a call's own of the same name."""
        own = kwargs.get("extra")
        # The logger raises for a name that every record has, which would end the attempt of a handler that logs.
        added = {name: value for name, value in own.items() if name not in _OWN} if isinstance(own, Mapping) else {}
        kwargs["extra"] = {**added, **(self.extra or {})}
        return msg, kwargs


class _TextLine(logging.Formatter):
    """One line of text: line breaks in a message are escaped, so that job data cannot forge log lines."""

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


class _JsonLine(logging.Formatter):
    """One JSON object in ASCII on one line: all other characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        for name, value in vars(record).items():
            if name not in _OWN:
                fields.setdefault(name, value)
        return "{" + ", ".join(f"{json.dumps(str(name))}: {_json(value)}" for name, value in fields.items()) + "}"


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(_text(value))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # an object's own code may fail, and the line is worth more than the field
        return f"<{type(value).__name__}>"
