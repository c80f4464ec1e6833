"""The host and the service itself."""

from __future__ import annotations

import time

from voidvm import __version__
from voidvm.domain.health import Health
from voidvm.supervisor.fleet import Fleet


class Host:
    """What can be said of the whole."""

    def __init__(self, *, fleet: Fleet) -> None:
        self._fleet = fleet
        self._started = time.monotonic()

    def health(self) -> Health:
        """Whether the service works; cheap, and without secrets."""
        return Health(
            status="ok",
            version=__version__,
            uptime=round(time.monotonic() - self._started, 3),
        )
