"""Every command of the README, run as it stands there; only port, folders and patience differ."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.meta.sources import ROOT
from tests.meta.tty import Tty
from tests.support import warm_guests
from tests.support.local import free_port
from tests.support.service import NO_TLS, Service, eventually

ADDRESS = "127.0.0.1:3000"
CTRL_BRACKET = "\x1d"
PROMPT = "tiny:~# "
# Installing may be part of it, on a machine where nothing is there yet.
SET_UP_S = 240
AGAIN_S = 15

# What each test below runs; the rest of the README's commands is the quick start.
SCRIPTS = {"scripts/run", "scripts/test", "scripts/run --demo", "scripts/run --stop"}


def blocks() -> list[str]:
    """The README's shell blocks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def python_blocks() -> list[str]:
    """The README's examples of the Python client."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def script_lines() -> list[str]:
    """The commands that call our scripts, without the remarks behind them."""
    lines = [line for block in blocks() for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.startswith("scripts/")]


def quick_start() -> str:
    """All other blocks, in their order."""
    return "".join(block for block in blocks() if not block.startswith("scripts/"))


def newcomer(port: int, guest: Path) -> Service:
    """Folders, and an environment that leads `scripts/run` there instead of /var/lib.

    VMs with one CPU and 256 MiB begin at a shell; that of the quick start boots.
    """
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    warm = warm_guests.settings(guest)
    return Service(VOIDVM_SERVER__PORT=str(port), TERM="xterm", **warm, **pip)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False, verify=NO_TLS).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def served(guest: Path) -> Iterator[Service]:
    """`scripts/run`, as a newcomer leaves it running."""
    port = free_port()
    service = newcomer(port, guest)
    try:
        with service.log.open("wb") as log:
            service.process = subprocess.Popen(
                ["scripts/run"],
                cwd=ROOT,
                env=service.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        service.url = f"http://127.0.0.1:{port}"
        process = service.process

        def is_up() -> bool:
            assert process.poll() is None, service.log.read_text()
            return answers(service.url)

        eventually(is_up, timeout_s=SET_UP_S)
        yield service
    finally:
        service.close()


def test_every_command_of_the_readme_is_run_here() -> None:
    assert set(script_lines()) == SCRIPTS
    assert all(
        line.startswith("scripts/")
        for block in blocks()
        if block.startswith("scripts/")
        for line in block.splitlines()
    )
    assert quick_start().count(ADDRESS) == 2


@pytest.mark.guest
@pytest.mark.timeout(SET_UP_S + 60)
def test_scripts_run_says_where_it_serves_and_what_to_try(served: Service) -> None:
    text = served.log.read_text()
    assert served.url in text
    assert "'admin' with 'admin123'" in text
    assert len(re.findall(r"^  \S*voidvm ", text, re.MULTILINE)) == 3


@pytest.mark.guest
@pytest.mark.timeout(SET_UP_S + 240)
def test_the_quick_start_works_word_for_word(served: Service) -> None:
    script = quick_start().replace(ADDRESS, served.url.removeprefix("http://"))
    # An answer that is an error must end the script, which the README's `curl -s` would not do.
    checked = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'
    file = served.folder / "quick-start.sh"
    file.write_text(checked + script)
    env = served.environ | {"VOIDVM_URL": served.url}
    with Tty(["bash", str(file)], env=env, cwd=ROOT) as tty:
        place = tty.until("GNU/Linux", timeout_s=120)
        # The console: what was typed by the client before is its history, so a new line is asked.
        place = tty.until(PROMPT, after=place)
        tty.press("echo here I $((40 + 2)) am\r")
        tty.until("here I 42 am", after=place)
        tty.press(CTRL_BRACKET)
        status = tty.wait(timeout_s=120)
    assert status == 0, tty.seen
    assert '"running"' in tty.seen
    assert '"stopped"' in tty.seen
    assert '"VM deleted."' in tty.seen
    assert served.api().ok("GET", "/vms")["vms"] == []
    assert served.qemus() == []


@pytest.mark.guest
@pytest.mark.timeout(SET_UP_S + 120)
def test_the_python_client_works_word_for_word(served: Service) -> None:
    first, second = python_blocks()
    assert "localhost:3000" in first
    token = served.api().token
    assert token is not None
    address = served.url.removeprefix("http://")
    first = first.replace("localhost:3000", address).replace("your-jwt-token", token)
    done = subprocess.run(
        [sys.executable, "-c", first + second],
        env=served.environ | {"VOIDVM_URL": served.url},
        cwd=served.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert "Linux tiny" in done.stdout
    assert "VM_ALREADY_RUNNING" in done.stdout
    assert "is stopped." in done.stdout
    assert served.api().ok("GET", "/vms")["vms"] == []


@pytest.mark.guest
@pytest.mark.timeout(SET_UP_S + 60)
def test_a_second_run_takes_seconds_and_finds_the_first(served: Service) -> None:
    start = time.monotonic()
    done = subprocess.run(
        ["scripts/run"],
        cwd=ROOT,
        env=served.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "serves there already" in done.stdout
    assert "installing" not in done.stdout
    assert time.monotonic() - start < AGAIN_S


@pytest.mark.guest
@pytest.mark.timeout(SET_UP_S + 180)
def test_the_demo_ends_at_a_console_and_leaves_vm_and_service_running(guest: Path) -> None:
    service = newcomer(free_port(), guest)
    url = f"http://127.0.0.1:{service.settings['VOIDVM_SERVER__PORT']}"
    env = service.environ
    try:
        for is_first in (True, False):
            with Tty(["scripts/run", "--demo"], env=env, cwd=ROOT) as tty:
                place = tty.until("Ctrl-] leaves", timeout_s=SET_UP_S)
                place = tty.until(PROMPT, after=place, timeout_s=90)
                tty.press("echo $((6 * 7)) answers\r")
                tty.until("42 answers", after=place)
                tty.press(CTRL_BRACKET)
                assert tty.wait() == 0, tty.seen
            assert "The VM goes on, and so does the service." in tty.seen
            assert ("using the VoidVM" in tty.seen) is not is_first
            assert answers(url)
            assert len(service.qemus()) == 1
        stopped = subprocess.run(
            ["scripts/run", "--stop"], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        assert "1 VMs keep running" in stopped.stdout
        assert not answers(url)
        assert len(service.qemus()) == 1
    finally:
        subprocess.run(
            ["scripts/run", "--stop"], cwd=ROOT, env=env, capture_output=True, check=False
        )
        service.close()


def test_scripts_test_is_what_ran_this() -> None:
    # It cannot run inside itself. That it works is seen from outside: CI calls it and nothing
    # else, which test_repository.py checks, and its end is pytest's own.
    last = (ROOT / "scripts" / "test").read_text().replace("\\\n", "").splitlines()[-1]
    assert last.startswith('exec "$VENV/bin/python" -m pytest')


def test_run_refuses_what_it_does_not_know() -> None:
    done = subprocess.run(
        ["scripts/run", "--prot", "1"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "--help" in done.stderr
