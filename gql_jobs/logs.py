"""The log of all processes: one line per record on stderr, as text or as JSON.

Records about a job have its id, attempt, type and worker as fields (``job_fields``). Text names the job in front of the
message; JSON (``GQL_JOBS_LOG_FORMAT=json``) has every field of the record. Whatever a message holds, it is one line
without its secrets, and what is not printable is escaped.

Secrets are taken out of whatever else is shown, too (``redact``). Three things are recognised: the credentials of a
URL, values that stand behind a telling name (``api_key=``, ``--token``, ``"password":``, ``Authorization:``), and the
values that a process knows to be secret (``hide_values``). When in doubt a text loses a word too many. A secret that
stands in a text without any of these is not recognised, which is why texts that nobody wrote for clients are not shown
to them.
"""

import base64
import copy
import html
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, quote_plus, unquote

LogFormat: TypeAlias = Literal["text", "json"]
"""The values of the setting ``log_format``."""

_QUIET = ("mail.log", "asyncio", "nats", "httpx")
"""Loggers of libraries whose INFO lines are not shown."""
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""The attributes that every record has; all others came through ``extra``, which may have none of these names."""
current_job: ContextVar[Mapping[str, Any] | None] = ContextVar("current_job", default=None)
"""The fields of the job whose handler runs in this context: whatever is logged there has them, by any library."""
_CLIENTS_CAUSE = ("gql_jobs.web", "gql_jobs.graphql", "uvicorn", "websockets")
"""Loggers whose warnings any client can cause, as often as it likes."""
_PERIOD = 60.0
"""Seconds in which a warning that is about no job is written a few times and counted from then on."""
_WRITTEN = 5
"""How often it is written in a period; once, where clients cause it."""
MAX_LINE = 8192
"""Characters of a message that are written."""
MAX_TRACEBACK = 65_536
"""Characters of a traceback that are written: of a longer one its begin and its end."""
_MAX_VALUE = 200
"""Characters of each value in a warning that is about no job."""
_MAX_KINDS = 100
"""Warnings that are told apart while they are counted."""
_BESIDE_TRACEBACK = "| "
_job_of_process: Mapping[str, Any] | None = None


def configure_logging(
    level: int | str = logging.INFO, log_format: LogFormat = "text", secrets: Iterable[str] = ()
) -> None:
    """Write every record of ``level`` and above to stderr, on one line each; in text a traceback follows on more.

    The lines of a traceback begin with ``|``, which no other line does. A warning that is about no job and comes again
    and again is written a few times a minute at most, then counted. Replaces handlers that were installed before. Call
    it once, at the start of a process.

    :param secrets: values that are hidden wherever they stand, in the log and in all that is redacted.
    """
    hide_values(secrets)
    sys.excepthook, threading.excepthook = _log_uncaught, _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable
    logging.captureWarnings(capture=True)
    handler = _CountingHandler()
    handler.setFormatter(JsonLine() if log_format == "json" else _TextLine())
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


def log_whole_process_as(fields: Mapping[str, Any] | None) -> None:
    """Have all that this process logs bear the fields of a job, in any thread; None ends that."""
    global _job_of_process  # noqa: PLW0603  # a process of CPU-bound handlers runs one job after the other
    _job_of_process = fields


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Log what ends the process, which Python would write in lines that an exception's text can forge."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger(__name__).critical("an error ends the process", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(arguments: "threading.ExceptHookArgs") -> None:
    if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
        name = arguments.thread.name if arguments.thread is not None else "?"
        logging.getLogger(__name__).error("an error ends the thread %s", name, exc_info=arguments.exc_value)


def _log_unraisable(arguments: "sys.UnraisableHookArgs") -> None:
    """Log what cannot be raised anywhere, such as an error in ``__del__``; a record of the job it happens in."""
    where = arguments.err_msg or "an error is ignored in"
    name = getattr(arguments.object, "__qualname__", None) or type(arguments.object).__name__
    logging.getLogger(__name__).error("%s %s", where, name, exc_info=arguments.exc_value)


def printable(text: str) -> str:
    """Return the text with all that does not print escaped, as Python writes it: line breaks, ESC, bidi overrides."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def name_job(record: logging.LogRecord) -> None:
    """Give a record the fields of the job in whose handler it was made, unless it has those of a job already."""
    # What asyncio says of a task or a future it says whenever that is collected, in the context of anybody. What
    # libraries call a job, or its type, is none of ours.
    if record.name != "asyncio" and ("job_id" not in vars(record) or not record.name.startswith("gql_jobs")):
        vars(record).update(current_job.get() or _job_of_process or {})


