"""A booted guest in few words: its shell, its console, and what QEMU's process looks like."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.contract import Api, Json

PROMPT = "console:/tiny:~# /"
BOOT_TIMEOUT_S = 60
# On a busy host the kernel complains about its clocks, in the middle of what is compared.
QUIET = "dmesg -n 1"

_numbers = itertools.count(1)


def boot(api: Api, vm: str) -> Json:
    """Start a VM and wait for its shell, on whose line only programs speak from then on."""
    api.start(vm)
    booted = wait_for(api, vm, PROMPT, timeout_s=BOOT_TIMEOUT_S)
    shell(api, vm, QUIET)
    return booted


def wait_for(api: Api, vm: str, condition: str, *, timeout_s: float = 20) -> Json:
    """The VM, once the condition of `wait` holds."""
    return api.ok("GET", f"/vms/{vm}/wait", params={"for": condition, "timeout": timeout_s})


def log_of(api: Api, vm: str, *, since: int = 0) -> bytes:
    """The console's history from an offset on."""
    query = {"since": since, "limit": 16 * 1024**2}
    return api.call("GET", f"/vms/{vm}/console/log", params=query).content


def end_of(api: Api, vm: str) -> int:
    """The offset behind the newest byte of the console."""
    answer = api.call("GET", f"/vms/{vm}/console/log", params={"limit": 1})
    return int(answer.headers["x-console-offset"]) + len(answer.content)


def send(api: Api, vm: str, text: str) -> int:
    """Type text; the offset of the console before it."""
    offset: int = api.ok("POST", f"/vms/{vm}/console/send", {"text": text})["offset"]
    return offset


def shell(api: Api, vm: str, command: str, *, timeout_s: float = 20) -> str:
    """What a command prints in the guest's shell; fails unless its status is 0."""
    number = next(_numbers)
    # The quotes keep the echo of the line apart from what the line prints.
    line = f"echo BE''GIN-{number}; {command}; echo EN''D-{number}-$?\n"
    since = send(api, vm, line)
    pattern = re.compile(rf"BEGIN-{number}\r\n(.*?)END-{number}-(\d+)\r\n", re.DOTALL)
    deadline = time.monotonic() + timeout_s
    while not (found := pattern.search(text := log_of(api, vm, since=since).decode("latin-1"))):
        assert time.monotonic() < deadline, f"{command!r} did not end: {text[-300:]!r}"
        time.sleep(0.02)
    assert found[2] == "0", f"{command!r} ended with {found[2]}: {found[1]}"
    return found[1].encode("latin-1").decode(errors="replace").replace("\r\n", "\n").strip()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that hangs for as long as the block lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGCONT)


def is_alive(pid: int) -> bool:
    """Whether there is such a process and it is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def command_line(pid: int) -> list[str]:
    """A process' argument list."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
