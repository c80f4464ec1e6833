"""The service's log: one line an event on stderr, without secrets."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from voidvm.errors import VoidVMError, of_host

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

AUDIT = "voidvm.audit"


class _OneLine(logging.Formatter):
    """Escapes control characters and indents tracebacks: nobody's input can write a line.

    An error that clients can see, as of a full disk, explains itself and has no traceback; nor has
    what the host lacks, wherever a call of ours met it.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return _printable(super().formatMessage(record).replace("\n", "\\n"))

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - logging's name
        error = ei[1]
        lack = of_host(error) if isinstance(error, OSError) else None
        if isinstance(error, VoidVMError):
            text = str(error)
        else:
            text = f"{lack} {error}" if lack else super().formatException(ei)
        lines = text.split("\n")
        return "\n".join("  " + _printable(line) for line in lines)


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)


def configure(level: str = "INFO") -> None:
    """Log to stderr. Sanic's own chatter is kept to what needs attention."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Entries of the audit log are whole lines of JSON, for programs to pick out.
    entries = logging.StreamHandler(sys.stderr)
    entries.setFormatter(logging.Formatter("%(message)s"))
    audit = logging.getLogger(AUDIT)
    audit.handlers[:] = [entries]
    audit.setLevel(logging.INFO)
    audit.propagate = False
    for noisy in ("sanic.root", "sanic.server", "sanic.access", "sanic.websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for noisy in ("asyncio", "aiosqlite"):
        logging.getLogger(noisy).setLevel(logging.INFO)
