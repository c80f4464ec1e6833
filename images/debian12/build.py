"""Builds the guest image "debian12" from Debian's packages, with or without root.

Run `python3 images/debian12/build.py --output DIR`, or load this file by its path and call `build`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from uuid import NAMESPACE_DNS, UUID, uuid5

_HERE = Path(__file__).resolve().parent
# The folder of recipes is no package: it is found beside this file, wherever that is installed.
if str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))

from recipelib import (  # noqa: E402 - the path first
    bootstrap,
    command,
    cpio,
    disk,
    gpt,
    grub,
    packages,
    recipe,
    tools,
)

_SUITE = "bookworm"
_TOOLS = (
    "apt-cache", "apt-get", "dpkg-deb", "grub-mkimage", "mcopy", "mformat", "mmd", "qemu-img",
)  # fmt: skip
_SPACE_MIB = 2560
_MIB = 1024 * 1024
_SECTORS_PER_MIB = _MIB // gpt.SECTOR
_ESP_MIB = 16

# Left out when it is installed; whatever the guest installs later is whole.
_DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*/*",
)
_HOOKS = (
    'chroot "$1" systemctl enable systemd-networkd.service serial-getty@ttyS0.service fstrim.timer',
    # They would take the guest's first minutes, and the lock that cloud-init's packages wait for.
    'chroot "$1" systemctl disable apt-daily.timer apt-daily-upgrade.timer',
    # Each guest makes its own: host keys by cloud-init, the machine's id by systemd.
    'rm -f "$1"/etc/ssh/ssh_host_*_key "$1"/etc/ssh/ssh_host_*_key.pub',
    ': > "$1"/etc/machine-id',
    'rm -f "$1"/var/lib/dbus/machine-id "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap',
)
_GRUB_CONFIG = """\
# Read by GRUB, which lies outside of the file systems; `update-grub` is neither there nor needed:
# /vmlinuz and /initrd.img are links that each kernel package sets.
set timeout=1
set default=0

menuentry "{title}" {{
    linux /vmlinuz root=UUID={uuid} ro {cmdline}
    initrd /initrd.img
}}

menuentry "{title}, the kernel before" {{
    linux /vmlinuz.old root=UUID={uuid} ro {cmdline}
    initrd /initrd.img.old
}}
"""

Report = tools.Report


def build(output: Path, *, report: Report) -> list[Path]:
    """Make the disk in `output` and answer its path; takes some minutes and 2.5 GB of /tmp.

    `report` gets one line per step. The file appears only when it is complete. BuildError says
    what went wrong, and which packages to install when tools are missing.
    """
    tools.require([*bootstrap.needed_tools(), *_TOOLS])
    bootstrap.require_keyring()
    debian = recipe.load(_HERE)
    output.mkdir(parents=True, exist_ok=True)
    image = output / debian.files["disk"]
    with tempfile.TemporaryDirectory(prefix="voidvm-debian12-") as name:
        work = Path(name)
        _check_space(work)
        raw = work / "disk.raw"
        root = _lay_out(debian, raw, work, report)
        _fill_root(debian, raw, root, work, report)
        report("packing the disk")
        disk.convert(raw, image, is_compressed=True)
    report(f"disk: {image.stat().st_size / 1e6:.0f} MB qcow2, {debian.disk_mib} MiB virtual")
    return [image]


def _check_space(work: Path) -> None:
    free_mib = shutil.disk_usage(work).free // _MIB
    if free_mib < _SPACE_MIB:
        raise tools.BuildError(
            f"{work.parent} has {free_mib} MiB free, {_SPACE_MIB} are needed; "
            "TMPDIR names another folder"
        )


def _id(debian: recipe.Recipe, name: str) -> UUID:
    """Answer an id that is the same in each build."""
    return uuid5(NAMESPACE_DNS, f"{name}.{debian.version}.{debian.id}.voidvm")


def _lay_out(debian: recipe.Recipe, raw: Path, work: Path, report: Report) -> gpt.Partition:
    """Write partition tables and boot loaders; answer the partition of the root file system.

    The root is number 1 and lies last, as in official images: so it can grow.
    """
    bios_boot, esp, root = (
        gpt.Partition(
            number=number,
            name=name,
            kind=kind,
            id=_id(debian, name),
            first_sector=first * _SECTORS_PER_MIB,
            sectors=size * _SECTORS_PER_MIB,
        )
        for number, name, kind, first, size in (
            (14, "bios", gpt.BIOS_BOOT, 1, 1),
            (15, "efi", gpt.EFI_SYSTEM, 2, _ESP_MIB),
            # The last MiB is the second table's.
            (
                1, "root", gpt.LINUX_ROOT_X86_64,
                2 + _ESP_MIB, debian.disk_mib - 2 - _ESP_MIB - 1,
            ),
        )
    )  # fmt: skip
    report(f"boot loaders: {' '.join(grub.PACKAGES)}")
    fetched = packages.fetch(grub.PACKAGES, work / "packages")
    modules = packages.unpack(fetched.values(), work / "grub")
    config = grub.find_root(str(_id(debian, "files")))
    core, program = work / "core.img", work / "bootx64.efi"
    code = grub.bios_image(modules, core, config=config, core_sector=bios_boot.first_sector)
    grub.efi_image(modules, program, config=config)
    if core.stat().st_size > bios_boot.sectors * gpt.SECTOR:
        raise tools.BuildError("GRUB's core image does not fit its partition")
    with raw.open("wb") as stream:
        stream.truncate(debian.disk_mib * _MIB)
        stream.seek(bios_boot.first_sector * gpt.SECTOR)
        stream.write(core.read_bytes())
    gpt.write(raw, [bios_boot, esp, root], disk_id=_id(debian, "disk"), boot_code=code)
    start = esp.first_sector * gpt.SECTOR
    disk.format_fat(raw, start=start, size=esp.sectors * gpt.SECTOR, label="EFI")
    disk.copy_into_fat(raw, start=start, files={"EFI/BOOT/BOOTX64.EFI": program})
    return root


def _fill_root(
    debian: recipe.Recipe, raw: Path, root: gpt.Partition, work: Path, report: Report
) -> None:
    uuid = _id(debian, "files")
    config = _GRUB_CONFIG.format(title=debian.title, uuid=uuid, cmdline=debian.cmdline)
    fstab = f"UUID={uuid} / ext4 errors=remount-ro 0 1"
    own = [
        *recipe.rootfs_entries(debian),
        cpio.file("boot/grub/grub.cfg", config.encode()),
        cpio.file("etc/fstab", f"{fstab}\n".encode()),
    ]
    system, files = work / "system.tar", work / "own.tar"
    bootstrap.overlay(own, files)
    bootstrap.install(
        _SUITE,
        system,
        packages=debian.packages["guest"],
        # initramfs-tools looks for the kind of the root file system, to bring its fsck.
        early_hooks=[f"echo '{fstab}' > \"$1\"/etc/fstab"],
        hooks=_HOOKS,
        dpkg_options=_DPKG_OPTIONS,
        report=report,
    )
    report("writing the file system")
    bootstrap.make_file_system(
        raw,
        [system, files],
        start=root.first_sector * gpt.SECTOR,
        size=root.sectors * gpt.SECTOR,
        uuid=uuid,
        label="root",
    )


if __name__ == "__main__":
    sys.exit(command.run("debian12", build))
