"""The pure parts of the guest recipes: archive, module order, package graphs, disk, rootfs."""

import gzip
import importlib.util
import lzma
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

IMAGES = Path(__file__).parents[3] / "images"


def load_build() -> ModuleType:
    """Load the build script as the service does: by its path."""
    spec = importlib.util.spec_from_file_location("tiny_build", IMAGES / "tiny" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()
cpio = sys.modules["recipelib.cpio"]
disk = sys.modules["recipelib.disk"]
elf = sys.modules["recipelib.elf"]
modules = sys.modules["recipelib.modules"]
packages = sys.modules["recipelib.packages"]
recipe = sys.modules["recipelib.recipe"]
tools = sys.modules["recipelib.tools"]


def members(archive: bytes) -> Iterator[tuple[str, list[int], bytes]]:
    """Read a newc archive: path, the thirteen header fields, content."""
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        fields = [int(archive[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        name_end = offset + 110 + fields[11]
        name = archive[offset + 110 : name_end - 1].decode()
        start = name_end + -name_end % 4
        end = start + fields[6]
        if name == "TRAILER!!!":
            assert not archive[end:].strip(b"\0")
            return
        yield name, fields, archive[start:end]
        offset = end + -end % 4


def module_file(**notes: str) -> bytes:
    """Make the smallest ELF file that has a .modinfo section."""
    info = b"".join(f"{key}={value}".encode() + b"\0" for key, value in notes.items())
    names = b"\0.modinfo\0.shstrtab\0"
    table = 64 + len(info) + len(names)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2,
    )  # fmt: skip
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 1, 0, 0, 64, len(info), 0, 0, 1, 0),
        (10, 3, 0, 0, 64 + len(info), len(names), 0, 0, 1, 0),
    ]
    packed = b"".join(struct.pack("<IIQQQQIIQQ", *section) for section in sections)
    return header + info + names + packed


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A module folder: net needs virtio and ring; ring is needed by virtio, too."""
    folder = tmp_path / "lib" / "modules" / "6.1.0-test"
    drivers = folder / "kernel" / "drivers"
    drivers.mkdir(parents=True)
    (drivers / "virtio-net.ko").write_bytes(
        module_file(alias="virtio:d00000001v*", depends="virtio,virtio_ring,failover")
    )
    (drivers / "virtio.ko").write_bytes(module_file(depends="virtio_ring"))
    (drivers / "virtio_ring.ko").write_bytes(module_file(depends="", softdep="pre: crc32c absent"))
    (drivers / "crc32c.ko").write_bytes(module_file(depends=""))
    (folder / "modules.builtin").write_text("kernel/net/core/failover.ko\nkernel/fs/ext4.ko\n")
    return folder


def test_the_archive_is_the_same_for_any_order_of_its_entries() -> None:
    entries = [cpio.file("b", b"2"), cpio.directory("a"), cpio.file("a/c", b"1")]
    assert cpio.archive(entries) == cpio.archive(reversed(entries))


def test_the_archive_holds_what_was_given_with_root_as_owner_and_no_times() -> None:
    archive = cpio.archive(
        [
            cpio.file("bin/tool", b"#!/bin/sh\n", mode=0o755),
            cpio.link("sbin", "bin"),
            cpio.character_device("dev/console", major=5, minor=1),
        ]
    )
    assert len(archive) % 512 == 0
    found = {name: (fields, data) for name, fields, data in members(archive)}
    assert list(found) == ["bin", "bin/tool", "dev", "dev/console", "sbin"]
    for fields, _ in found.values():
        assert fields[2] == fields[3] == fields[5] == 0
    assert found["bin/tool"][0][1] == stat.S_IFREG | 0o755
    assert found["bin/tool"][1] == b"#!/bin/sh\n"
    assert found["sbin"][0][1] & stat.S_IFLNK
    assert found["sbin"][1] == b"bin"
    assert stat.S_ISCHR(found["dev/console"][0][1])
    assert found["dev/console"][0][9:11] == [5, 1]
    assert len({fields[0] for fields, _ in found.values()}) == len(found)


def test_a_folder_comes_before_its_content_even_among_names_that_sort_between() -> None:
    names = [
        name for name, _, _ in members(cpio.archive([cpio.file("a/x", b""), cpio.file("a-b", b"")]))
    ]
    assert names.index("a") < names.index("a/x")


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "", "a//b", "TRAILER!!!"])
def test_a_path_that_is_no_plain_relative_one_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"would end|no plain"):
        cpio.archive([cpio.file(path, b"")])


def test_the_same_path_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        cpio.archive([cpio.file("a", b""), cpio.directory("a")])


def test_modules_come_after_what_they_need_and_once() -> None:
    needs = {"net": ["virtio", "ring"], "virtio": ["ring"], "ring": [], "blk": ["virtio", "core"]}
    assert modules.loading_order(["net", "blk"], needs) == ["ring", "virtio", "net", "blk"]


def test_modules_that_need_each_other_are_an_error_that_shows_the_circle() -> None:
    with pytest.raises(modules.ModuleCycleError, match="a -> b -> a"):
        modules.loading_order(["a"], {"a": ["b"], "b": ["a"]})


def test_needs_are_read_from_the_modules_and_builtin_ones_left_out(kernel: Path) -> None:
    tree = modules.ModuleTree(kernel)
    selection = tree.select(["virtio_net", "ext4", "nosuch"])
    names = [module.name for module in selection.modules]
    assert names == ["crc32c", "virtio_ring", "virtio", "virtio_net"]
    assert selection.missing == ("nosuch",)
    assert tree.version == "6.1.0-test"


def test_what_modprobe_reads_names_paths_and_aliases(kernel: Path) -> None:
    selected = modules.ModuleTree(kernel).select(["virtio-net"]).modules
    lines = modules.dependency_file(selected).splitlines()
    base = "kernel/drivers"
    assert lines[0] == f"{base}/crc32c.ko:"
    assert lines[-1] == (
        f"{base}/virtio-net.ko: {base}/virtio.ko {base}/virtio_ring.ko {base}/crc32c.ko"
    )
    assert modules.alias_file(selected) == "alias virtio:d00000001v* virtio_net\n"


def test_a_module_packed_with_xz_is_unpacked(kernel: Path) -> None:
    path = kernel / "kernel" / "drivers" / "crc32c.ko"
    plain = path.read_bytes()
    path.with_name("crc32c.ko.xz").write_bytes(lzma.compress(plain))
    path.unlink()
    (module,) = modules.ModuleTree(kernel).select(["crc32c"]).modules
    assert (module.data, module.path) == (plain, "kernel/drivers/crc32c.ko")


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh", b"\x7fELF\x01\x01" + bytes(100)])
def test_what_is_no_elf_file_is_refused(data: bytes) -> None:
    with pytest.raises(elf.NotElfError):
        elf.module_info(data)


def test_libraries_are_read_from_a_real_program() -> None:
    needed = elf.needed_libraries(Path(sys.executable).resolve().read_bytes())
    assert any(name.startswith("libc.so") for name in needed)


def test_apt_answers_are_read() -> None:
    policy = "a:\n  Installed: (none)\n  Candidate: 1.0\nb:\n  Candidate: (none)\n"
    assert packages.parse_policy(policy) == {"a"}
    assert packages.first(["b", "a"], {"a"}) == "a"
    with pytest.raises(packages.PackageUnknownError, match="apt-get update"):
        packages.first(["b"], {"a"})


def test_of_alternative_dependencies_the_first_counts() -> None:
    text = (
        "agent\n  PreDepends: init\n |Depends: liba1\n  Depends: liba2\n  Depends: libb1\n"
        "  Depends: <virtual>\n    provider\n<virtual>\nliba1\n  Depends: libc6\n"
        "libc6\n  Depends: agent-common\n"
    )
    graph = packages.parse_depends(text)
    assert graph["agent"] == ["init", "liba1", "libb1"]
    assert packages.library_packages("agent", graph) == ["agent", "liba1", "libb1", "libc6"]


def test_a_kernel_stands_for_its_image_and_module_packages() -> None:
    debian = {"linux-image-cloud-amd64": ["linux-image-6.1.0-9-cloud-amd64"]}
    ubuntu = {
        "linux-image-virtual": ["linux-image-6.8.0-31-generic"],
        "linux-image-6.8.0-31-generic": ["kmod", "linux-modules-6.8.0-31-generic"],
    }
    assert packages.kernel_packages("linux-image-cloud-amd64", debian) == [
        "linux-image-6.1.0-9-cloud-amd64"
    ]
    assert packages.kernel_packages("linux-image-virtual", ubuntu) == [
        "linux-image-6.8.0-31-generic",
        "linux-modules-6.8.0-31-generic",
    ]


def test_the_boot_record_has_one_active_partition_up_to_the_end_of_the_disk() -> None:
    sector = disk.master_boot_record(b"\xfa", disk_bytes=64 * 1024 * 1024)
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    active, _, kind, _, start, count = struct.unpack_from("<B3sB3sII", sector, 446)
    assert (active, kind, start, count) == (0x80, 0x0C, 2048, 131072 - 2048)
    with pytest.raises(ValueError, match="does not fit"):
        disk.master_boot_record(bytes(441), disk_bytes=1)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "image"
    target.write_text("old")

    def write_half() -> None:
        with tools.whole_file(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "old"
    with tools.whole_file(target) as temporary:
        temporary.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_missing_tools_are_all_named_with_the_packages_that_bring_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tools, "_SEARCH_PATH", str(tmp_path))
    with pytest.raises(tools.ToolMissingError) as caught:
        build.build(tmp_path / "out", report=print)
    assert {"mtools", "syslinux", "qemu-utils"} <= set(caught.value.packages)
    assert "apt-get install" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_recipe_is_whole_and_its_scripts_are_executable_in_the_guest() -> None:
    tiny = recipe.load(IMAGES / "tiny")
    assert (tiny.id, tiny.min_memory_mib) == ("tiny", 128)
    assert set(tiny.files.values()) == {"vmlinuz", "initramfs.gz", "tiny.qcow2"}
    assert "console=ttyS0,115200" in tiny.cmdline.split()
    entries = {entry.path: entry for entry in recipe.rootfs_entries(tiny)}
    assert {"init", "etc/inittab", "etc/profile", "bin/shutdown", "sbin"} <= set(entries)
    assert entries["init"].mode & 0o111
    assert not entries["etc/passwd"].mode & 0o111
    assert gzip.compress(cpio.archive(entries.values()), mtime=0)


def test_an_unknown_key_in_a_recipe_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "image.toml").write_text('colour = "red"\n')
    with pytest.raises(tools.BuildError, match="colour"):
        recipe.load(tmp_path)
