"""Guests that go on from a shell where another has booted to it: seconds of a core less for each.

A service gets a program in the place of QEMU that runs QEMU with `-incoming` and the state of the
guest that was booted with the same hardware, or as it is told where there is none. From there on
all is as ever: a reset boots, a power-off ends it. Disks must be as large as the booted one's, and
a card has its address in the guest, whatever its VM was made with: where it counts, make it `MAC`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support.contract import Api, Json
from tests.support.guests import boot, command_line, send, shell, wait_for
from tests.support.service import Service, eventually

# Names the folder to all processes of one run of the tests.
VARIABLE = "VOIDVM_TEST_WARM"
MAC = "52:54:00:77:61:72"
# What differs between two VMs with the same hardware.
_PROGRAM = r"""#!/bin/sh
# In the place of QEMU (tests/support/warm_guests.py); --key tells what states are named by.
[ "$1" != --key ] || { shift; only_key=yes; }
key=$(printf '%s\n' "$@" | sed -E \
    -e '/^fd=[0-9]+,set=/d' -e 's/,fd=[0-9]+,/,/' -e 's/^guest=vm-[^,]*//' \
    -e 's/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$//' \
    -e 's/"mac":"[0-9a-f:]*"//' -e 's/,"hostfwd":\[[^]]*\]//' -e 's/,"restrict":[a-z]*//' |
    cksum | tr ' ' -)
[ -z "$only_key" ] || { echo "$key"; exit; }
state=${0%/*}/$key
[ ! -r "$state" ] || exec QEMU "$@" -incoming fd:0 <"$state"
# Else the state says that it was halted, and so would be whoever begins with it.
exec QEMU "$@" -global migration.store-global-state=off
"""


def folder() -> Path:
    """Where the states of this run of the tests are; everybody may read them, as QEMU's user."""
    return Path(os.environ[VARIABLE])


def open_folder() -> None:
    """Make the folder, for this process and those that it begins."""
    made = Path(tempfile.mkdtemp(prefix="vv-"))
    made.chmod(0o755)
    os.environ[VARIABLE] = str(made)


def remove_folder() -> None:
    """Remove it with all states."""
    shutil.rmtree(os.environ.pop(VARIABLE), ignore_errors=True)


def settings(guest: Path) -> dict[str, str]:
    """What makes a service use warm guests; the first caller boots the one they begin as."""
    program = folder() / "qemu-system-x86_64"
    # Whoever comes meanwhile waits for the state.
    with (folder() / "lock").open("w") as lock:
        os.lockf(lock.fileno(), os.F_LOCK, 0)
        if not program.exists():
            real = shutil.which(program.name)
            assert real is not None
            program.write_text(_PROGRAM.replace("QEMU", real))
            program.chmod(0o755)
            _boot(guest, program)
    return {"VOIDVM_QEMU__BINARY": str(program)}


def _boot(guest: Path, program: Path) -> None:
    service = Service(VOIDVM_QEMU__BINARY=str(program))
    try:
        service.add_guest(guest)
        service.start()
        api = service.api()
        vm = api.create("warm", networks=[{"mac": MAC}])["id"]
        boot(api, vm)
        _settle(api, vm)
        # It goes on with a new prompt.
        api.ok("POST", f"/vms/{vm}/pause")
        send(api, vm, "\n")
        # Its monitor has one place only.
        service.kill()
        [pid] = service.qemus()
        # Without the program's own addition.
        wanted = command_line(pid)[1:-2]
        key = subprocess.check_output([program, "--key", *wanted], text=True)
        _save(service.run / vm / "qmp", program.with_name(key.strip()))
    finally:
        service.close()


def _settle(api: Api, vm: str) -> None:
    """Wait for what comes after the shell: late drivers, an address, the agent."""
    wait_for(api, vm, "agent", timeout_s=30)
    wait_for(api, vm, "ip", timeout_s=30)
    eventually(
        lambda: "insmod" not in shell(api, vm, "ps") and "sr0" in shell(api, vm, "ls /dev"),
        timeout_s=40,
    )


def _save(monitor: Path, target: Path) -> None:
    """Write down all of a guest that is halted; its QEMU ends."""
    with socket.socket(socket.AF_UNIX) as line, line.makefile() as words:
        line.settimeout(30)
        line.connect(str(monitor))

        def ask(command: str, *, descriptor: int | None = None, **arguments: Json) -> Json:
            message = json.dumps({"execute": command, "arguments": arguments}).encode()
            if descriptor is None:
                line.sendall(message)
            else:
                socket.send_fds(line, [message], [descriptor])
            while "return" not in (answer := json.loads(words.readline())):
                assert "error" not in answer, answer
            return answer["return"]

        ask("qmp_capabilities")
        temporary = target.with_suffix(".new")
        with temporary.open("wb") as file:
            ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
            ask("getfd", descriptor=file.fileno(), fdname="state")
            ask("migrate", uri="fd:state")
        eventually(lambda: ask("query-migrate")["status"] == "completed", timeout_s=30)
        temporary.chmod(0o644)
        temporary.rename(target)
        ask("quit")
