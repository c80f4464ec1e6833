"""Runs a helper program under limits: it may hang, and what it works on may be hostile."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from voidvm.errors import CommandFailed, NoSpace
from voidvm.hypervisor.child import Pipe, spawn
from voidvm.hypervisor.identity import Identity, privileges

_CAGE = Path(__file__).with_name("cage.py")
# What a program needs to start: itself, its libraries, the loader's list of them.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache")

# Each of malloc's arenas would reserve 64 MiB of the address space that is limited.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}
_OUTPUT_KEPT_BYTES = 1_048_576
_SAID_KEPT_BYTES = 16_384
_WATCH_S = 0.2
# How prlimit, setpriv and the cage say that the program itself did not run.
_NOT_RUN = {126, 127}


class Limits(Struct, frozen=True, kw_only=True):
    """What a program may use; the defaults are enough to look at an image."""

    memory_bytes: int = 1024**3
    cpu_s: int = 30
    wall_s: float = 60.0
    files: int = 64
    written_bytes: int | None = None
    """Size to which it may make a file grow."""

    def prefix(self) -> list[str]:
        """What stands in front of the command: prlimit(1)."""
        command = ["prlimit", f"--as={self.memory_bytes}", f"--cpu={self.cpu_s}"]
        command += [f"--nofile={self.files}", "--core=0"]
        if self.written_bytes is not None:
            command.append(f"--fsize={self.written_bytes}")
        return [*command, "--"]


class Cage(Struct, frozen=True, kw_only=True):
    """Who runs a program that reads hostile files, and the descriptors whose files it may open."""

    identity: Identity | None
    readable: tuple[int, ...] = ()
    writable: tuple[int, ...] = ()

    def prefix(self, program: str) -> list[str]:
        """What stands in front of the command: the cage, then setpriv(1)."""
        found = Path(shutil.which(program) or program).resolve()
        setpriv, *rights = privileges(self.identity, dies_with_us=True)
        return [
            *(sys.executable, "-I", "-S", str(_CAGE)),
            ",".join(str(fd) for fd in self.readable),
            ",".join(str(fd) for fd in self.writable),
            # A program with a prefix of its own, like /opt/qemu, has its libraries there too.
            ",".join((*_SYSTEM, str(found.parent.parent))),
            "--",
            *(shutil.which(setpriv) or setpriv, *rights),
        ]


class Ended(Struct, frozen=True, kw_only=True):
    """How a program ended: its exit status, or a negative signal number."""

    status: int
    output: bytes
    said: str
    """The end of what it wrote to stderr."""


async def run(
    command: Sequence[str],
    *,
    limits: Limits,
    cage: Cage | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    on_output: Callable[[bytes], None] | None = None,
    watch: Callable[[], None] | None = None,
) -> Ended:
    """Run a program to its end; however this ends, the program has ended too.

    `stdin` and `stdout` are descriptors; without `stdout` its output is given to `on_output`, or
    kept up to a MiB. `watch` is called five times a second; what it raises ends the program.
    Raises `CommandFailed` when it could not be run, or has no end within `limits.wall_s`.
    """
    program = Path(command[0]).name
    inside = cage.prefix(command[0]) if cage else privileges(None, dies_with_us=True)
    try:
        child = spawn(
            [*limits.prefix(), *inside, *command],
            environ=_ENVIRONMENT | {"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            stdin=stdin,
            stdout=stdout,
            pass_fds=(*cage.readable, *cage.writable) if cage else (),
        )
    except OSError as error:
        raise CommandFailed(f"cannot run prlimit: {error.strerror}", tool=program) from error
    output, said = bytearray(), bytearray()
    try:
        async with child, asyncio.timeout(limits.wall_s):
            readers = [
                asyncio.ensure_future(_read(child.stdout, output, _OUTPUT_KEPT_BYTES, on_output)),
                asyncio.ensure_future(_read(child.stderr, said, _SAID_KEPT_BYTES, None)),
            ]
            reading = asyncio.gather(*readers)
            try:
                await _watched(reading, watch)
            finally:
                # Each by itself: one that has failed ends the gathering, not the other.
                for reader in readers:
                    reader.cancel()
                # Also that it was cancelled must be heard by somebody, or the log is told.
                await asyncio.gather(*readers, reading, return_exceptions=True)
            status = await child.wait()
    except TimeoutError as error:
        raise CommandFailed(f"no end after {limits.wall_s:g} s", tool=program) from error
    text = said.decode(errors="replace").strip()
    if status in _NOT_RUN:
        raise CommandFailed(f"it could not be run: {text}", tool=program)
    return Ended(status=status, output=bytes(output), said=text)


def check(ended: Ended, *, program: str, names: Mapping[str, str]) -> None:
    """Raise `CommandFailed` unless a program succeeded, `NoSpace` for a full disk."""
    if ended.status == 0:
        return
    if "No space left" in ended.said:
        raise NoSpace
    raise CommandFailed(words(ended, program=program, names=names), tool=program)


def words(ended: Ended, *, program: str, names: Mapping[str, str]) -> str:
    """Why a program failed, for a client; `names` says what its words for our paths become."""
    text = ended.said.removeprefix(f"{program}: ")
    for path, name in names.items():
        text = text.replace(path, name)
    if ended.status < 0:
        text = f"{text} killed by signal {-ended.status}".strip()
    return text or f"exit status {ended.status}"


async def _read(
    pipe: Pipe,
    kept: bytearray,
    limit: int,
    on_output: Callable[[bytes], None] | None,
) -> None:
    async for chunk in pipe.chunks():
        if on_output is not None:
            on_output(chunk)
        else:
            kept += chunk
            del kept[:-limit]


async def _watched(reading: asyncio.Future[list[None]], watch: Callable[[], None] | None) -> None:
    if watch is None:
        await reading
        return
    while not reading.done():
        await asyncio.wait({reading}, timeout=_WATCH_S)
        watch()
    await reading
