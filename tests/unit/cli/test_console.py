"""`voidvm console` in a real terminal or pipe, on a service with fake QEMUs."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.qemu import FakeQemu
from tests.meta.tty import Tty
from tests.support import warm
from tests.support.contract import Api
from tests.support.local import LocalService, restartable
from tests.support.service import VOIDVM, eventually

LEAVE = "\x1d"
PATIENCE_S = 20


@pytest.fixture
def tty(environ: dict[str, str], running: str, tmp_path: Path) -> Iterator[Tty]:
    """A terminal that is attached to a running VM."""
    with _attached(environ, running, tmp_path) as tty:
        yield tty


@pytest.fixture
def own() -> Iterator[LocalService]:
    """A service that a test may stop and start."""
    service = restartable()
    try:
        service.start()
        yield service
    finally:
        service.close()


def _attached(environ: dict[str, str], vm: str, folder: Path, *options: str) -> Tty:
    tty = Tty([str(VOIDVM), "console", vm, *options], env=environ, cwd=folder)
    tty.until(f"Connected to '{vm}'", timeout_s=PATIENCE_S)
    return tty


def _is_raw(tty: Tty) -> bool:
    return not termios.tcgetattr(tty._master)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)


def _say(local: LocalService, qemu: FakeQemu, data: bytes) -> None:
    local.do(lambda: qemu.say(data))


def _pipe(
    environ: dict[str, str], vm: str, *options: str, given: bytes = b""
) -> subprocess.CompletedProcess[str]:
    command = ("console", vm, *options)
    return warm.run(*command, environ=environ, timeout_s=PATIENCE_S, given=given)


def test_keys_are_passed_at_once_and_unchanged(tty: Tty, qemu: FakeQemu) -> None:
    tty.until("fake guest")
    eventually(lambda: _is_raw(tty))
    tty.press("a\x03\x1a\x04\r")
    eventually(lambda: qemu.typed == b"a\x03\x1a\x04\r")
    assert tty.process.poll() is None


def test_the_key_that_leaves_gives_the_terminal_back(tty: Tty, qemu: FakeQemu, vm: str) -> None:
    tty.until("Ctrl-] leaves.")
    eventually(lambda: _is_raw(tty))
    tty.press(f"last words{LEAVE}not these")
    assert tty.wait(timeout_s=PATIENCE_S) == 0
    assert not _is_raw(tty)
    assert qemu.typed == b"last words"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(tty: Tty, number: signal.Signals) -> None:
    eventually(lambda: _is_raw(tty))
    tty.process.send_signal(number)
    assert tty.wait(timeout_s=PATIENCE_S) == 128 + number
    assert not _is_raw(tty)


def test_a_stop_and_a_continuation_leave_it_raw(tty: Tty, vm: str) -> None:
    eventually(lambda: _is_raw(tty))
    cooked = termios.tcgetattr(tty._master)
    cooked[3] |= termios.ICANON | termios.ECHO | termios.ISIG
    tty.process.send_signal(signal.SIGSTOP)
    termios.tcsetattr(tty._master, termios.TCSANOW, cooked)  # as the shell does
    tty.process.send_signal(signal.SIGCONT)
    eventually(lambda: _is_raw(tty))


def test_the_vms_deletion_ends_it_with_a_message(tty: Tty, api: Api, running: str) -> None:
    eventually(lambda: _is_raw(tty))
    api.remove(running)
    assert tty.wait(timeout_s=PATIENCE_S) == 3
    assert tty.seen.rstrip().endswith(f"error: '{running}' was deleted")
    assert not _is_raw(tty)


def test_the_sessions_end_ends_it(
    environ: dict[str, str], local: LocalService, running: str, tmp_path: Path
) -> None:
    somebody = local.api()
    assert somebody.token is not None
    with _attached(environ | {"VOIDVM_TOKEN": somebody.token}, running, tmp_path) as tty:
        somebody.ok("POST", "/auth/logout", {})
        assert tty.wait(timeout_s=PATIENCE_S) == 4
        assert "the session was ended" in tty.seen


def test_read_only_types_nothing_and_ctrl_c_leaves(
    environ: dict[str, str], running: str, qemu: FakeQemu, tmp_path: Path
) -> None:
    with _attached(environ, running, tmp_path, "--read-only") as tty:
        tty.until("for reading")
        eventually(lambda: _is_raw(tty))
        tty.press("rm -rf /\r")
        tty.press("\x03")
        assert tty.wait(timeout_s=PATIENCE_S) == 0
        assert qemu.typed == b""


def test_a_vm_that_is_off_is_said_to_be_and_its_start_is_seen(
    environ: dict[str, str], api: Api, vm: str, tmp_path: Path
) -> None:
    with _attached(environ, vm, tmp_path) as tty:
        tty.until(f"'{vm}' is stopped: what it writes appears here")
        api.start(vm)
        place = tty.until(f"'{vm}' is running.")
        tty.until("fake guest")
        api.stop(vm)
        tty.until(f"'{vm}' is stopped.", after=place)


def test_a_new_service_goes_on_at_the_byte_where_the_old_one_ended(
    own: LocalService, tmp_path: Path
) -> None:
    api = own.api()
    vm_id = api.ok("POST", "/vms", {"name": "demo", "memory": 128, "disk": 1, "start": True})["id"]
    assert api.token is not None
    assert own.host is not None
    environ = {"PATH": os.environ["PATH"], "VOIDVM_URL": own.url, "VOIDVM_TOKEN": api.token}
    with _attached(environ | {"HOME": str(tmp_path)}, "demo", tmp_path) as tty:
        _restart(own, own.host.alive()[vm_id], tty)


def _restart(local: LocalService, qemu: FakeQemu, tty: Tty) -> None:
    for number in range(200):
        _say(local, qemu, b"<%d>" % number)
    tty.until("<199>")
    local.stop()
    tty.until("The connection broke", timeout_s=PATIENCE_S)
    tty.press("typed while away")
    local.start()
    for number in range(200, 400):
        _say(local, qemu, b"<%d>" % number)
    tty.until("Connected again.", timeout_s=PATIENCE_S)
    tty.until("<399>")
    assert re.findall(r"<(\d+)>", tty.seen) == [str(number) for number in range(400)]
    eventually(lambda: qemu.typed == b"typed while away")


def test_history_that_is_gone_is_said_to_be(
    environ: dict[str, str], local: LocalService, qemu: FakeQemu, running: str, tmp_path: Path
) -> None:
    for _ in range(20):
        _say(local, qemu, b"x" * 19_999 + b"\n")
    fleet = local.fleet

    def is_cut() -> bool:
        return local.do(lambda: fleet.get(qemu.guest.vm_id).console.first) > 0

    eventually(is_cut)
    done = _pipe(environ, running, "--since", "0", "--read-only", "--timeout", "1")
    assert "bytes are missing here: they are no longer kept" in done.stderr
    assert done.stdout


def test_a_guests_questions_to_its_terminal_are_not_asked_again(
    environ: dict[str, str], local: LocalService, qemu: FakeQemu, running: str, tmp_path: Path
) -> None:
    _say(local, qemu, b"old\x1b[6n\x1b[5n\x1b[c\x1b[?6n prompt\x1b[31m")
    with _attached(environ, running, tmp_path) as tty:
        tty.until("old prompt\x1b[31m")
        time.sleep(0.3)  # what comes later is no history
        _say(local, qemu, b"new\x1b[6n prompt")
        tty.until("new\x1b[6n prompt")
        tty.press(LEAVE)
        tty.wait(timeout_s=PATIENCE_S)
        # What the guest's firmware switched off: line wrap; what a guest may: the cursor.
        assert "\x1b[0m\x1b[?25h\x1b[?7h" in tty.seen


def test_a_screen_that_takes_nothing_does_not_keep_anybody_from_leaving(
    environ: dict[str, str], local: LocalService, qemu: FakeQemu, running: str
) -> None:
    master, slave = pty.openpty()
    reader, writer = os.pipe()
    before = termios.tcgetattr(slave)
    command = [str(VOIDVM), "console", running]
    with subprocess.Popen(
        command, env=environ, stdin=slave, stdout=writer, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"Connected")
        for _ in range(12):
            _say(local, qemu, b"y" * 16_000)
        time.sleep(0.3)
        os.write(master, LEAVE.encode())
        assert process.wait(timeout=5) == 0
    assert termios.tcgetattr(slave) == before
    # Not set on the open file that the shell has, too.
    assert os.get_blocking(writer)
    for fd in (master, slave, reader, writer):
        os.close(fd)


def test_a_pipe_is_typed_and_what_comes_back_is_printed(
    environ: dict[str, str], running: str, qemu: FakeQemu
) -> None:
    done = _pipe(environ, running, "--since", "end", "--linger", "0.3", given=b"ls\x1d\n")
    assert (done.returncode, done.stderr) == (0, f"Connected to '{running}'.\n")
    assert qemu.typed == b"ls\x1d\n"
    assert done.stdout == "ls\x1d\n"


def test_a_file_is_typed_whole(
    environ: dict[str, str], running: str, qemu: FakeQemu, tmp_path: Path
) -> None:
    text = b"".join(b"%d\n" % number for number in range(30_000))
    (tmp_path / "script").write_bytes(text)
    with (tmp_path / "script").open("rb") as file:
        command = [str(VOIDVM), "console", running, "--linger", "0.5"]
        subprocess.run(
            command, env=environ, stdin=file, capture_output=True, timeout=60, check=True
        )
    assert qemu.typed == text


def test_a_program_is_told_that_nobody_would_get_its_input(
    environ: dict[str, str], vm: str
) -> None:
    done = _pipe(environ, vm, given=b"ls\n")
    assert done.returncode == 5
    assert done.stderr.endswith(
        f"error: '{vm}' is stopped: nobody would get the input\nhint: voidvm vm start {vm}\n"
    )


def test_without_input_the_history_is_printed(environ: dict[str, str], running: str) -> None:
    command = [str(VOIDVM), "console", running, "--linger", "0.3"]
    done = subprocess.run(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout == b"fake guest\r\n"


def test_a_reader_that_has_seen_enough_ends_it_quietly(
    environ: dict[str, str], local: LocalService, qemu: FakeQemu, running: str
) -> None:
    command = [str(VOIDVM), "console", running, "--read-only"]
    with subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"fake guest\r\n"
        process.stdout.close()
        _say(local, qemu, b"more\n")
        assert process.wait(timeout=PATIENCE_S) == 1
        assert b"Traceback" not in process.stderr.read()
