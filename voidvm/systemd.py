"""What the service tells systemd, where that has started it (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress


class Notifier:
    """Says `ready`, `stopping` and, as long as the event loop turns, that all is well.

    The variables are taken out of the environment: no child shall speak for the service. Without
    systemd nothing is said.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = environ.pop("NOTIFY_SOCKET", "")
        wanted_us = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        is_for_us = pid in {"", str(os.getpid())}
        # Half of it, as sd_watchdog_enabled(3) advises.
        self.watchdog_s = int(wanted_us) / 2e6 if wanted_us.isdecimal() and is_for_us else 0.0

    def tell(self, *lines: str) -> None:
        """Send one message. What systemd does not take is lost: it may be no reason to fail."""
        if not self._address:
            return
        # "@" stands for the zero byte of the abstract name space.
        address = self._address.replace("@", "\0", 1)
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with socket.socket(socket.AF_UNIX, kind) as line, suppress(OSError):
            line.sendto("\n".join(lines).encode(), address)

    @asynccontextmanager
    async def serving(self, status: str) -> AsyncIterator[None]:
        """It is ready at the beginning of the block and stops at its end."""
        self.tell("READY=1", f"STATUS={status}")
        beating = asyncio.create_task(self._beat(), name="watchdog") if self.watchdog_s else None
        try:
            yield
        finally:
            # The beats end with the block: what follows has systemd's TimeoutStopSec.
            self.tell("STOPPING=1", "STATUS=stopping")
            if beating is not None:
                beating.cancel()

    async def _beat(self) -> None:
        while True:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s)
