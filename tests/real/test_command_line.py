"""The command line as people and programs use it: in a terminal, in pipes, on real QEMUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.meta.tty import Tty
from tests.real.conftest import NewVm
from tests.support import warm
from tests.support.contract import Api
from tests.support.service import PASSWORD, VOIDVM, Service, eventually

ALTERNATE_SCREEN = "\x1b[?1049h"
MAIN_SCREEN = "\x1b[?1049l"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that measures every second, and that the command line is signed in to."""
    service = Service(VOIDVM_METRICS__INTERVAL="1", TERM="xterm")
    try:
        service.start()
        done = service.command("login", VOIDVM_PASSWORD=PASSWORD)
        assert done.returncode == 0, done.stderr
        yield service
    finally:
        service.close()


def environ(service: Service, **extra: str) -> dict[str, str]:
    return service.environ | {"VOIDVM_URL": service.url} | extra


def out(service: Service, *arguments: str) -> str:
    done = service.command(*arguments)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


def test_top_has_what_the_vms_use(service: Service, api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm(memory=64)["id"])["name"]
    [round_] = [json.loads(line) for line in out(service, "top", "--once", "--json").splitlines()]
    [found] = [one for one in round_["vms"] if one["name"] == vm]
    assert found["memory"]["limitBytes"] == 64 * 1024**2
    assert 0 <= found["cpu"]["percent"] <= 100
    tables = out(service, "top", "--count", "2", "--sort", "memory").split("\n\n")
    assert len(tables) == 2
    assert all(f"\n{vm} " in table for table in tables)
    assert "\x1b" not in "".join(tables)


def test_top_stays_on_the_terminal_and_obeys_keys(
    service: Service, api: Api, new_vm: NewVm, tmp_path: Path
) -> None:
    on, off = api.start(new_vm()["id"])["name"], new_vm()["name"]
    with Tty([str(VOIDVM), "top"], env=environ(service), cwd=tmp_path) as tty:
        place = tty.until(ALTERNATE_SCREEN)
        place = tty.until(on, after=place)
        place = tty.until("CPU ▼", after=place)
        tty.press("m")
        place = tty.until("MEMORY ▼", after=place)
        tty.press("ra")
        place = tty.until("MEMORY ▲", after=place)
        tty.until(off, after=place)
        tty.press("q")
        assert tty.wait() == 0, tty.seen
    assert tty.seen.index(MAIN_SCREEN) > tty.seen.index(ALTERNATE_SCREEN)


def test_top_without_colours(service: Service, new_vm: NewVm, api: Api, tmp_path: Path) -> None:
    vm = api.start(new_vm()["id"])["name"]
    with Tty([str(VOIDVM), "top"], env=environ(service, NO_COLOR="1"), cwd=tmp_path) as tty:
        tty.until(vm)
        os.kill(tty.process.pid, signal.SIGINT)
        assert tty.wait() == 130
    assert "\x1b[32m" not in tty.seen
    assert tty.seen.rindex("\x1b[?25h") > tty.seen.rindex("\x1b[?25l"), "the cursor is back"
    assert "Traceback" not in tty.seen


@pytest.mark.parametrize(
    "arguments",
    [
        ("top", "--json"),
        ("events",),
        ("vm", "wait", "{vm}", "console:/never/"),
        ("vm", "stop", "{vm}", "{other}", "--timeout", "60"),
        ("vm", "logs", "{vm}", "--follow"),
        ("api", "GET", "/events/stream"),
    ],
    ids=" ".join,
)
def test_ctrl_c_ends_it_at_once_and_quietly(
    service: Service, api: Api, new_vm: NewVm, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    # Without a system nobody hears the power button.
    names = {key: api.start(new_vm()["id"])["name"] for key in ("vm", "other")}
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = warm.start(
            *(one.format(**names) for one in arguments),
            environ=environ(service),
            stdout=out.fileno(),
            stderr=err.fileno(),
        )
    try:
        # It speaks with the service by then.
        eventually(psutil.Process(process.pid).net_connections, timeout_s=30)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "err").read_text()
    # A console that is only read is left by Ctrl-C, too.
    assert status in ({0, 130} if "logs" in arguments else {130})
    assert "Traceback" not in said
    assert "error" not in said


@pytest.mark.parametrize("command", ["top", "events --last 200 --no-follow", "vm ls", "metrics"])
def test_a_reader_that_has_seen_enough_ends_it_quietly(
    service: Service, api: Api, new_vm: NewVm, command: str
) -> None:
    api.start(new_vm()["id"])
    done = subprocess.run(
        ["bash", "-c", f"{VOIDVM} {command} | head -n 1"],
        env=environ(service),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


def test_deleting_asks_the_one_at_the_terminal(
    service: Service, api: Api, new_vm: NewVm, tmp_path: Path
) -> None:
    vm = new_vm()["name"]
    command = [str(VOIDVM), "vm", "rm", vm]
    for answer, status in (("n", 1), ("y", 0)):
        with Tty(command, env=environ(service), cwd=tmp_path) as tty:
            tty.until(f"Delete VM '{vm}' with its disks? [y/N]: ")
            tty.press(f"{answer}\r")
            assert tty.wait() == status, tty.seen
    assert api.refused("GET", f"/vms/{vm}", "VM_NOT_FOUND")


def test_a_remote_host_by_its_address_and_a_token(service: Service, tmp_path: Path) -> None:
    secret = out(service, "token", "create", "remote", "--permission", "vm:read").strip()
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    bare = {**kept, "HOME": str(tmp_path)}
    command = ("vm", "ls", "--json", "--url", service.url, "--token", secret)
    done = warm.run(*command, environ=bare, timeout_s=60)
    assert isinstance(json.loads(done.stdout), list)
    assert not list(tmp_path.rglob("contexts.json")), "nothing is remembered"
