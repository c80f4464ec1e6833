"""Gathers what is known of a run, for the case that it ends unexpectedly."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import psutil

from voidvm.domain.incident import HostPressure, Incident, QmpEvent
from voidvm.domain.states import VmStatus
from voidvm.hypervisor.launch import forget_stderr, stderr_tail
from voidvm.hypervisor.memory_kills import CgroupKills, kernel_log_line
from voidvm.hypervisor.process import Exit, QemuProcess
from voidvm.supervisor import incidents
from voidvm.supervisor.paths import VmPaths
from voidvm.supervisor.reasons import plain_stderr
from voidvm.supervisor.state import VmState

CONSOLE_BYTES: Final = 4096
EVENTS_KEPT: Final = 32
# A QEMU that its guest has taken over may say anything.
EVENT_BYTES: Final = 2048
ARGUMENT_CHARS: Final = 4096
PRESSURE: Final = Path("/proc/pressure")
# From here on a lack of memory is the likely cause of a SIGKILL.
SCARCE_SHARE: Final = 0.05
STALLED_PERCENT: Final = 10.0
_AVERAGE = re.compile(r"^(some|full) avg10=([\d.]+)", re.MULTILINE)


class Evidence:
    """About the present run, or the last."""

    def __init__(self, state: VmState, *, paths: VmPaths) -> None:
        self._state = state
        self._paths = paths
        self._events: deque[QmpEvent] = deque(maxlen=EVENTS_KEPT)
        self._process: QemuProcess | None = None
        self._kills: CgroupKills | None = None

    def begin(self, process: QemuProcess) -> None:
        """A run begins, or was found under way."""
        self._events.clear()
        self._process = process
        self._kills = CgroupKills(process.pid, folder=process.cgroup)

    def end(self) -> None:
        """The run is over: empty the file of QEMU's words, unless there are some for people.

        The next start would have to, and wait half a millisecond for it. It comes before the status
        is written, which on a full disk may need the block.
        """
        text = stderr_tail(self._paths.stderr_log)
        if text and not plain_stderr(text):
            forget_stderr(self._paths.stderr_log, size_bytes=len(text.encode()))

    def event(self, name: str, data: Mapping[str, object]) -> None:
        """QEMU said something."""
        kept: object = dict(data)
        try:
            encoded = msgspec.json.encode(kept)
        except ValueError:  # half a surrogate
            kept = json.dumps(data)[:EVENT_BYTES]
        else:
            if len(encoded) > EVENT_BYTES:
                kept = encoded[:EVENT_BYTES].decode(errors="replace")
        self._events.append(QmpEvent(at=incidents.now(), event=name, data=kept))

    def said(self) -> str:
        """What QEMU wrote to its stderr, for people."""
        return plain_stderr(stderr_tail(self._paths.stderr_log))

    def keep(
        self,
        status: VmStatus,
        reason: str,
        *,
        outcome: Exit,
        console: bytes,
        is_witnessed: bool = True,
    ) -> Incident:
        """Keep all of it; the run has the incident's id when this returns."""
        process = self._process if is_witnessed else None
        host = host_pressure() if is_witnessed else None
        incident = Incident(
            id=incidents.new_id(at := incidents.now()),
            at=at,
            status=status,
            reason=reason,
            exit_status=outcome.status,
            signal=outcome.signal_name,
            out_of_memory=self._lack_of_memory(outcome, host),
            stderr=self.said(),
            qmp_events=list(self._events),
            console=console.decode(errors="replace"),
            command_line=[part[:ARGUMENT_CHARS] for part in process.command] if process else [],
            host=host,
        )
        incidents.write(self._paths.incidents, incident)
        if (run := self._state.run) is not None:
            self._state.run = msgspec.structs.replace(run, incident=incident.id)
        return incident

    def _lack_of_memory(self, outcome: Exit, host: HostPressure | None) -> list[str]:
        found: list[str] = []
        if kills := self._kills.seen() if self._kills else 0:
            found.append(f"memory.events: oom_kill {kills}")
        # Of a process that an earlier service spawned nobody is told how it ended.
        is_sigkill = outcome.signal in {signal.SIGKILL, None} and outcome.status is None
        if is_sigkill and host is not None:
            share = host.memory_available_bytes / max(1, host.memory_total_bytes)
            if share < SCARCE_SHARE:
                found.append(f"ended while {share:.1%} of the host's memory was free")
            if (stalled := host.stalled.get("memory.full", 0.0)) >= STALLED_PERCENT:
                found.append(f"ended while all tasks waited for memory {stalled:g}% of the time")
        return found

    async def ask_kernel(self, incident: Incident) -> None:
        """Add what the kernel's log says of a kill, if it may be read."""
        if self._process is None or incident.signal not in {None, "SIGKILL"}:
            return
        line = await asyncio.to_thread(kernel_log_line, self._process.pid)
        if line is not None:
            found = [line, *incident.out_of_memory]
            told = msgspec.structs.replace(incident, out_of_memory=found)
            incidents.write(self._paths.incidents, told)


def host_pressure() -> HostPressure:
    """How the host is now; a fraction of a millisecond."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    stalled: dict[str, float] = {}
    for resource in ("cpu", "memory", "io"):
        with suppress(OSError):
            text = (PRESSURE / resource).read_text()
            stalled |= {f"{resource}.{who}": float(share) for who, share in _AVERAGE.findall(text)}
    return HostPressure(
        load=[round(value, 2) for value in os.getloadavg()],
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        swap_free_bytes=swap.free,
        stalled=stalled,
    )
