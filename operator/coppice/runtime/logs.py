"""One JSON object per line on standard error, with what looks like a secret blacked out."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

_FIELDS: Final = ("kind", "namespace", "object", "reason", "lease", "identity")
"""Extra fields of a record that are printed; any other could be the body of an object."""

_SECRETS: Final = (
    re.compile(r"(?P<keep>://[^/\s:@]*:)[^@\s]+(?=@)"),
    re.compile(r"(?i)(?P<keep>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"),
    re.compile(
        r"""(?ix)(?P<keep>\b[\w-]*(?:password|passwd|secret|token|api[-_]?key)["']?\s*[:=]\s*["']?)[^\s"',;}&]+"""
    ),
    re.compile(r"(?i)(?P<keep>\bidentified\s+(?:with\s+\S+\s+)?by\s+)('[^']*'|\"[^\"]*\")"),
)

_QUIET: Final = ("kopf", "kopf.objects", "kubernetes", "aiohttp", "asyncio", "httpcore")
"""Libraries that print whole objects, requests or credentials at the debug level."""


def redact(text: str) -> str:
    """Return a text without passwords in URIs, authorization headers, and values of fields that sound secret."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\g<keep>***", text)
    return text


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        line |= {name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: str) -> None:
    """Send all logs of the process through the formatter; libraries that tell too much stay at info or above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    # kopf says of each watched object that its handler succeeded, httpx of each request that it was made.
    for name in ("kopf.objects", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