class _CountingHandler(logging.StreamHandler[Any]):
    """Writes records to stderr; counts those that come again and again without being about a job."""

    def __init__(self) -> None:
        super().__init__()
        self._periods: dict[tuple[str, int, str], _Period] = {}
        self._due = float("inf")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it; write first what was counted in periods that are over."""
        if record.created >= self._due:
            self._write_counts(record.created)
        name_job(record)
        if record.levelno < logging.WARNING or "job_id" in vars(record):
            super().emit(record)
            return
        period = self._period_of(record)
        if period.room > 0:
            period.room -= 1
            super().emit(_with_short_values(record))
        else:
            period.counted += 1
            period.last = record

    def close(self) -> None:
        """Write what has been counted, at the end of the process."""
        self._write_counts(float("inf"))
        super().close()

    def _period_of(self, record: logging.LogRecord) -> "_Period":
        text = record.msg[:_MAX_VALUE] if isinstance(record.msg, str) else type(record.msg).__name__
        key = (record.name, record.levelno, text)
        if key not in self._periods and len(self._periods) >= _MAX_KINDS:
            # Messages that have no pattern in common, for their values are a part of them.
            key = (record.name, record.levelno, "")
        period = self._periods.get(key)
        if period is None:
            times = 1 if record.name.startswith(_CLIENTS_CAUSE) else _WRITTEN
            period = self._periods[key] = _Period(record.created, times)
            self._due = min(self._due, record.created + _PERIOD)
        return period

    def _write_counts(self, now: float) -> None:
        for key, period in [*self._periods.items()]:
            if now - period.began < _PERIOD:
                continue
            del self._periods[key]
            if period.last is not None:
                counted = _with_short_values(period.last)
                counted.exc_info = counted.exc_text = counted.stack_info = None
                counted.msg = f"{_message(counted)} ({period.counted} more like this in a minute)"
                counted.args = ()
                super().emit(counted)
        self._due = min((period.began for period in self._periods.values()), default=float("inf")) + _PERIOD


class _Period:
    """How often one warning may still be written within a minute, how often it was counted, and its last record."""

    __slots__ = ("began", "counted", "last", "room")

    def __init__(self, began: float, room: int) -> None:
        self.began = began
        self.room = room
        self.counted = 0
        self.last: logging.LogRecord | None = None


def _with_short_values(record: logging.LogRecord) -> logging.LogRecord:
    values = record.args
    if not isinstance(values, tuple):
        return record
    record = copy.copy(record)
    record.args = tuple(value if isinstance(value, int | float) else _short(value) for value in values)
    return record


def _short(value: Any) -> Any:
    text = _text(value)
    return value if len(text) <= _MAX_VALUE else f"{redact_beginning(text, _MAX_VALUE, _redact_line)}…"


def _message(record: logging.LogRecord) -> str:
    """Return the message of a record without its secrets, cut to size; both parts of one whose values do not fit."""
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001  # formatting runs code of the values, and the line is worth more than its form
        message = f"{_text(record.msg)} {_text(record.args)}"
    if len(message) <= MAX_LINE:
        return _redact_line(message)
    return f"{redact_beginning(message, MAX_LINE, _redact_line)}… ({len(message)} characters)"


def _job_of(record: logging.LogRecord) -> str:
    """Return which job a record is about, in brackets and with a blank behind; nothing if it is about none."""
    fields = vars(record)
    if "job_id" not in fields:
        return ""
    known = [(name, fields.get(field)) for name, field in (("job", "job_id"), ("attempt", "attempt"), ("type", "type"))]
    return f"[{' '.join(f'{name} {_text(value)[:100]}' for name, value in known if value is not None)}] "


class _TextLine(logging.Formatter):
    """One line of text: the job in front of the message, and its traceback below on lines that begin with ``|``."""

    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        job = _job_of(record)
        second = int(record.created)
        if self._second[0] != second:
            self._second = second, time.strftime("%H:%M:%S", time.localtime(second))
        head = f"{self._second[1]}.{int(record.msecs):03d} {record.levelname:<7} {record.name}: "
        line = printable(f"{head}{job}{_message(record)}")
        below = _traceback(self, record)
        if below:
            # Split where terminals and log collectors split, so that each part has the prefix.
            line += "".join(f"\n{_BESIDE_TRACEBACK}{printable(job + part)}" for part in below.splitlines())
        return line


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the traceback and the stack of a record without their secrets, cut to size."""
    parts = []
    if record.exc_info:
        parts.append(_of_exception(formatter, record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    text = "\n".join(parts)
    if len(text) <= MAX_TRACEBACK:
        return _redact_line(text)
    half = MAX_TRACEBACK // 2
    begin = redact_beginning(text, half, _redact_line)
    return f"{begin}\n… ({len(text) - 2 * half} characters)\n{_redact_end(text, half)}"


def _of_exception(formatter: logging.Formatter, exc_info: Any) -> str:
    try:
        return formatter.formatException(exc_info)
    except Exception:  # noqa: BLE001  # an exception may have been made so that it cannot be shown
        return f"{type(exc_info[1]).__name__} (its traceback cannot be shown)"


class JsonLine(logging.Formatter):
    """One JSON object in ASCII on one line: all other characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without its secrets."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info or record.stack_info:
            fields["exception" if record.exc_info else "stack"] = _traceback(self, record)
        for name, value in vars(record).items():
            if name not in _OWN:
                fields.setdefault(
                    name, HIDDEN if isinstance(name, str) and names_secret(name) else _without_secrets(value)
                )
        line = "{" + ", ".join(f"{json.dumps(str(name))}: {_json(value)}" for name, value in fields.items()) + "}"
        # The one character of ASCII that does not print and that JSON leaves as it is.
        return line.replace("\x7f", "\\u007f")


def _without_secrets(value: Any, depth: int = 5) -> Any:
    """Return the value of a field without its secrets; what is no text and holds none is left as it is."""
    if isinstance(value, str):
        return redact_beginning(value, MAX_LINE, _redact_line)
    if depth and type(value) is dict:
        return {
            name: HIDDEN if isinstance(name, str) and names_secret(name) else _without_secrets(one, depth - 1)
            for name, one in value.items()
        }
    if depth and type(value) in {list, tuple}:
        return [_without_secrets(one, depth - 1) for one in value]
    if (_of_running or _of_ended) and type(value) in {int, float}:
        return value if _redact_line(str(value)) == str(value) else HIDDEN
    return value


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(redact_beginning(_text(value), MAX_LINE, _redact_line))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # an object's own code may fail, and the line is worth more than the field
        return f"<{type(value).__name__}>"


# Secrets in texts.

HIDDEN = "***"
"""What stands in the place of a secret."""
SHORTEST = 4
"""Characters of the shortest value that is hidden wherever it stands: a shorter one is part of ordinary words."""

_NAME = (
    r"(?:pass(?:word|wd|phrase|code)|(?<![a-z])pass|pwd|secret|token|(?:api|access|private|secret|account|encryption)[-_.]?key"
    r"(?:[-_.]?id)?|signature|credentials?|authorization|cookie|session[-_.]?(?:id|key)|jwt)(?:[-_]?\d+)?"
)
# Bounded, as all repetitions here: what is searched may have been made to be slow to search.
_VALUE = (
    r"""(?:\\+"[^"\\]{0,4000}\\+"|[^\s&"'<>,;:=]{0,40}(?:\\*"(?:[^"\\]|\\.){0,4000}"|\\*'(?:[^'\\]|\\.){0,4000}')"""
    r"""|[^\s&"'<>]{0,4000}[^\s&"'<>,;.)\]}\\])"""
)
_EQUALS = r"\s{0,3}(?::?=>?|%(?:25){0,3}3d)\s{0,3}"

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), shown)
    for pattern, shown in (
        # A password may hold what would end the authority: then the last @ ends it. A port is no password.
        (r"""://[^\s/?#@:"'<>]{0,300}:(?!\d{1,5}(?:[/?#\s,"')]|$))[^\s"'<>]{0,1000}@""", f"://{HIDDEN}@"),
        (r"""://[^\s/?#"'<>]{1,1000}@""", f"://{HIDDEN}@"),
        (r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.{0,20000}?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|$)", HIDDEN),
        # Our own keys, view tokens and tickets.
        (r"\bgj_[0-9A-Za-z]{12}_[0-9A-Za-z]{8,100}|\bgjv_[\w.-]{8,8000}|\bgjt_[\w-]{8,100}", HIDDEN),
        (r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]{0,4000})?", HIDDEN),
        (r"""(\b(?:proxy-)?authorization\\*["']?\s{0,3}[:=]\s{0,3}\\*["']?)[^\r\n"']{1,4000}""", rf"\1{HIDDEN}"),
        (r"""(\b(?:set-)?cookie\\*["']?\s{0,3}:\s{0,3}\\*["']?)[^\r\n"']{1,4000}""", rf"\1{HIDDEN}"),
        (r"(\bx-[a-z-]{0,30}(?:key|token|secret)\s{0,3}:\s{0,3})[^\s,]{1,4000}", rf"\1{HIDDEN}"),
        (r"(\b(?:bearer|basic)\s{1,3})(?=[a-z~-]{0,200}[\d._+/=])[\w.~+/=-]{6,4000}", rf"\1{HIDDEN}"),
        (rf"""(\\*["'][\w.-]{{0,60}}{_NAME}\\*["']\s{{0,3}}[:=]\s{{0,3}}){_VALUE}""", rf"\1{HIDDEN}"),
        (rf"""(--?[\w-]{{0,60}}{_NAME}["']?(?:\s{{1,3}}|,\s{{0,3}})["']?)[^\s"',\]]{{1,4000}}""", rf"\1{HIDDEN}"),
        (rf"""(\(b?["'][\w.-]{{0,60}}{_NAME}["'],\s{{0,3}}){_VALUE}""", rf"\1{HIDDEN}"),
        (rf"({_NAME}{_EQUALS}){_VALUE}", rf"\1{HIDDEN}"),
        # Behind a colon people write sentences, too: a value has a digit there.
        (rf"""({_NAME}:\s{{0,3}})(?=[^\s]{{0,200}}\d)(?=[^\s]{{6}}){_VALUE}""", rf"\1{HIDDEN}"),
        (r"""([\s"']-u["']?(?:\s{1,3}|,\s{0,3})["']?[^\s"':]{1,200}:)[^\s"',\]]{1,4000}""", rf"\1{HIDDEN}"),
        (rf"((?:[?&;]|%26|%3f)(?:key|sig|auth|pass|pw|sid|sas){_EQUALS}){_VALUE}", rf"\1{HIDDEN}"),
    )
)
_SUSPICIOUS = re.compile(
    r"://|p(?:ass|w)| -u|'-u|s(?:e(?:cret|ssion)|i[gd]|as)|token|key|cred|auth|cookie|jwt|eyj|b(?:earer|asic)|gj[vt]?_"
)
"""Part of whatever a pattern finds, in lower case: searched first, because most texts have none of it."""
_LONGEST = 5000
"""Characters of the longest secret that is recognised by its end, with its name in front."""
_SECRET_NAME = re.compile(rf"(?:.*[-_.])?{_NAME}", re.IGNORECASE)

