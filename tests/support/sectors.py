"""Guests of a few bytes: what stands in the boot sector is all that they do."""

from __future__ import annotations

import subprocess

from tests.support.service import Service

# What a guest without a system does, in its boot sector: 16-bit code, then HLT for ever.
PANICS = bytes.fromhex("b001 ba0505 ee")  # mov al, 1; mov dx, 0x505 (pvpanic); out dx, al
SWITCHES_OFF = bytes.fromhex("ba0406 b80020 ef")  # mov dx, 0x604; mov ax, 0x2000 (S5); out dx, ax


def put_code(service: Service, vm: str, code: bytes) -> None:
    """Write a boot sector on the VM's disk."""
    sector = service.folder / "sector"
    sector.write_bytes((code + b"\xf4\xeb\xfd").ljust(510, b"\0") + b"\x55\xaa")
    disk = service.data / "vms" / vm / "disks" / "disk0.qcow2"
    command = ["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", str(sector), str(disk)]
    subprocess.run(command, check=True)
