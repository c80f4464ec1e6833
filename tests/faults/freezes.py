"""SIGSTOP: QEMUs and the service itself hang for a while, and go on."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress

from tests.faults.actors import Actor, create, look
from tests.faults.drill import Drill, drill
from tests.faults.kills import crowd
from tests.support.guests import frozen

# What a list may take while VMs hang: generous, for the machine is busy with the drill.
LIST_MAX_S = 5.0


@drill()
def qemus_hang(drill: Drill) -> None:
    reader = Actor(drill, drill.admin, "eve", moves=(look,))
    with drill.acting(*crowd(drill), reader):
        for _ in range(2):
            drill.pause(0.3, 0.8)
            with ExitStack() as stack:
                for pid in drill.dice.sample(pids := sorted(drill.qemus()), len(pids) // 2):
                    drill.note(f"SIGSTOP of QEMU {pid}")
                    # Somebody may have stopped or deleted its VM in this moment.
                    with suppress(ProcessLookupError):
                        stack.enter_context(frozen(pid))
                for _ in range(3):
                    began = time.monotonic()
                    drill.admin.ok("GET", "/vms")
                    assert time.monotonic() - began < LIST_MAX_S
                    drill.pause(0.1, 0.6)
            drill.note("SIGCONT")


@drill()
def the_service_hangs(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        for _ in range(2):
            drill.pause(0.2, 0.8)
            drill.note("SIGSTOP of the service")
            with frozen(drill.service.pid):
                drill.pause(0.2, 1.5)
            drill.note("SIGCONT")
        drill.pause(0.2, 0.5)


@drill()
def a_qemu_hangs_while_the_service_is_killed(drill: Drill) -> None:
    maker = Actor(drill, drill.admin, "ann", moves=(create,))
    with drill.acting(maker):
        drill.pause(0.5, 1.0)
    for vm in drill.admin.ok("GET", "/vms", params={"status": "stopped"})["vms"]:
        drill.admin.start(vm["id"])
    drill.ledger.doubt_power()
    with ExitStack() as stack:
        for pid in drill.dice.sample(pids := sorted(drill.qemus()), (len(pids) + 1) // 2):
            drill.note(f"SIGSTOP of QEMU {pid}")
            stack.enter_context(frozen(pid))
        drill.kill_service()
        drill.start_service()
        began = time.monotonic()
        drill.admin.ok("GET", "/vms")
        assert time.monotonic() - began < LIST_MAX_S
        drill.pause(0.1, 0.5)