_of_running: tuple["HiddenTexts", ...] = ()
"""What is hidden in the log while jobs run; replaced as a whole, so that every thread reads one state of it."""
_of_ended: tuple["HiddenTexts", ...] = ()
"""What was hidden while the jobs ran that ended last."""
_changing = threading.Lock()


_FEW = 100
"""Texts of one job of which all spellings are hidden."""
_SHORT = 2000
"""Characters of the longest text of which all spellings are hidden."""
_KEPT = 32
"""Jobs that ended last, whose texts stay hidden: what they have left running may still say something."""
_MOST_KEPT = 100_000
"""Characters of one job's texts, in all spellings, that are kept so."""


class HiddenTexts:
    """Texts that are hidden wherever they stand: as they are, and as URLs, JSON, HTML, code and base64 spell them.

    Of a text with several lines, each line counts too. Texts shorter than ``SHORTEST`` are left out.
    """

    def __init__(self, texts: Iterable[str], shown: str = HIDDEN) -> None:
        """Remember the texts, and what is shown in their place."""
        parts = {part for text in texts for part in (text, *text.splitlines())} - {shown}
        parts = {part for part in parts if len(part) >= SHORTEST}
        found: set[str] = set()
        for part in parts:
            # Of many or of long ones fewer spellings: each is looked for in each line.
            is_thorough = len(parts) <= _FEW and len(part) <= _SHORT
            found |= _spellings(part) if is_thorough else {part, quote(part, safe=""), *_escaped(part)}
        self._spelled = tuple(sorted(found, key=len, reverse=True))
        self._shown = shown

    @property
    def size(self) -> int:
        """The characters of all spellings."""
        return sum(map(len, self._spelled))

    def __bool__(self) -> bool:
        """Return whether there is anything to hide."""
        return bool(self._spelled)

    def hide(self, text: str) -> str:
        """Return the text without them."""
        for spelled in self._spelled:
            if spelled in text:
                text = text.replace(spelled, self._shown)
        return text


