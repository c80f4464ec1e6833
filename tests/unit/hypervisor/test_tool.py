"""Helper programs: their limits, their end, and what a caged one cannot reach."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.descriptors import descriptors_left
from tests.support.service import eventually
from voidvm.errors import CommandFailed, NoSpace
from voidvm.hypervisor.identity import resolve_identity
from voidvm.hypervisor.tool import Cage, Ended, Limits, check, run

OWN = Cage(identity=resolve_identity(""))
PERL = "/usr/bin/perl"


def perl(code: str) -> list[str]:
    """A program that lies where a cage lets it, unlike a Python of pyenv's."""
    return [PERL, "-e", code]


async def test_output_and_status_are_told() -> None:
    ended = await run(["sh", "-c", "echo out; echo err >&2; exit 3"], limits=Limits())
    assert ended == Ended(status=3, output=b"out\n", said="err")


async def test_much_output_is_kept_from_its_end_on() -> None:
    ended = await run(["sh", "-c", "head -c 3000000 /dev/zero; echo end"], limits=Limits())
    assert len(ended.output) == 1_048_576
    assert ended.output.endswith(b"end\n")


async def test_no_end_in_time_kills_it() -> None:
    began = time.monotonic()
    with pytest.raises(CommandFailed, match=r"no end after 0\.3 s"):
        await run(["sleep", "30"], limits=Limits(wall_s=0.3))
    assert time.monotonic() - began < 5


async def test_a_program_that_is_not_there_is_told_as_such() -> None:
    for cage in (None, OWN):
        with pytest.raises(CommandFailed, match="could not be run"):
            await run(["/nowhere/tool"], limits=Limits(), cage=cage)


async def test_memory_time_and_file_size_are_limited(tmp_path: Path) -> None:
    many = perl("my $x = 'x' x 300_000_000; print 'done'")
    assert (await run(many, limits=Limits(memory_bytes=200 * 1024**2))).output == b""
    busy = await run(perl("1 while 1"), limits=Limits(cpu_s=1))
    assert busy.status in (-signal.SIGXCPU, -signal.SIGKILL)
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        limits = Limits(written_bytes=1000)
        await run(["head", "-c", "1000000", "/dev/zero"], limits=limits, stdout=fd)
        assert os.fstat(fd).st_size == 1000
    finally:
        os.close(fd)


async def test_what_the_watch_raises_ends_the_program() -> None:
    def watch() -> None:
        raise NoSpace

    began = time.monotonic()
    with pytest.raises(NoSpace):
        await run(["sleep", "30"], limits=Limits(), watch=watch)
    assert time.monotonic() - began < 5


