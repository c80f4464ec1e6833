"""What QEMU's user-mode network knows of its connections."""

from __future__ import annotations

import re

# `info usernet` has no QMP form in 7.2. A connection that came through a forward is listed with
# the forward's own port on the host, whatever port the client had:
# "  TCP[ESTABLISHED]  21  127.0.0.1 41309 10.0.2.15 22 0 0".
_TCP_LINE = re.compile(r"^\s*TCP\[(\w+)\]\s+(\d+)\s+\S+\s+(\d+)\s", re.MULTILINE)


def established(info: str, *, host_port: int) -> frozenset[int]:
    """QEMU's descriptors of the connections through a forward that the guest has taken.

    The host's side of a forward accepts at once, whoever listens in the guest, so a successful
    `connect` alone proves nothing.
    """
    return frozenset(
        int(fd)
        for state, fd, port in _TCP_LINE.findall(info)
        if state == "ESTABLISHED" and int(port) == host_port
    )