@contextmanager
def hidden_in_log(texts: "Iterable[str] | HiddenTexts") -> Iterator[None]:
    """Have these texts hidden in all that this process logs, until the block ends and some others have ended, too."""
    global _of_running, _of_ended  # noqa: PLW0603
    hidden = texts if isinstance(texts, HiddenTexts) else HiddenTexts(texts)
    if not hidden:
        yield
        return
    with _changing:
        _of_running = (*_of_running, hidden)
    try:
        yield
    finally:
        with _changing:
            _of_running = tuple(one for one in _of_running if one is not hidden)
            if hidden.size <= _MOST_KEPT:
                _of_ended = (*_of_ended[1 - _KEPT :], hidden)


_URL_SAFE = str.maketrans("+/", "-_")
_values: set[str] = set()
_known: re.Pattern[str] | None = None


def hide_values(values: Iterable[str]) -> None:
    """Have these values hidden from now on: as they are, and as URLs, JSON, HTML, code and base64 spell them.

    Values shorter than ``SHORTEST`` are left out. Adds to what was given before.
    """
    global _known  # noqa: PLW0603  # what a process knows to be secret grows, once, at its start
    known = len(_values)
    for value in values:
        for text in (value, unquote(value)):
            # A client gives its token before each request.
            if len(text) >= SHORTEST and text not in _values:
                _values.update(_spellings(text))
    if len(_values) > known:
        # The longest first: one value may begin with another.
        listed = "|".join(re.escape(value) for value in sorted(_values, key=len, reverse=True))
        _known = re.compile(listed)


