"""Finds out whether KVM works on this host, by trying: `/dev/kvm` being there proves nothing.

On some hosts the device opens and then QEMU dies, the guest's first unusual instruction ends in
"KVM internal error", or everything runs hundreds of times slower than without KVM. So a tiny guest
of our own is booted under both accelerators, and KVM works when it finishes there, and faster than
under TCG or nearly so.
"""

from __future__ import annotations

import asyncio
import grp
import hashlib
import logging
import os
import pwd
import re
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from voidvm.hypervisor import probe_guest, probe_run
from voidvm.hypervisor.identity import Identity
from voidvm.hypervisor.probe_run import Accel, NotRun, ProbeRun

log = logging.getLogger(__name__)

KVM_DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# TCG needs 0.15 s on an idle machine; QEMU that takes this long is no use.
TCG_TIMEOUT_S = 10.0
# A working KVM needs 0.1 s. The deadline grows with what TCG took, so that a busy host is no proof.
KVM_TIMEOUT_S = 3.0
KVM_TIMEOUT_FACTOR = 10.0
# Working KVMs run the loop in a tenth of TCG's time; broken ones were seen to need 400 times it.
SLOWER_FACTOR = 2.0
_WORDS_MAX = 240


class AccelVerdict(Struct, frozen=True, kw_only=True):
    """Whether an accelerator runs guests here, and why it is believed."""

    accel: Accel
    works: bool
    reason: str
    loop_s: float | None = None
    """What the guest's timed loop took; None when it did not finish."""


class ProbeReport(Struct, frozen=True, kw_only=True):
    """What the host's accelerators are worth."""

    kvm: AccelVerdict
    tcg: AccelVerdict

    @property
    def accel(self) -> Accel:
        """The one to use."""
        return "kvm" if self.kvm.works else "tcg"


class _Facts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a report depends on; another boot, QEMU, device or user asks for a new one."""

    boot_id: str
    binary: str
    device: str
    user: str
    guest: str


class _Kept(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cache's content."""

    facts: _Facts
    report: ProbeReport


async def cached_probe(*, binary: str, identity: Identity | None, cache: Path) -> ProbeReport:
    """The report kept in `cache` if it still holds, else a fresh one, which is then kept.

    Never raises for what it finds, a missing QEMU or a cache that cannot be written included.
    """
    facts = _facts(binary, identity)
    kept = await asyncio.to_thread(_read, cache)
    if kept is not None and kept.facts == facts:
        return kept.report
    report = await probe(binary=binary, identity=identity)
    # A QEMU that cannot even run TCG is mended or replaced: that is looked at again.
    if report.tcg.works:
        await asyncio.to_thread(_write, cache, _Kept(facts=facts, report=report))
    return report


async def probe(*, binary: str, identity: Identity | None) -> ProbeReport:
    """Boot the probe guest under TCG and under KVM: a quarter of a second where both work.

    At worst, with a QEMU that hangs, it takes `TCG_TIMEOUT_S` and `KVM_TIMEOUT_S`.
    """
    tcg_run: ProbeRun | None = None
    try:
        tcg_run = await probe_run.run(
            binary=binary, identity=identity, accel="tcg", timeout_s=TCG_TIMEOUT_S
        )
        tcg = judge("tcg", tcg_run, identity=identity)
    except NotRun as error:
        tcg = AccelVerdict(accel="tcg", works=False, reason=str(error))
    kvm = await _probe_kvm(binary, identity, tcg=tcg, tcg_run=tcg_run)
    return ProbeReport(kvm=kvm, tcg=tcg)


async def _probe_kvm(
    binary: str, identity: Identity | None, *, tcg: AccelVerdict, tcg_run: ProbeRun | None
) -> AccelVerdict:
    if not KVM_DEVICE.exists():
        reason = (
            f"there is no {KVM_DEVICE}: switch on virtualization in the firmware (on a virtual "
            "host: nested virtualization) and load kvm_intel or kvm_amd"
        )
        return AccelVerdict(accel="kvm", works=False, reason=reason)
    timeout_s = KVM_TIMEOUT_S
    if tcg_run is not None and tcg.works:
        timeout_s = max(timeout_s, KVM_TIMEOUT_FACTOR * tcg_run.duration_s)
    try:
        kvm_run = await probe_run.run(
            binary=binary, identity=identity, accel="kvm", timeout_s=timeout_s
        )
    except NotRun as error:
        return AccelVerdict(accel="kvm", works=False, reason=str(error))
    return judge("kvm", kvm_run, identity=identity, tcg=tcg)


def judge(
    accel: Accel, run: ProbeRun, *, identity: Identity | None, tcg: AccelVerdict | None = None
) -> AccelVerdict:
    """What one boot says of an accelerator; KVM is judged beside `tcg` when that one works."""
    tcg_loop_s = tcg.loop_s if tcg else None
    if run.status != probe_guest.FINISHED_STATUS or run.loop_s is None:
        works, reason = False, _failure(run, identity=identity, tcg_loop_s=tcg_loop_s)
    elif tcg_loop_s is not None and run.loop_s > SLOWER_FACTOR * tcg_loop_s:
        works, reason = (
            False,
            (
                f"slower than TCG: the probe guest's timed loop took {run.loop_s:.2g} s, "
                f"under TCG {tcg_loop_s:.2g} s"
            ),
        )
    else:
        works, reason = True, f"the probe guest finished in {run.duration_s:.2g} s"
    return AccelVerdict(accel=accel, works=works, reason=reason, loop_s=run.loop_s)


