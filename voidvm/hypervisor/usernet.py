"""What QEMU's user-mode network knows of its connections."""

from __future__ import annotations

import re

# `info usernet` has no QMP form in 7.2. A line:
# "  TCP[ESTABLISHED]  21  10.0.2.2 41234 10.0.2.15 22 0 0".
_TCP_LINE = re.compile(r"^\s*TCP\[(\w+)\]\s+\d+\s+\S+\s+(\d+)\s", re.MULTILINE)


def is_established(info: str, *, source_port: int) -> bool:
    """Whether the guest has taken the connection that came from this port of the host.

    The host's side of a forward accepts at once, whoever listens in the guest, so a successful
    `connect` alone proves nothing.
    """
    return any(
        state == "ESTABLISHED" and int(port) == source_port
        for state, port in _TCP_LINE.findall(info)
    )
