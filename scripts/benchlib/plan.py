"""How much is measured, and on what."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """A run of the benchmark."""

    accel: str
    guest: Path
    is_quick: bool

    def count(self, usual: int, *, quick: int) -> int:
        """How many samples to take."""
        return quick if self.is_quick else usual

    def seconds(self, usual: float, *, quick: float) -> float:
        """How long to measure one of them."""
        return quick if self.is_quick else usual
