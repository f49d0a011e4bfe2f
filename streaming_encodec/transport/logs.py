"""Logs of the relay, one JSON object a line. Tokens and sound never appear."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

logger = logging.getLogger("streaming_encodec.transport")

_QUIET_S = 60.0
_MOST_CAUSES = 256


def event(name: str, level: int = logging.INFO, *, cause: str | None = None, **fields: Any) -> None:
    """Log an event with its fields.

    cause: for events that strangers can bring about as often as they like: `OncePerMinute` lets one line of a cause
    through.
    """
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={"fields": fields, "cause": cause and f"{name} {cause}"})


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the event loop has to complain of, as an event; for `loop.set_exception_handler`."""
    error = context.get("exception")
    message = str(context.get("message") or "unhandled exception in the event loop")
    logger.error(
        "loop_error",
        exc_info=error if isinstance(error, BaseException) else None,
        extra={"fields": {"message": message}, "cause": f"loop {message} {type(error).__name__}"},
    )


def failure(where: str) -> None:
    """Log the exception that is handled now: a fault of the relay's own."""
    logger.exception("failed", extra={"fields": {"where": where}, "cause": f"failed {where}"})


class OncePerMinute(logging.Filter):
    """Lets one line a minute through for each cause; the next one says how many were `left_out`.

    A record's cause is what `event` was given. The relay's other events all pass. A warning or error
    of a library has its logger, its level and its message, before the arguments are put in, for a cause.
    """

    def __init__(self) -> None:
        super().__init__()
        self._causes: dict[str, tuple[float, int]] = {}  # when a line was let through, and how many were not since

    def filter(self, record: logging.LogRecord) -> bool:
        cause = self._cause(record)
        if cause is None:
            return True
        then, left_out = self._causes.get(cause, (None, 0))
        if then is not None and 0 <= record.created - then < _QUIET_S:
            self._causes[cause] = (then, left_out + 1)
            return False
        self._causes.pop(cause, None)
        if len(self._causes) >= _MOST_CAUSES:
            del self._causes[next(iter(self._causes))]  # the one that was let through longest ago
        self._causes[cause] = (record.created, 0)
        record.left_out = left_out
        return True

    def _cause(self, record: logging.LogRecord) -> str | None:
        if hasattr(record, "cause"):
            cause: str | None = record.cause
            return cause
        if record.levelno < logging.WARNING:
            return None  # logged only on request
        return f"{record.name} {record.levelno} {record.msg}"


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": …, "event": …, …}`: time in UTC, RFC 3339."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        values |= getattr(record, "fields", {})
        if left_out := getattr(record, "left_out", 0):
            values["left_out"] = left_out
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=True, default=str)