def _failure(run: ProbeRun, *, identity: Identity | None, tcg_loop_s: float | None) -> str:
    """Why a boot did not finish; QEMU's own words where it had any."""
    place = probe_guest.last_stage(run.output)
    words = _words(run.stderr)
    if run.is_stuck:
        return f"{words} (the probe guest was {place})"
    if run.status is None:
        progress = _progress(run.output, tcg_loop_s)
        return f"no end after {run.duration_s:.2g} s: the probe guest was {place}{progress}"
    if "Could not access KVM kernel module: Permission denied" in run.stderr:
        return _permission_denied(identity)
    if run.status < 0:
        name = _signal_name(-run.status)
        return f"QEMU was killed by {name}" + (f": {words}" if words else f", the guest {place}")
    known = {
        probe_guest.WRONG_STATUS: "computed wrongly",
        probe_guest.EXCEPTION_STATUS: "got an exception",
        # With -no-reboot a triple fault ends QEMU in peace.
        0: "was reset by a triple fault",
    }
    if run.output and run.status in known:
        return f"the probe guest {known[run.status]} {place}"
    return words or f"QEMU ended with status {run.status}; the probe guest was {place}"


def _progress(output: str, tcg_loop_s: float | None) -> str:
    if probe_guest.LOOP_BEGIN not in output or probe_guest.LOOP_END in output:
        return ""
    rounds = output.count(probe_guest.LOOP_ROUND)
    beside = "" if tcg_loop_s is None else f"; TCG does them all in {tcg_loop_s:.2g} s"
    return f", {rounds} of {probe_guest.LOOP_ROUNDS} rounds done{beside}"


def _words(stderr: str) -> str:
    """QEMU's words as one line, without its name, its registers and its warnings."""
    return "; ".join(_said(stderr))[:_WORDS_MAX]


def _said(stderr: str) -> Iterator[str]:
    for line in stderr.splitlines():
        is_warning = "warning: " in line
        # Registers and the instruction's bytes stand as RAX=…, CS =…, Code=…
        is_register = "=" in line[:5] or line.startswith("extra data")
        if line.strip() and not is_warning and not is_register:
            yield re.sub(r"^qemu\S*: ", "", line.strip())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _permission_denied(identity: Identity | None) -> str:
    """Who may use the device, who wanted to, and what to do."""
    user = identity.user if identity else _name(pwd.getpwuid, os.geteuid())
    try:
        found = KVM_DEVICE.stat()
    except OSError as error:
        return f"{KVM_DEVICE}: {error.strerror}"
    owner = _name(pwd.getpwuid, found.st_uid)
    group = _name(grp.getgrgid, found.st_gid)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o060 == 0o060 and found.st_gid != 0:
        advice = f"add {user} to the group {group}: usermod -aG {group} {user}"
    else:
        advice = (
            f"give it to a group: groupadd -f -r kvm; chgrp kvm {KVM_DEVICE}; "
            f"chmod 660 {KVM_DEVICE}"
        )
    return (
        f"permission denied: {KVM_DEVICE} belongs to {owner}:{group}, mode {mode:03o}, and QEMU "
        f"runs as {user}; {advice}; then start VoidVM again"
    )


def _name(look_up: Callable[[int], tuple[object, ...]], number: int) -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def _facts(binary: str, identity: Identity | None) -> _Facts:
    if identity is None:
        user = f"{os.geteuid()}:{os.getegid()}:{sorted(os.getgroups())}"
    else:
        user = f"{identity.uid}:{identity.gid}:{sorted(identity.groups)}"
    code = probe_guest.rom() + "\0".join(probe_run.arguments("", accel="kvm", rom_fd=0)).encode()
    return _Facts(
        boot_id=_boot_id(),
        binary=_state(Path(shutil.which(binary) or binary)),
        device=_state(KVM_DEVICE),
        user=user,
        guest=hashlib.sha256(code).hexdigest()[:16],
    )


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _state(path: Path) -> str:
    """What changes when a file is replaced or given to somebody else."""
    try:
        found = path.resolve().stat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    # A device's mtime is that of its last use.
    changed = found.st_rdev if stat.S_ISCHR(found.st_mode) else found.st_mtime_ns
    owner = f"{found.st_uid}:{found.st_gid}:{found.st_mode:o}"
    return f"{path} {found.st_size} {changed} {owner}"


def _read(cache: Path) -> _Kept | None:
    try:
        return msgspec.json.decode(cache.read_bytes(), type=_Kept)
    except (OSError, msgspec.DecodeError):
        return None


def _write(cache: Path, kept: _Kept) -> None:
    """The file appears whole or not at all, for its owner only."""
    try:
        fd, name = tempfile.mkstemp(dir=cache.parent, prefix=f".{cache.name}.")
    except OSError as error:
        log.warning("cannot keep the accelerator probe's result: %s", error)
        return
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(cache)
    except OSError as error:
        log.warning("cannot keep the accelerator probe's result: %s", error)
        with suppress(OSError):
            Path(name).unlink()