def _spellings(text: str) -> set[str]:
    quoted = {quote(text), quote(text, safe=""), quote_plus(text)}
    quoted |= {re.sub("%..", lambda escape: escape[0].lower(), one) for one in quoted} | {quote(one) for one in quoted}
    found = {text, *quoted, html.escape(text), repr(text)[1:-1], repr(text.encode("utf-8", "replace"))[2:-1]}
    found |= {text.encode("unicode_escape").decode(), text.replace("'", "'\"'\"'")}  # the second as a shell has it
    once = _escaped(text)
    found |= once.union(*map(_escaped, once))  # such as a list in the text of an exception in a list
    body = text.encode("utf-8", "replace")
    for before in range(3):
        # Behind anything, as in ``user:password``, and so without the characters at its ends that bits of others share.
        encoded = base64.b64encode(bytes(before) + body).decode()[(before * 8 + 5) // 6 : (before + len(body)) * 8 // 6]
        found |= {encoded, encoded.translate(_URL_SAFE)}
    return {one for one in found if len(one) >= SHORTEST}


def _escaped(text: str) -> set[str]:
    """Return a text as it stands in what Python or JSON shows of a longer one, whichever quotes are around that."""
    shown = {repr(text)[1:-1], repr(f'{text}"')[1:-2]}
    shown |= {one.replace("\\'", "'") for one in shown}
    return shown | {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}


def names_secret(name: str) -> bool:
    """Return whether what has this name is to be hidden, such as ``api_key`` or ``X-Auth-Token``."""
    return _SECRET_NAME.fullmatch(name[-200:]) is not None


def _redact_line(text: str) -> str:
    for hidden in (*_of_running, *_of_ended):
        text = hidden.hide(text)
    return redact(text)


def redact(text: str) -> str:
    """Return the text with its secrets hidden."""
    if _known is not None:
        text = _known.sub(HIDDEN, text)
    if _SUSPICIOUS.search(text.lower()) is not None:
        for pattern, shown in _PATTERNS:
            text = pattern.sub(shown, text)
    return text


def redact_beginning(text: str, most: int, hide: Callable[[str], str] | None = None) -> str:
    """Return the first ``most`` characters of a text, or fewer, without its secrets, also where one is cut in two.

    :param hide: takes the secrets from a text; None for ``redact``.
    """
    hide = hide or redact
    if len(text) <= most:
        return hide(text)
    # Half a secret is not recognised: more is searched than is shown, and what is next to the cut is never shown.
    searched = hide(text[: most + _LONGEST])
    return searched[: max(min(most, len(searched) - _LONGEST), 0)] if len(text) > most + _LONGEST else searched[:most]


def _redact_end(text: str, most: int) -> str:
    """Return the last ``most`` characters of a text, or fewer, as ``redact_beginning`` does."""
    searched = _redact_line(text[-most - _LONGEST :])
    shown = min(most, len(searched) - _LONGEST)
    return searched[-shown:] if shown > 0 else ""
