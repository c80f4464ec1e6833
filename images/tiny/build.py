"""Builds the guest image "tiny" from the distribution's packages, without root.

Run `python3 images/tiny/build.py --output DIR`, or load this file by its path and call `build`.
"""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# The folder of recipes is no package: it is found beside this file, wherever that is installed.
if str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))

from recipelib import (  # noqa: E402 - the path first
    command,
    cpio,
    disk,
    modules,
    packages,
    recipe,
    tools,
)

_TOOLS = ("apt-cache", "apt-get", "dpkg-deb", "mformat", "mcopy", "mmd", "syslinux", "qemu-img")
# Under TCG level 9 boots no faster; lz4 and no compression gain 0.1 s, but need a tool or space.
_GZIP_LEVEL = 6
# Older Ubuntu releases have no UEFI boot loader as a package: the disk then boots by BIOS only.
_OPTIONAL_ROLES = ("uefi",)
_LIBRARIES = "lib/x86_64-linux-gnu"
_LOADER = "lib64/ld-linux-x86-64.so.2"

Report = tools.Report
# What a recipe raises is found under this name by those who load it.
BuildError = tools.BuildError


def build(output: Path, *, report: Report) -> list[Path]:
    """Make kernel, initramfs and disk in `output` and answer their paths, in this order.

    `report` gets one line per step. A file appears only when it is complete. BuildError says
    what went wrong, and which packages to install when tools are missing.
    """
    tools.require(_TOOLS)
    tiny = recipe.load(_HERE)
    output.mkdir(parents=True, exist_ok=True)
    kernel, initramfs, image = (output / tiny.files[key] for key in ("kernel", "initramfs", "disk"))
    with tempfile.TemporaryDirectory(prefix="voidvm-tiny-") as name:
        work = Path(name)
        roots = _fetch(tiny, work, report)
        archive = cpio.archive(_entries(tiny, roots, report))
        with tools.whole_file(kernel) as temporary:
            shutil.copyfile(_kernel_image(roots["kernel"]), temporary)
        with tools.whole_file(initramfs) as temporary:
            temporary.write_bytes(gzip.compress(archive, _GZIP_LEVEL, mtime=0))
        report(f"initramfs: {initramfs.stat().st_size / 1e6:.1f} MB gzip")
        _make_disk(tiny, roots, work, kernel=kernel, initramfs=initramfs, target=image)
        report(f"disk: {image.stat().st_size / 1e6:.1f} MB qcow2, {tiny.disk_mib} MiB virtual")
    return [kernel, initramfs, image]


def _fetch(tiny: recipe.Recipe, work: Path, report: Report) -> dict[str, Path]:
    """Download and unpack every role's packages; answer role -> folder."""
    available = packages.known(name for names in tiny.packages.values() for name in names)
    chosen = {}
    for role, candidates in tiny.packages.items():
        try:
            chosen[role] = packages.first(candidates, available)
        except packages.PackageUnknownError:
            if role not in _OPTIONAL_ROLES:
                raise
            report(f"{role}: none of {', '.join(candidates)} is known to apt: left out")
    graph = packages.dependency_graph([chosen["kernel"], chosen["agent"]])
    names = {role: [name] for role, name in chosen.items()}
    names["kernel"] = packages.kernel_packages(chosen["kernel"], graph)
    names["agent"] = packages.library_packages(chosen["agent"], graph)
    for role, members in names.items():
        report(f"{role}: {' '.join(members)}")
    files = packages.fetch(
        (name for members in names.values() for name in members), work / "packages"
    )
    return {
        role: packages.unpack([files[name] for name in members], work / role)
        for role, members in names.items()
    }


def _entries(tiny: recipe.Recipe, roots: dict[str, Path], report: Report) -> list[cpio.Entry]:
    return [
        *recipe.rootfs_entries(tiny),
        cpio.character_device("dev/console", major=5, minor=1),
        cpio.character_device("dev/null", major=1, minor=3, mode=0o666),
        *_busybox_entries(roots["busybox"]),
        *_module_entries(tiny, roots["kernel"], report),
        *_agent_entries(roots["agent"]),
    ]


