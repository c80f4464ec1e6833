"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.states`; do not edit.
"""

from __future__ import annotations

from typing import Literal

VmStatus = Literal[
    "creating",
    "stopped",
    "starting",
    "running",
    "paused",
    "stopping",
    "suspended",
    "crashed",
    "error",
    "unresponsive",
    "deleting",
]
"""What is known of a VM; set from observations only (QMP events, process exits)."""
