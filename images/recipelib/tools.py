"""Runs the distribution's tools and writes results whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# Takes one line about a step of a build.
Report = Callable[[str], None]

# Where each tool comes from, so that an error can say what to install.
TOOL_PACKAGES: Mapping[str, str] = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "grub-mkimage": "grub-common",
    "mcopy": "mtools",
    "mformat": "mtools",
    "mke2fs": "e2fsprogs",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "qemu-img": "qemu-utils",
    "syslinux": "syslinux",
    "tar": "tar",
    "zstd": "zstd",
}
_TOOL_TIMEOUT_S = 600
# Debian keeps some tools where an ordinary user's PATH does not look.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class BuildError(Exception):
    """An image could not be built; the text says why and what to do."""


class ToolMissingError(BuildError):
    """Tools the build needs are not installed; `packages` names the Debian packages."""

    def __init__(self, tools: Sequence[str]) -> None:
        self.tools = tuple(tools)
        self.packages = tuple(sorted({TOOL_PACKAGES.get(tool, tool) for tool in tools}))
        super().__init__(
            f"not installed: {', '.join(self.tools)}; run: "
            f"apt-get install --no-install-recommends {' '.join(self.packages)}"
        )


class ToolFailedError(BuildError):
    """A tool ended with an error; keeps the command, its exit status and its last words."""

    def __init__(self, command: Sequence[str], status: int, stderr: str) -> None:
        self.command = tuple(command)
        self.status = status
        self.stderr = stderr
        super().__init__(f"{' '.join(command)} ended with {status}: {stderr.strip()[-2000:]}")


def find(tool: str) -> str:
    """Answer the path of a tool; ToolMissingError names the package otherwise."""
    path = shutil.which(tool, path=_SEARCH_PATH)
    if path is None:
        raise ToolMissingError([tool])
    return path


def require(tools: Sequence[str]) -> None:
    """Check that all tools are there, and name all missing ones at once."""
    missing = [tool for tool in tools if shutil.which(tool, path=_SEARCH_PATH) is None]
    if missing:
        raise ToolMissingError(missing)


def run(command: Sequence[str], *, cwd: Path | None = None) -> bytes:
    """Run a tool to its end and answer its output; ToolFailedError when it fails."""
    try:
        done = subprocess.run(
            _argv(command),
            cwd=cwd,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_TOOL_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{' '.join(command)} took longer than {_TOOL_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise ToolFailedError(command, done.returncode, done.stderr.decode(errors="replace"))
    return done.stdout


def follow(
    command: Sequence[str], *, report: Callable[[str], None], timeout_s: float, folder: Path
) -> None:
    """Run a tool that takes minutes; `report` gets each line it writes to its standard error.

    `folder` is for its temporary files. ToolFailedError when it fails or takes too long.
    """
    said: deque[str] = deque(maxlen=40)
    environment = _environment() | {"TMPDIR": str(folder)}
    # What it installs keeps its real times: Python compiles anew what seems older than its source.
    del environment["SOURCE_DATE_EPOCH"]
    with subprocess.Popen(
        _argv(command),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        # SIGTERM first of all, since such tools clean up behind themselves.
        alarm = threading.Timer(timeout_s, process.terminate)
        alarm.start()
        try:
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line)
                report(line.rstrip())
        except BaseException:
            process.terminate()
            raise
        finally:
            alarm.cancel()
    if process.returncode != 0:
        raise ToolFailedError(command, process.returncode, "".join(said))


def _argv(command: Sequence[str]) -> list[str]:
    return [find(command[0]), *command[1:]]


def _environment() -> dict[str, str]:
    # LC_ALL: the output is parsed. SOURCE_DATE_EPOCH and MTOOLS_*: same input, same image.
    return os.environ | {
        "LC_ALL": "C",
        "PATH": _SEARCH_PATH,
        "SOURCE_DATE_EPOCH": "315532800",
        "MTOOLS_SKIP_CHECK": "1",
        "MTOOLSRC": os.devnull,
        "TZ": "UTC",
    }


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; it becomes `target` only when all went well."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
