"""All drills: importing a family registers its drills."""

from __future__ import annotations

from tests.faults import clients, files, freezes, host, kills, limits, rubbish, space
from tests.faults.drill import DRILLS

FAMILIES = (kills, freezes, space, files, limits, host, clients, rubbish)

__all__ = ["DRILLS", "FAMILIES"]
