"""Reasons of a status in the words of the contract, made from QEMU's words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from voidvm.domain.restart import FATAL, GUEST_SHUTDOWN, HOST_SIGNAL
from voidvm.domain.states import VmStatus
from voidvm.hypervisor.process import Exit

_RUN_STATES = {
    "paused": "host-request",
    "internal-error": "kvm internal error",
    "io-error": "io-error",
    "guest-panicked": "guest-panicked",
    "watchdog": "watchdog",
    "suspended": "guest-suspended",
}
# "2026-11-24T10:00:00.000000Z qemu-system-x86_64: " stands before each line of -msg timestamp=on.
_PREFIX = re.compile(r"^(\S+Z )?qemu-system-x86_64: ", re.MULTILINE)
_PATH = re.compile(r"(?<![\w/])/(?:[\w.@%+-]+/)*([\w.@%+-]+)")


def of_run_state(state: str) -> str:
    """The reason behind a QEMU run state that halts the guest."""
    return _RUN_STATES.get(state, state)


def of_exit(outcome: Exit, *, expected: str | None, before: VmStatus) -> tuple[VmStatus, str]:
    """The status behind an exit and its reason, which is `expected` if the exit was."""
    if expected is not None:
        return VmStatus.CRASHED if expected in FATAL else VmStatus.STOPPED, expected
    if before is VmStatus.STARTING:
        return VmStatus.ERROR, "did not start"
    return VmStatus.CRASHED, str(outcome)


def of_shutdown(data: Mapping[str, object]) -> str:
    """The reason behind QEMU's SHUTDOWN event."""
    if data.get("guest"):
        return GUEST_SHUTDOWN
    return HOST_SIGNAL if data.get("reason") == "host-signal" else "host-request"


def plain_stderr(text: str) -> str:
    """QEMU's words for people: no time stamps, no program name, no paths of ours."""
    lines = (_PATH.sub(r"\1", line) for line in _PREFIX.sub("", text).splitlines())
    kept = [line for line in lines if not line.startswith("char device redirected to")]
    return "\n".join(kept).strip()
