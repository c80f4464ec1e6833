"""The service's log: one line an event on stderr, without secrets."""

from __future__ import annotations

import logging
import sys

AUDIT = "voidvm.audit"


class _OneLine(logging.Formatter):
    """Escapes control characters, so that nobody's input can write a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        head, *rest = text.split("\n") if record.exc_info else [text.replace("\n", "\\n")]
        lines = [head, *rest]
        return "\n".join(
            "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)
            for line in lines
        )


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