def _busybox_entries(root: Path) -> list[cpio.Entry]:
    program = next(path for path in root.rglob("bin/busybox") if path.is_file())
    names = tools.run([str(program), "--list"]).decode().split()
    links = [cpio.link(f"bin/{name}", "busybox") for name in names if name != "busybox"]
    return [cpio.file("bin/busybox", program.read_bytes(), mode=0o755), *links]


def _module_entries(tiny: recipe.Recipe, root: Path, report: Report) -> list[cpio.Entry]:
    """Answer the modules, the lists /init loads them by, and what modprobe reads."""
    folder = next(path for path in root.rglob("lib/modules/*") if path.is_dir())
    tree = modules.ModuleTree(folder)
    boot = tree.select(tiny.modules["boot"])
    late = tree.select(tiny.modules["late"])
    every = tree.select([*tiny.modules["boot"], *tiny.modules["late"], *tiny.modules["ondemand"]])
    if boot.missing:
        raise tools.BuildError(f"kernel {tree.version} lacks {', '.join(boot.missing)}")
    if every.missing:
        report(f"kernel {tree.version} lacks {', '.join(every.missing)}: left out")
    base = f"lib/modules/{tree.version}"
    boot_paths = [f"/{base}/{module.path}" for module in boot.modules]
    late_paths = [f"/{base}/{module.path}" for module in late.modules]
    lists = {
        "etc/modules.boot": _lines(boot_paths),
        "etc/modules.late": _lines(path for path in late_paths if path not in boot_paths),
        f"{base}/modules.dep": modules.dependency_file(every.modules),
        f"{base}/modules.alias": modules.alias_file(every.modules),
    }
    return [
        *(cpio.file(f"{base}/{module.path}", module.data) for module in every.modules),
        *(cpio.file(path, text.encode()) for path, text in lists.items()),
    ]


def _agent_entries(root: Path) -> list[cpio.Entry]:
    """Answer the guest agent with the libraries it is linked with."""
    program = next(path for path in root.rglob("sbin/qemu-ga") if path.is_file())
    libraries = packages.shared_libraries(program, root)
    entries = [
        cpio.file(f"{_LIBRARIES}/{name}", path.read_bytes(), mode=0o755)
        for name, path in libraries.items()
    ]
    entries.append(cpio.file("bin/qemu-ga", program.read_bytes(), mode=0o755))
    entries.append(cpio.link(_LOADER, f"../{_LIBRARIES}/{Path(_LOADER).name}"))
    return entries


def _make_disk(
    tiny: recipe.Recipe,
    roots: dict[str, Path],
    work: Path,
    *,
    kernel: Path,
    initramfs: Path,
    target: Path,
) -> None:
    """Make the disk that boots the same kernel and initramfs by BIOS and, if it can be, UEFI."""
    files = {"vmlinuz": kernel, "initrd": initramfs}
    texts = {
        "syslinux.cfg": (
            "DEFAULT tiny\nPROMPT 0\nTIMEOUT 1\nLABEL tiny\n  LINUX /vmlinuz\n"
            f"  INITRD /initrd\n  APPEND {tiny.cmdline}\n"
        )
    }
    if "uefi" in roots:
        files["EFI/BOOT/BOOTX64.EFI"] = next(roots["uefi"].rglob("systemd-bootx64.efi"))
        texts["loader/loader.conf"] = "timeout 0\ndefault tiny.conf\n"
        texts["loader/entries/tiny.conf"] = (
            f"title {tiny.title}\nlinux /vmlinuz\ninitrd /initrd\noptions {tiny.cmdline}\n"
        )
    for index, (path, text) in enumerate(texts.items()):
        files[path] = work / f"text{index}"
        files[path].write_text(text)
    boot_code = next(roots["mbr"].rglob("mbr/mbr.bin")).read_bytes()
    raw = work / "disk.raw"
    disk.write_raw(
        raw, size_mib=tiny.disk_mib, boot_code=boot_code, files=files, label=tiny.id.upper()
    )
    disk.convert(raw, target)


def _kernel_image(root: Path) -> Path:
    images = sorted(root.rglob("boot/vmlinuz-*"))
    if not images:
        raise tools.BuildError("the kernel package holds no boot/vmlinuz-*")
    return images[-1]


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(command.run("tiny", build))