async def test_cancelling_kills_the_program(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    task = asyncio.ensure_future(
        run(["sh", "-c", f"echo $$ > {mark}; exec sleep 30"], limits=Limits())
    )
    async with asyncio.timeout(5):
        await asyncio.to_thread(eventually, lambda: mark.exists() and mark.read_text().strip())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not Path(f"/proc/{mark.read_text().strip()}").exists()


def test_a_caged_program_dies_with_the_service(tmp_path: Path) -> None:
    code = (
        "import asyncio\n"
        "from voidvm.hypervisor.tool import *\n"
        "async def main():\n"
        "    cage = Cage(identity=None)\n"
        "    print('go', flush=True)\n"
        "    await run(['/usr/bin/sleep', '31.4159'], limits=Limits(), cage=cage)\n"
        "asyncio.run(main())\n"
    )
    service = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        children = Path(f"/proc/{service.pid}/task/{service.pid}/children")
        child = eventually(lambda: _sleeping(children.read_text().split()), timeout_s=10)
    finally:
        service.kill()
        service.communicate()
    eventually(lambda: not Path(f"/proc/{child}").exists(), timeout_s=5)


def _sleeping(pids: list[str]) -> str | None:
    return next(
        (pid for pid in pids if b"31.4159" in Path(f"/proc/{pid}/cmdline").read_bytes()
         and Path(f"/proc/{pid}/comm").read_text() == "sleep\n"),
        None,
    )  # fmt: skip


async def caged(code: str, **descriptors: tuple[int, ...]) -> str:
    cage = Cage(identity=OWN.identity, **descriptors)
    ended = await run(perl(code), limits=Limits(), cage=cage)
    assert ended.status == 0, ended.said
    return ended.output.decode()


async def test_a_caged_program_opens_only_its_own_files(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o666)
    fd = os.open(tmp_path / "mine", os.O_RDONLY)
    try:
        answer = await caged(
            f"open(my $a, '<', '/proc/self/fd/{fd}') or die $!; print <$a>, ' ';"
            f"print open(my $b, '>>', '/proc/self/fd/{fd}') ? 'yes' : 'no', ' ';"
            "print open(my $c, '<', '/etc/hostname') ? 'yes' : 'no', ' ';"
            "print open(my $d, '>', '/tmp/vv-caged') ? 'yes' : 'no', ' ';"
            f"print open(my $e, '<', '{tmp_path}/other') ? 'yes' : 'no'",
            readable=(fd,),
        )
    finally:
        os.close(fd)
    if not _has_landlock():
        pytest.skip("the kernel has no Landlock: files are kept by the user's rights alone")
    assert answer == "mine no no no no"


async def test_a_caged_program_writes_what_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old contents")
    file.chmod(0o666)
    fd = os.open(file, os.O_RDWR)
    try:
        await caged(f"open(my $f, '>', '/proc/self/fd/{fd}') or die $!; print $f 'new'",
                    writable=(fd,))  # fmt: skip
    finally:
        os.close(fd)
    assert file.read_text() == "new"


async def test_a_caged_program_has_no_network_and_no_signals() -> None:
    ours = os.getpid()
    answer = await caged(
        "use Socket; use Errno;"
        "print socket(my $s, PF_INET, SOCK_STREAM, 0) ? 'yes' : $!{EPERM} ? 'no' : $!, ' ';"
        "print socket(my $u, PF_UNIX, SOCK_STREAM, 0) ? 'yes' : $!{EPERM} ? 'no' : $!, ' ';"
        f"print kill(0, {ours}) ? 'yes' : 'no', ' ';"
        "print kill(0, $$) ? 'yes' : 'no'"
    )
    assert answer == "no no no no"


async def test_a_caged_program_runs_as_nobody_in_particular() -> None:
    answer = await caged("print join ' ', $<, $>, (split ' ', $()[0]")
    expected = OWN.identity
    uid, gid = (expected.uid, expected.gid) if expected else (os.getuid(), os.getgid())
    assert answer == f"{uid} {uid} {gid}"


async def test_no_program_has_capabilities_or_leaves_a_core() -> None:
    """Whoever runs it: also root's own, which work on root's own files."""
    command = ["cat", "/proc/self/status", "/proc/self/limits"]
    text = (await run(command, limits=Limits())).output.decode()
    kinds = ("Inh", "Prm", "Eff", "Amb", *(("Bnd",) if os.geteuid() == 0 else ()))
    for kind in kinds:
        assert f"Cap{kind}:\t{'0' * 16}\n" in text
    assert "NoNewPrivs:\t1\n" in text
    [core] = [line for line in text.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]


def test_a_failure_is_told_without_our_paths() -> None:
    ended = Ended(status=1, output=b"", said="tool: cannot read /data/images/x")
    with pytest.raises(CommandFailed) as caught:
        check(ended, program="tool", names={"/data/images/x": "the image"})
    assert caught.value.details == "cannot read the image"
    with pytest.raises(CommandFailed, match="killed by signal 9"):
        check(Ended(status=-9, output=b"", said=""), program="tool", names={})
    with pytest.raises(NoSpace):
        check(Ended(status=1, output=b"", said="No space left on device"), program="x", names={})


def _has_landlock() -> bool:
    version: int = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
    return version > 0


async def test_a_host_without_descriptors_is_told_as_such() -> None:
    with descriptors_left(3), pytest.raises(CommandFailed, match="Too many open files"):
        await run(["true"], limits=Limits())
