"""A systemd of the test's own, in name spaces over a copy of this host's files that is thrown away.

Its processes, mounts, network, users and units are its own; nothing that is installed there is
seen outside. Needs root, overlayfs and a writable cgroup v2.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import psutil

SYSTEMD = "/lib/systemd/systemd"
# What has no business in there: it would work on this host's devices, or need them.
_MASKED = (
    *("systemd-udevd", "systemd-udev-trigger", "systemd-sysctl", "systemd-modules-load"),
    *("systemd-tmpfiles-setup", "systemd-resolved", "systemd-networkd", "systemd-timesyncd"),
    *("systemd-logind", "console-getty", "getty@tty1", "nginx", "caddy"),
)
_BOOT = r"""
set -e
own=$1 source=$2
echo $$ >"$3/cgroup.procs"
exec unshare --cgroup --mount --pid --fork --net --uts --ipc --kill-child bash -e -c '
own=$1 source=$2 masked=$3 root=$own/root
mount --make-rprivate /
mount -t tmpfs tmpfs "$own"
mkdir "$own/upper" "$own/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$own/upper,workdir=$own/work" "$root"
mkdir -p "$root/src"
mount --bind "$source" "$root/src"
mount -o remount,ro,bind "$root/src"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /dev/null "$root/dev/console"
for unit in $masked; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
printf "[Unit]\nRequires=basic.target\nAfter=basic.target\n" \
    >"$root/etc/systemd/system/nested.target"
: >"$root/etc/fstab"
cd "$root"
mkdir -p before
pivot_root . before
umount -l /before
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=nested.target --show-status=no
' nested "$own" "$source" "$4"
"""


class Nested:
    """A host within this one; `/src` there is `source`."""

    def __init__(self, folder: Path, *, source: Path, cgroups: Path) -> None:
        self._cgroup = cgroups / f"voidvm-nested-{os.getpid()}"
        self._cgroup.mkdir()
        with (folder.parent / "boot.log").open("wb") as log:
            self._outer = subprocess.Popen(
                ["bash", "-c", _BOOT, "boot", folder, source, self._cgroup, " ".join(_MASKED)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = 0

    def wait(self, *, timeout_s: float) -> None:
        """Wait until systemd has started what is to be started."""
        deadline = time.monotonic() + timeout_s
        while not (self._found() and self.run("systemctl", "is-active", "nested.target").ok):
            assert self._outer.poll() is None, "it ended"
            assert time.monotonic() < deadline, self.run("systemctl", "list-jobs").text
            time.sleep(0.1)

    def _found(self) -> bool:
        for child in psutil.Process(self._outer.pid).children():
            if child.cmdline()[:1] == [SYSTEMD]:
                self.pid = child.pid
        return self.pid != 0

    def run(self, *command: str, **environ: str) -> Outcome:
        """Run a command there."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-a", "env", "-i", f"PATH={_PATH}"]
            + [f"{name}={value}" for name, value in environ.items()]
            + list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        return Outcome(done.returncode, done.stdout)

    def ok(self, *command: str, **environ: str) -> str:
        """What a command prints that must succeed."""
        outcome = self.run(*command, **environ)
        assert outcome.ok, outcome.text
        return outcome.text

    def close(self) -> None:
        """End all of it, at once."""
        self._outer.kill()  # and with it, by --kill-child, systemd and all below
        self._outer.wait()
        for _ in range(100):
            try:
                for path in sorted(self._cgroup.rglob("*/"), reverse=True):
                    path.rmdir()
                self._cgroup.rmdir()
            except OSError:
                time.sleep(0.1)
            else:
                return


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Outcome:
    """How a command ended and what it printed."""

    def __init__(self, status: int, text: str) -> None:
        self.ok = status == 0
        self.text = text
