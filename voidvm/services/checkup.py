"""Whether this host can run VMs: each part tried or looked at, and what to do about the rest."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from pathlib import Path

import psutil

from voidvm import __version__
from voidvm.config import Settings
from voidvm.domain.checkup import Finding, fail, ok, warn
from voidvm.errors import CommandFailed
from voidvm.hypervisor.identity import FALLBACK_USER, OWN_USER, Identity, resolve_identity
from voidvm.hypervisor.probe import AccelVerdict, cached_probe
from voidvm.hypervisor.version import (
    IMG_MINIMUM,
    QEMU_MINIMUM,
    ToolUnusable,
    installed_version,
    numbers,
)
from voidvm.services.checkup_state import state_findings
from voidvm.services.guests import uefi_files
from voidvm.store.inspection import sqlite_version
from voidvm.supervisor.paths import Layout

MIB = 1024**2
# Below the first nothing starts; the second is what a VM gets unless it says otherwise.
LITTLE_MEMORY, SOME_MEMORY = 256 * MIB, 1024 * MIB
SQLITE_MINIMUM = (3, 37)
# Of each of these the service's speed or correctness depends on the version.
_LIBRARIES = ("sanic", "msgspec", "qemu.qmp", "websockets", "uvloop", "aiosqlite", "httpx", "typer")


async def checkup(settings: Settings) -> list[Finding]:
    """Look at everything; takes seconds, changes nothing but the probe's own cache."""
    layout = Layout(data=settings.data_dir, run=settings.run_dir)
    identity, user = _user(settings.qemu.user)
    qemu, img, accelerators, state = await asyncio.gather(
        _tool("qemu", settings.qemu.binary, minimum=QEMU_MINIMUM, package="qemu-system-x86"),
        _tool("qemu-img", settings.qemu.img_binary, minimum=IMG_MINIMUM, package="qemu-utils"),
        _accelerators(settings, layout, identity),
        state_findings(settings, layout),
    )
    return [
        _python(),
        _libraries(),
        _sqlite(),
        qemu,
        img,
        *accelerators,
        _util_linux(),
        user,
        _memory(),
        _uefi(),
        *state,
    ]


# QEMU


async def _tool(name: str, binary: str, *, minimum: tuple[int, ...], package: str) -> Finding:
    try:
        version = await installed_version(binary)
    except ToolUnusable as error:
        return fail(name, str(error), f"install it: apt-get install {package}")
    if numbers(version) < minimum:
        needed = ".".join(str(part) for part in minimum)
        advice = f"VoidVM needs {needed} or newer: upgrade {package}, or name another [qemu] binary"
        return fail(name, f"{version} is too old", advice)
    return ok(name, f"{version} ({shutil.which(binary)})")


async def _accelerators(
    settings: Settings, layout: Layout, identity: Identity | None
) -> tuple[Finding, Finding]:
    """Both, tried by booting a guest; the answer is shared with the service where it can be."""
    with tempfile.TemporaryDirectory(prefix="voidvm-") as spare:
        is_ours = os.access(layout.data, os.W_OK | os.X_OK)
        report = await cached_probe(
            binary=settings.qemu.binary,
            identity=identity,
            cache=layout.probe_cache if is_ours else Path(spare) / layout.probe_cache.name,
        )
    wanted = settings.qemu.accel
    return (
        _accelerator(report.kvm, is_needed=wanted == "kvm", other=report.tcg),
        _accelerator(report.tcg, is_needed=wanted == "tcg", other=report.kvm),
    )


def _accelerator(verdict: AccelVerdict, *, is_needed: bool, other: AccelVerdict) -> Finding:
    name = verdict.accel
    if verdict.works:
        return ok(name, f"works: {verdict.reason}")
    detail = f"does not work: {verdict.reason}"
    if not other.works:
        return fail(name, detail, "without an accelerator no VM starts: mend QEMU first")
    if is_needed:
        return fail(name, detail, f'the config asks for it: set [qemu] accel to "{other.accel}"')
    if name == "kvm":
        return warn(name, detail, "VMs run under TCG, several times slower; the reason says more")
    return warn(name, detail, "VMs run under KVM; those with accel tcg do not start")


# The host


def _util_linux() -> Finding:
    missing = [tool for tool in ("setpriv", "prlimit") if shutil.which(tool) is None]
    if missing:
        detail = f"not installed: {', '.join(missing)}"
        return fail("util-linux", detail, "install them: apt-get install util-linux")
    return ok("util-linux", "setpriv and prlimit are there")


def _user(configured: str) -> tuple[Identity | None, Finding]:
    """As whom QEMU will run."""
    try:
        identity = resolve_identity(configured)
    except ValueError as error:
        return None, fail("user", str(error), "then run this again")
    if identity is None:
        return None, ok("user", f"QEMU runs as you (uid {os.geteuid()})")
    if identity.user == FALLBACK_USER and not configured:
        advice = (
            f"other services share it; make one: useradd --system --no-create-home "
            f"--shell /usr/sbin/nologin {OWN_USER}"
        )
        return identity, warn("user", f"QEMU runs as '{identity.user}'", advice)
    return identity, ok("user", f"QEMU runs as '{identity.user}' (uid {identity.uid})")


def _memory() -> Finding:
    free = int(psutil.virtual_memory().available)
    detail = f"{free // MIB} MiB free"
    if free < LITTLE_MEMORY:
        return fail("memory", detail, "stop something: a VM needs some of it")
    if free < SOME_MEMORY:
        return warn("memory", detail, "give VMs less than the default 1024 MiB")
    return ok("memory", detail)


def _uefi() -> Finding:
    try:
        code, _ = uefi_files()
    except CommandFailed:
        advice = "only VMs with firmware uefi need it: apt-get install ovmf"
        return warn("uefi", "the firmware files are missing", advice)
    return ok("uefi", str(code))


# Software


def _python() -> Finding:
    return ok("voidvm", f"{__version__}, Python {platform.python_version()}")


def _sqlite() -> Finding:
    version = sqlite_version()
    if numbers(version) < SQLITE_MINIMUM:
        return warn("sqlite", version, "it is older than any that VoidVM is tested with: upgrade")
    return ok("sqlite", version)


def _libraries() -> Finding:
    versions: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    detail = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    if None in versions.values():
        return fail("libraries", detail, "install VoidVM again: pip install voidvm")
    needs = _requirements()
    wrong = [
        f"{name}{needs[name]}"
        for name, version in versions.items()
        if version is not None and name in needs and not fits(version, needs[name])
    ]
    if wrong:
        advice = f"they are not tested with VoidVM: pip install {' '.join(wrong)}"
        return warn("libraries", detail, advice)
    return ok("libraries", detail)


def _requirements() -> dict[str, str]:
    """The version ranges that VoidVM declares, by the library's name."""
    try:
        declared = importlib.metadata.requires("voidvm") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, str] = {}
    for text in declared:
        match = re.fullmatch(r"([\w.-]+)\s*([^;]*)", text.strip())
        if match:
            found[match[1]] = match[2].strip()
    return found


def fits(version: str, wanted: str) -> bool:
    """Whether a version is in a range of `>=` and `<`, the only signs that we declare."""
    for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", wanted):
        is_from = numbers(version) >= numbers(bound)
        if is_from != (sign == ">="):
            return False
    return True
