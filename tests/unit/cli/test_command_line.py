"""The command line as a whole: how fast it is there, completion, doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import VOIDVM
from tests.unit.cli.conftest import Cli, checkout
from voidvm.cli.failures import MEANINGS, Exit
from voidvm.cli.output import duration, size

HEAVY = ("sanic", "aiosqlite", "httpx", "websockets", "uvloop", "qemu", "argon2", "jwt", "asyncio")


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys; from voidvm.cli import main; main(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "console" in done.stdout


def test_a_call_imports_nothing_of_the_command_line_of_httpx() -> None:
    code = (
        "import sys; from voidvm.cli import main; main(['vm', 'ls', '--url', 'http://127.0.0.1:9'])"
        "\nprint('httpx' in sys.modules, 'click' in sys.modules, 'pygments' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False False\n", done.stderr


def test_it_is_a_module_of_python_too_and_collects_garbage_again() -> None:
    wrong = subprocess.run(
        [sys.executable, "-m", "voidvm", "vm", "jump"], capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stdout) == (Exit.USAGE, "")
    assert "jump" in wrong.stderr
    code = (
        "import gc; from voidvm import cli; from voidvm.__main__ import run\n"
        "cli.main = lambda: print(gc.isenabled(), gc.get_freeze_count() > 10_000)\n"
        "run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_harm_nobody(closed: str, tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **checkout()}
    for command, status in (("--version", 0), ("vm ls --url http://127.0.0.1:9", Exit.UNREACHABLE)):
        done = subprocess.run(
            ["bash", "-c", f"{VOIDVM} {command} {closed}"],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status
        assert "Traceback" not in done.stderr


def test_help_explains_every_exit_status(run: Cli) -> None:
    text = " ".join(run("--help").out.split())
    assert all(f"{status:d} {MEANINGS[status]}" in text for status in Exit)


def test_completion_is_installed_for_bash(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SHELL": "/bin/bash"}
    environ |= checkout()
    # From a shell, as whose child it finds out which one that is.
    command = ["bash", "-c", f"{VOIDVM} --install-completion bash; exit $?"]
    subprocess.run(command, env=environ, capture_output=True, check=True)
    script = tmp_path / ".bash_completions" / "voidvm.sh"
    assert "_VOIDVM_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


def test_doctor_makes_no_directory_and_says_what_to_do(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOIDVM_QEMU__BINARY", "qemu-of-nobody")
    monkeypatch.setenv("VOIDVM_SERVER__PORT", "0")
    done = run("doctor")
    assert done.status == 1
    lines = done.out.splitlines()
    place = next(
        number for number, line in enumerate(lines) if line.split()[:2] == ["fail", "qemu"]
    )
    assert lines[place].endswith("qemu-of-nobody is not installed")
    assert lines[place + 1].strip() == "→ install it: apt-get install qemu-system-x86"
    assert "mend the failures first" in done.err
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "run").exists()


def test_doctor_speaks_json(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOIDVM_SERVER__PORT", "0")
    done = run("doctor", "--json")
    report = json.loads(done.out)
    assert (done.status == 1) is (report["verdict"] == "fail")
    assert {"qemu", "kvm", "tcg", "sqlite"} <= {check["name"] for check in report["checks"]}
    assert all(check["advice"] for check in report["checks"] if check["verdict"] != "ok")


def test_a_wrong_setting_is_a_mistake_of_usage(run: Cli, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[server]\nprot = 3000\n")
    done = run("doctor", "--config", str(config))
    assert done.status == 2
    assert "did you mean 'port'?" in done.err


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, None), (59, "59s"), (61, "1m 1s"), (7300, "2h 1m"), (2e5, "2d 7h")]
)
def test_durations_have_two_units(seconds: float | None, text: str | None) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**50, "1024.0 TiB")]
)
def test_sizes_have_the_unit_that_people_read(count: int, text: str) -> None:
    assert size(count) == text
