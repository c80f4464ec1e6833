"""The part of a checkup that looks at what VoidVM keeps: folders, database, images, the service."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import stat
from contextlib import suppress
from pathlib import Path

from voidvm.config import DEFAULT_ADMIN_PASSWORD, Server, Settings
from voidvm.domain.addresses import is_loopback
from voidvm.domain.checkup import Finding, fail, ok, warn
from voidvm.hypervisor.cgroup import Unavailable, find_root
from voidvm.hypervisor.launch import SOCKET_PATH_MAX_BYTES
from voidvm.security.passwords import Passwords
from voidvm.store.database import StoreError
from voidvm.store.inspection import Inspection, inspect
from voidvm.supervisor.paths import Layout

GIB = 1024**3
# Below the first SQLite and the disks soon fail; the second is half a default disk.
LITTLE_SPACE, SOME_SPACE = GIB // 4, 5 * GIB


async def state_findings(settings: Settings, layout: Layout) -> list[Finding]:
    """Everything about the two directories; makes neither."""
    holder = lock_holder(layout.lock)
    data = _folder("data directory", layout.data, key="data_dir")
    findings = [data, _space(layout.data), _run_directory(layout), _service(settings, holder)]
    findings.append(_limits(settings.qemu.cgroup, holder))
    if data.verdict == "fail":
        return findings
    inspection: Inspection | None = None
    if layout.database.exists():
        try:
            inspection = await asyncio.to_thread(inspect, layout.database)
        except StoreError as error:
            advice = "or bring a backup back: voidvm restore --force FILE"
            return [*findings, fail("database", str(error), advice)]
        findings.append(ok("database", f"version {inspection.version}, {inspection.vms} VMs"))
    findings += [
        _key(layout.key),
        await _admin(settings, inspection),
        _tiny(layout, inspection),
    ]
    return findings


# Directories


def _folder(name: str, path: Path, *, key: str) -> Finding:
    """Whether a directory is ours alone, or can be made."""
    advice = f"run this as the user of the service, or name another [storage] {key}"
    try:
        found = path.stat()
    except FileNotFoundError:
        parent = nearest_existing(path)
        if os.access(parent, os.W_OK | os.X_OK):
            return ok(name, f"{path} is made at the first start")
        return fail(name, f"{path} cannot be made: {parent} is not writable", advice)
    except OSError as error:
        return fail(name, f"{path}: {error.strerror}", advice)
    problem = _problem(path, found)
    if problem:
        return fail(name, f"{path} {problem}", advice)
    mode = stat.S_IMODE(found.st_mode)
    if mode != 0o700:
        advice = f"the service sets it to 0700 when it starts, or: chmod 700 {path}"
        return warn(name, f"{path} has mode {mode:04o}", advice)
    return ok(name, f"{path}, mode 0700")


def _problem(path: Path, found: os.stat_result) -> str | None:
    if not stat.S_ISDIR(found.st_mode):
        return "is no directory"
    if found.st_uid != os.geteuid():
        return f"belongs to {user_name(found.st_uid)}, not to {user_name(os.geteuid())}"
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return "is not writable"
    return None


def _run_directory(layout: Layout) -> Finding:
    longest = layout.vm("vm-" + "0" * 12).agent_socket
    length = len(os.fsencode(longest))
    if length > SOCKET_PATH_MAX_BYTES:
        detail = f"{layout.run} is too long: socket paths have up to {length} bytes"
        advice = f"{SOCKET_PATH_MAX_BYTES} are possible: name a shorter [storage] run_dir"
        return fail("run directory", detail, advice)
    return _folder("run directory", layout.run, key="run_dir")


def nearest_existing(path: Path) -> Path:
    """The directory in which the missing part of `path` would be made."""
    for parent in path.absolute().parents:
        with suppress(OSError):
            if parent.is_dir():
                return parent
    return Path("/")


def user_name(uid: int) -> str:
    """The name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _space(path: Path) -> Finding:
    try:
        place = path if path.is_dir() else nearest_existing(path)
        free = shutil.disk_usage(place).free
    except OSError as error:
        return fail("space", f"{path}: {error.strerror}", "run this as the user of the service")
    detail = f"{free / GIB:.1f} GiB free in {place}"
    if free < LITTLE_SPACE:
        return fail("space", detail, "make room, or name another [storage] data_dir")
    if free < SOME_SPACE:
        return warn("space", detail, "VMs' disks grow as they are written; a full disk stops them")
    return ok("space", detail)


