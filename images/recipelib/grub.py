"""Makes GRUB's images and puts them in place as grub-install does, without root or a mount.

The offsets are those of GRUB's boot.S and diskboot.S (grub-core/boot/i386/pc), which
grub-install fills in, too; they have stood since GRUB 1.98.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from recipelib import tools

SECTOR = 512
PACKAGES = ("grub-pc-bin", "grub-efi-amd64-bin")
_KERNEL_SECTOR_AT = 0x5C
_DRIVE_CHECK_AT = 0x66
_BOOT_CODE_BYTES = 440
# The last twelve bytes of the first sector: where the rest lies (8), its sectors (2), segment (2).
_BLOCK_LIST_AT = SECTOR - 12
_MODULES = (
    "normal", "configfile", "linux", "ext2", "part_gpt", "search_fs_uuid", "gzio",
    "echo", "test", "ls", "cat", "halt", "reboot", "minicmd",
)  # fmt: skip


def bios_image(modules: Path, target: Path, *, config: str, core_sector: int) -> bytes:
    """Write the core image for the BIOS boot partition at `core_sector`; answer the boot code.

    `modules` is where the packages PACKAGES were unpacked; `config` runs before anything else.
    """
    folder = modules / "usr/lib/grub/i386-pc"
    _mkimage(folder, target, "i386-pc", config=config, extra=("biosdisk",))
    core = bytearray(target.read_bytes())
    core += bytes(-len(core) % SECTOR)
    struct.pack_into("<Q", core, _BLOCK_LIST_AT, core_sector + 1)
    (sectors,) = struct.unpack_from("<H", core, _BLOCK_LIST_AT + 8)
    if sectors != len(core) // SECTOR - 1:
        raise tools.BuildError(f"GRUB's core image counts {sectors} sectors, not {len(core)} bytes")
    target.write_bytes(core)
    return boot_code((folder / "boot.img").read_bytes(), core_sector=core_sector)


def boot_code(boot_image: bytes, *, core_sector: int) -> bytes:
    """Answer the first sector's code, made to load the core image from `core_sector`."""
    code = bytearray(boot_image[:_BOOT_CODE_BYTES])
    struct.pack_into("<Q", code, _KERNEL_SECTOR_AT, core_sector)
    # Two NOPs: trust the BIOS on which drive this is, as grub-install does on hard disks.
    code[_DRIVE_CHECK_AT : _DRIVE_CHECK_AT + 2] = b"\x90\x90"
    return bytes(code)


def efi_image(modules: Path, target: Path, *, config: str) -> None:
    """Write the program that UEFI starts (`EFI/BOOT/BOOTX64.EFI`)."""
    folder = modules / "usr/lib/grub/x86_64-efi"
    extra = ("fat", "efi_gop", "efi_uga", "all_video")
    _mkimage(folder, target, "x86_64-efi", config=config, extra=extra)


def find_root(uuid: str) -> str:
    """Answer the `config` that goes on with boot/grub/grub.cfg of a file system."""
    return f"search.fs_uuid {uuid} root\nset prefix=($root)/boot/grub\n"


def _mkimage(
    folder: Path, target: Path, platform: str, *, config: str, extra: Sequence[str]
) -> None:
    early = target.with_suffix(".cfg")
    early.write_text(config)
    tools.run(
        [
            "grub-mkimage", "--directory", str(folder), "--format", platform,
            "--output", str(target), "--config", str(early), "--prefix", "/boot/grub",
            *_MODULES, *extra,
        ]
    )  # fmt: skip
