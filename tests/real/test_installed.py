"""scripts/install, the units and scripts/uninstall, under a real systemd with real guests."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.sources import ROOT
from tests.support.nested import SYSTEMD, Nested
from tests.support.service import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PASSWORD = "correct horse"
# There is no network in there: what VoidVM needs is taken from the tests' environment.
PACKAGES = os.pathsep.join(site.getsitepackages())
OFFLINE = {"PYTHONPATH": PACKAGES, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}


def missing() -> str | None:
    """What this host lacks for it."""
    if os.geteuid() != 0:
        return "the tests are not root"
    if not Path(SYSTEMD).exists() or shutil.which("unshare") is None:
        return "systemd or unshare is not installed"
    if not Path(f"/usr/bin/python3.{sys.version_info[1]}").exists():
        return "the distribution's Python is not that of the tests"
    return None if cgroups() else "no writable cgroup v2"


def cgroups() -> Path | None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    places = [Path(one[1]) for one in mounts if one[2] == "cgroup2"]
    return next((place for place in places if os.access(place, os.W_OK)), None)


@pytest.fixture(scope="module")
def host() -> Iterator[Nested]:
    if reason := missing():
        pytest.skip(reason)
    place = cgroups()
    assert place is not None
    folder = Path(tempfile.mkdtemp(prefix="vv-nested-"))
    (folder / "root").mkdir()
    nested = Nested(folder / "root", source=ROOT, cgroups=place)
    try:
        nested.wait(timeout_s=60)
        yield nested
    finally:
        nested.close()
        shutil.rmtree(folder, ignore_errors=True)


def install(host: Nested, *arguments: str) -> str:
    return host.ok("/src/scripts/install", *arguments, **OFFLINE)


def vms(host: Nested) -> dict[str, tuple[str, int | None]]:
    found = json.loads(host.ok("voidvm", "vm", "ls", "--json", PYTHONPATH=PACKAGES, HOME="/root"))
    return {vm["name"]: (vm["status"], vm["pid"]) for vm in found}


def shown(host: Nested, unit: str, key: str) -> str:
    return host.ok("systemctl", "show", unit, "--property", key, "--value").strip()


POWER_OFF = (
    "/opt/voidvm/current/bin/voidvm power-off-guests --timeout 3 --config /etc/voidvm/voidvm.toml"
)
CLI = {"PYTHONPATH": PACKAGES, "HOME": "/root", "VOIDVM_PASSWORD": PASSWORD}


def test_a_host_is_set_up_upgraded_shut_down_and_cleared(host: Nested) -> None:
    is_installed(host)
    guests = run_without_rights(host)
    outlive_the_service(host, guests)
    outlive_an_upgrade(host, guests)
    # What root does leaves nothing of root's there.
    host.ok("voidvm", "backup", "/root/b", **CLI)
    host.run("voidvm", "doctor", **CLI)
    assert host.ok("find", "/var/lib/voidvm", "/run/voidvm", "!", "-user", "voidvm") == ""
    # The host goes down: they are powered off, by a service that goes on.
    host.ok("systemctl", "stop", "voidvm-guests")
    assert [status for status, _ in vms(host).values()] == ["stopped", "stopped"]
    is_cleared(host)


def is_installed(host: Nested) -> None:
    for unit in ("voidvm", "voidvm-guests"):
        drop_in = f"/etc/systemd/system/{unit}.service.d"
        host.ok("mkdir", "-p", drop_in)
        line = f"[Service]\\nEnvironment=PYTHONPATH={PACKAGES}\\n"
        host.ok("bash", "-c", f"printf '{line}' >{drop_in}/test.conf")
    # These guests are firmware without a system: none obeys.
    change = f"[Service]\\nExecStop=\\nExecStop={POWER_OFF}\\n"
    host.ok("bash", "-c", f"printf '{change}' >{drop_in}/quick.conf")
    host.ok("bash", "-c", f"umask 077; echo '{PASSWORD}' >/run/password")
    assert "would: " in install(host, "--dry-run")
    assert not host.run("test", "-e", "/opt/voidvm").ok
    install(host, "--admin-password-file", "/run/password")
    assert shown(host, "voidvm", "ActiveState") == "active"
    assert "listening on" in shown(host, "voidvm", "StatusText")
    # It has found the cgroup that is delegated to it, and may work there.
    members = "/sys/fs/cgroup/system.slice/voidvm.service/service/cgroup.procs"
    assert shown(host, "voidvm", "MainPID") in host.ok("cat", members).split()
    verified = host.ok("systemd-analyze", "verify", "voidvm.service", "voidvm-guests.service")
    assert [line for line in verified.splitlines() if "DelegateSubgroup" not in line] == []


def run_without_rights(host: Nested) -> dict[str, tuple[str, int | None]]:
    """Two guests."""
    host.ok("voidvm", "login", **CLI)
    for name in ("a", "b"):
        host.ok("voidvm", "vm", "create", name, "--memory", "32", "--disk", "1", "--start", **CLI)
    found = vms(host)
    assert [status for status, _ in found.values()] == ["running", "running"]
    status = host.ok("cat", f"/proc/{found['a'][1]}/status")
    assert set(re.findall(r"^Cap\w+:\t(\w+)$", status, re.MULTILINE)) == {"0" * 16}
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
    assert not re.search(r"^Uid:.*\b0\b", status, re.MULTILINE)
    return found


def outlive_the_service(host: Nested, guests: dict[str, tuple[str, int | None]]) -> None:
    host.ok("systemctl", "restart", "voidvm")
    assert vms(host) == guests
    main = shown(host, "voidvm", "MainPID")
    host.ok("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "voidvm")
    eventually(lambda: shown(host, "voidvm", "MainPID") not in {"0", main}, timeout_s=30)
    eventually(lambda: host.run("voidvm", "vm", "ls", **CLI).ok, timeout_s=30)
    assert vms(host) == guests


def outlive_an_upgrade(host: Nested, guests: dict[str, tuple[str, int | None]]) -> None:
    assert "installed already" in install(host)
    assert vms(host) == guests
    host.ok("bash", "-c", "echo older >/opt/voidvm/current/installed")
    before = host.ok("readlink", "/opt/voidvm/current")
    install(host)
    assert host.ok("readlink", "/opt/voidvm/current") != before
    assert len(host.ok("bash", "-c", "ls -d /opt/voidvm/2*").split()) == 1
    assert vms(host) == guests


def is_cleared(host: Nested) -> None:
    """First without what is kept."""
    host.ok("/src/scripts/uninstall", PYTHONPATH=PACKAGES)
    assert not host.run("test", "-e", "/opt/voidvm").ok
    assert shown(host, "voidvm", "LoadState") == "not-found"
    host.ok("test", "-f", "/var/lib/voidvm/voidvm.db")
    host.ok("/src/scripts/uninstall", "--purge")
    for path in ("/var/lib/voidvm", "/etc/voidvm", "/usr/local/bin/voidvm"):
        assert not host.run("test", "-e", path).ok
    assert not host.run("getent", "passwd", "voidvm").ok