# The service


def lock_holder(lock: Path) -> int | None:
    """The pid of the service that holds the lock on a data directory.

    It is read from /proc/locks: to try the lock would make a service that starts at that moment
    believe that there is another.
    """
    try:
        found = lock.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        # 1: FLOCK  ADVISORY  WRITE 708 08:01:13632 0 EOF; waiting ones have an arrow.
        words = line.split()
        if len(words) < 6 or words[1] != "FLOCK":
            continue
        inode, pid = words[5].rpartition(":")[2], int(words[4])
        # The device is compared by the process's open files: on overlay file systems and btrfs
        # the numbers in /proc/locks are others than stat's.
        if inode == str(found.st_ino) and _has_open(pid, lock):
            return pid
    return None


def _has_open(pid: int, path: Path) -> bool:
    wanted = path.stat()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(entry.stat(), wanted):
                    return True
    except OSError:
        return False
    return False


def _service(settings: Settings, holder: int | None) -> Finding:
    if holder is not None:
        return ok("service", f"runs as process {holder}")
    server = settings.server
    where = f"{server.host}:{server.port}"
    problem = _listen(server)
    if problem is None:
        return ok("service", f"does not run; {where} is free for it")
    return fail(
        "service", f"cannot listen on {where}: {problem}", "name another [server] host or port"
    )


def _listen(server: Server) -> str | None:
    """Why the service could not listen there; None: it could."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _limits(wanted: str, holder: int | None) -> Finding:
    """Whether guests are limited, as the service sees it or, where none runs, would see it here."""
    try:
        root = find_root(wanted, pid=holder)
    except Unavailable as error:
        if wanted == "off":
            return ok("limits", str(error))
        return warn("limits", str(error), "a guest may take more CPU and memory than it has")
    return ok("limits", f"each guest is held to its CPUs and memory, below {root}")


# What is kept


def _key(path: Path) -> Finding:
    try:
        found = path.stat()
    except OSError:
        return ok("signing key", "is made at the first start")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return fail("signing key", f"{path} can be read by others", f"chmod 600 {path}")
    return ok("signing key", f"{path}, mode {mode:04o}")


async def _admin(settings: Settings, inspection: Inspection | None) -> Finding:
    """A password that everybody knows is good on loopback only, and the service insists on that."""
    if inspection is None or inspection.admin_hash is None:
        is_default = settings.admin_password == DEFAULT_ADMIN_PASSWORD
        detail = "the first start makes 'admin' with the default password"
        advice = "set VOIDVM_ADMIN_PASSWORD before the first start"
    else:
        is_default = await Passwords().verify(inspection.admin_hash, DEFAULT_ADMIN_PASSWORD)
        detail = "'admin' has the default password"
        advice = "change it"
    if not is_default:
        return ok("admin password", "is not the default one")
    if not is_loopback(settings.server.host):
        advice += f", else the service refuses to listen on {settings.server.host}"
        return fail("admin password", detail, advice)
    return warn("admin password", detail, f"{advice}, unless this is for trying things out")


def _tiny(layout: Layout, inspection: Inspection | None) -> Finding:
    image_id = inspection.images.get("tiny") if inspection else None
    if image_id is None:
        return warn("guest image", "'tiny' is not here", "build it: voidvm image build tiny")
    file = layout.image(image_id) / "disk.qcow2"
    if not file.is_file():
        advice = "build it again: voidvm image build tiny"
        return fail("guest image", f"'tiny' has lost its file {file}", advice)
    return ok("guest image", f"'tiny' is here ({image_id})")
