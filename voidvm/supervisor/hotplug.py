"""Disks and CDs that come and go while the guest runs.

QEMU gets descriptors, as at its start: it may have no right to open the files itself. Everything
is plugged into the SCSI controller, since the PCIe root of q35 takes no devices at run time
(QEMU's docs/pcie.txt).
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from voidvm.errors import CommandFailed, VoidVMError
from voidvm.hypervisor.argv import cd_node, device_id, disk_device, disk_node
from voidvm.hypervisor.guest import DiskFile
from voidvm.supervisor.attachment import Attachment

UNPLUG_S = 10.0
INSERT_TRIES = 5
_FDSET = re.compile(r"/dev/fdset/\d+")


async def plug_disk(hold: Attachment, disk: DiskFile) -> None:
    """Plug a disk in; when it fails, nothing of it is left in QEMU."""
    paths: list[str] = []
    try:
        for level, file in enumerate(disk.files):
            paths.append(await _hand_over(hold, file, is_writable=level == 0))
        await hold.command("blockdev-add", disk_node(disk, paths))
        await hold.command("device_add", disk_device(disk))
    except VoidVMError:
        with suppress(VoidVMError):
            await hold.command("blockdev-del", {"node-name": disk.node})
        await close_files(hold, paths)
        raise


async def unplug_disk(hold: Attachment, node: str) -> None:
    """Unplug a disk; returns when the guest has let go of it. Raises `TimeoutError`."""
    gone = hold.expect("DEVICE_DELETED", device=device_id(node))
    await hold.command("device_del", {"id": device_id(node)})
    async with asyncio.timeout(UNPLUG_S):
        await gone
    await _drop(hold, node)


async def change_cd(hold: Attachment, drive: str, file: Path | None) -> None:
    """Put another CD into a drive, or none; the tray opens whatever the guest says."""
    tray = {"id": device_id(drive)}
    old = await _medium(hold, device_id(drive))
    # One command, for a guest may close the tray between two.
    await hold.command("eject", {**tray, "force": True})
    if old is not None:
        await _drop(hold, old)
    if file is None:
        return
    node = f"{drive}-{secrets.token_hex(3)}"
    path = await _hand_over(hold, file, is_writable=False)
    try:
        await hold.command("blockdev-add", cd_node(node, path))
        await _insert(hold, tray, node)
    except VoidVMError:
        with suppress(VoidVMError):
            await hold.command("blockdev-del", {"node-name": node})
        await close_files(hold, [path])
        raise
    await hold.command("blockdev-close-tray", tray)


async def _insert(hold: Attachment, tray: Mapping[str, object], node: str) -> None:
    for left in reversed(range(INSERT_TRIES)):
        try:
            await hold.command("blockdev-insert-medium", {**tray, "node-name": node})
        except CommandFailed:
            # The guest was quicker and has closed the tray: firmware that looks for a boot disk.
            if not left:
                raise
            await hold.command("eject", {**tray, "force": True})
        else:
            return


async def _medium(hold: Attachment, device: str) -> str | None:
    """The block node in a drive."""
    answer = await hold.command("query-block")
    for entry in answer if isinstance(answer, list) else []:
        if isinstance(entry, Mapping) and str(entry.get("qdev", "")).endswith(device):
            inserted = entry.get("inserted")
            if isinstance(inserted, Mapping):
                return str(inserted["node-name"])
    return None


async def _drop(hold: Attachment, node: str) -> None:
    """Take a block node away and close its files: QEMU would keep them, deleted ones too."""
    nodes = await hold.command("query-named-block-nodes", {"flat": True})
    own = [
        entry
        for entry in (nodes if isinstance(nodes, list) else [])
        if str(entry["node-name"]).partition("-")[0] == node.partition("-")[0]
    ]
    paths = _FDSET.findall(str(own))
    await hold.command("blockdev-del", {"node-name": node})
    await close_files(hold, paths)


async def close_files(hold: Attachment, paths: Iterable[str] = ()) -> None:
    """Close the descriptors that were handed over for these paths.

    While the CPUs halt QEMU only notes that they may go (`monitor_fdset_cleanup`), so they are
    named again when the CPUs run.
    """
    hold.closing.update(paths)
    for path in tuple(hold.closing):
        with suppress(VoidVMError):
            await hold.command("remove-fd", {"fdset-id": int(path.rpartition("/")[2])})
    if hold.is_running:
        hold.closing.clear()


async def _hand_over(hold: Attachment, file: Path, *, is_writable: bool) -> str:
    """Give QEMU a descriptor of a file; the path by which it is opened there."""
    with _opened(file, is_writable=is_writable) as fd:
        return await hold.hand_over(fd)


@contextmanager
def _opened(file: Path, *, is_writable: bool) -> Iterator[int]:
    flags = (os.O_RDWR if is_writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(file, flags)
    try:
        yield fd
    finally:
        os.close(fd)
