"""What VMs and the host use, now and in the past."""

from __future__ import annotations

from voidvm.bus import Sampled
from voidvm.supervisor.metrics import Sampler


class Metrics:
    """The newest measurements, and the history of them."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    @property
    def interval_s(self) -> float:
        """The time between two rounds."""
        return self._sampler.interval_s

    @property
    def latest(self) -> Sampled | None:
        """The newest round; None before the first."""
        return self._sampler.latest

    def start(self) -> None:
        """Measure from now on."""
        self._sampler.start()

    async def close(self) -> None:
        """Measure no more."""
        await self._sampler.close()
