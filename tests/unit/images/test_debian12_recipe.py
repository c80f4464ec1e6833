"""The pure parts of the recipe of Debian: partition tables, boot loader, mirrors, its own files."""

from __future__ import annotations

import importlib.util
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tomllib
import zlib
from pathlib import Path
from types import ModuleType
from uuid import UUID

import pytest
import yaml

IMAGES = Path(__file__).parents[3] / "images"
MIB = 1024 * 1024
DISK_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def load_build() -> ModuleType:
    """Load the build script as the service does: by its path."""
    spec = importlib.util.spec_from_file_location("debian12_build", IMAGES / "debian12/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()
bootstrap = sys.modules["recipelib.bootstrap"]
cpio = sys.modules["recipelib.cpio"]
gpt = sys.modules["recipelib.gpt"]
grub = sys.modules["recipelib.grub"]
recipe = sys.modules["recipelib.recipe"]
tools = sys.modules["recipelib.tools"]


def partition(number: int, first: int, sectors: int, name: str = "root") -> object:
    return gpt.Partition(
        number=number,
        name=name,
        kind=gpt.LINUX_ROOT_X86_64,
        id=UUID(int=number),
        first_sector=first,
        sectors=sectors,
    )


def header(data: bytes, sector: int) -> tuple[int, ...]:
    """The header's numbers, once both of its checksums are right."""
    raw = bytearray(data[sector * 512 : sector * 512 + 92])
    assert raw[:8] == b"EFI PART"
    fields = struct.unpack_from("<IIIIQQQQ16sQIII", raw, 8)
    raw[16:20] = bytes(4)
    assert zlib.crc32(raw) == fields[2]
    table = data[fields[9] * 512 : fields[9] * 512 + 128 * 128]
    assert zlib.crc32(table) == fields[12]
    assert UUID(bytes_le=fields[8]) == DISK_ID
    return fields


def test_both_tables_say_where_the_partitions_are(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(4 * MIB))
    parts = [partition(15, 2048, 100, "efi"), partition(1, 4096, 1000)]
    gpt.write(image, parts, disk_id=DISK_ID, boot_code=b"\xfa\xeb")
    data = image.read_bytes()
    last = 4 * MIB // 512 - 1
    first, second = header(data, 1), header(data, last)
    assert (first[4], first[5], second[4], second[5]) == (1, last, last, 1)
    assert (first[6], first[7]) == (34, last - 33)
    assert (first[9], second[9]) == (2, last - 32)
    assert data[2 * 512 : 34 * 512] == data[(last - 32) * 512 : last * 512]
    entry = struct.unpack_from("<16s16sQQQ72s", data, 2 * 512)
    assert UUID(bytes_le=entry[0]) == gpt.LINUX_ROOT_X86_64
    assert (UUID(bytes_le=entry[1]), entry[2:4]) == (UUID(int=1), (4096, 5095))
    assert entry[5].decode("utf-16-le").rstrip("\0") == "root"
    assert struct.unpack_from("<QQ", data, 2 * 512 + 14 * 128 + 32) == (2048, 2147)
    # The first sector: boot code, and to old tools a disk that is all taken.
    assert data[:2] == b"\xfa\xeb"
    assert data[450] == 0xEE
    assert struct.unpack_from("<II", data, 454) == (1, last)
    assert data[510:512] == b"\x55\xaa"


@pytest.mark.skipif(shutil.which("sfdisk", path="/usr/sbin:/sbin") is None, reason="no sfdisk")
def test_other_tools_find_no_fault_with_the_tables(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(4 * MIB))
    gpt.write(image, [partition(1, 2048, 4096)], disk_id=DISK_ID)
    done = subprocess.run(
        ["/usr/sbin/sfdisk", "--verify", image], capture_output=True, text=True, check=True
    )
    assert "No errors detected" in done.stdout


@pytest.mark.parametrize(
    "parts",
    [
        [(1, 33, 1)],
        [(1, 2048, 6200)],
        [(1, 2048, 100), (2, 2147, 1)],
    ],
)
def test_partitions_that_overlap_or_do_not_fit_are_refused(
    tmp_path: Path, parts: list[tuple[int, int, int]]
) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(4 * MIB))
    with pytest.raises(ValueError, match="overlaps or does not fit"):
        gpt.write(image, [partition(*one) for one in parts], disk_id=DISK_ID)
    assert not any(image.read_bytes())


def test_too_much_boot_code_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(4 * MIB))
    with pytest.raises(ValueError, match="does not fit"):
        gpt.write(image, [], disk_id=DISK_ID, boot_code=bytes(441))


def test_the_boot_code_learns_where_grub_lies() -> None:
    code = grub.boot_code(bytes(512), core_sector=2048)
    assert len(code) == 440
    assert struct.unpack_from("<Q", code, 0x5C) == (2048,)
    assert code[0x66:0x68] == b"\x90\x90"
    assert not any(code[:0x5C])


def test_the_release_comes_from_where_the_host_gets_it() -> None:
    text = (
        "http://mirror/debian/ bookworm main\nhttp://mirror/debian/ bookworm contrib\n"
        "http://mirror/debian/ bookworm-updates main\nhttps://mirror/sec/ bookworm-security main\n"
        "http://mirror/debian/ bookworm-backports main\nfile:/cdrom bookworm main\n"
    )
    assert bootstrap.parse_targets(text, "bookworm") == [
        "deb http://mirror/debian/ bookworm main",
        "deb http://mirror/debian/ bookworm-updates main",
        "deb https://mirror/sec/ bookworm-security main",
    ]
    assert bootstrap.parse_targets("http://mirror/ubuntu/ noble main\n", "bookworm") == []
    assert bootstrap.parse_targets("http://m/ bookworm-updates main\n", "bookworm") == []


def test_the_recipes_own_files_belong_to_root(tmp_path: Path) -> None:
    archive = tmp_path / "own.tar"
    entries = [cpio.file("etc/a", b"text"), cpio.file("bin/b", b"#!", mode=0o755)]
    bootstrap.overlay([*entries, cpio.link("etc/c", "/d")], archive)
    with tarfile.open(archive) as tar:
        found = {one.name: one for one in tar.getmembers()}
    assert {name: stat.S_IMODE(one.mode) for name, one in found.items()} == {
        "etc/a": 0o644,
        "bin/b": 0o755,
        "etc/c": 0o777,
    }
    assert found["etc/c"].linkname == "/d"
    assert {(one.uid, one.gid, one.mtime) for one in found.values()} == {(0, 0, 0)}


def test_missing_tools_are_all_named_with_the_packages_that_bring_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tools, "_SEARCH_PATH", str(tmp_path))
    with pytest.raises(tools.ToolMissingError) as caught:
        build.build(tmp_path / "out", report=print)
    assert {"mmdebstrap", "e2fsprogs", "grub-common", "mtools", "qemu-utils"} <= set(
        caught.value.packages
    )
    assert not (tmp_path / "out").exists()


def test_a_tool_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(tools.ToolFailedError, match="last words") as caught:
        tools.follow(
            ["sh", "-c", "echo one >&2; echo $TMPDIR >&2; echo last words >&2; exit 3"],
            report=said.append,
            timeout_s=10,
            folder=tmp_path,
        )
    assert caught.value.status == 3
    assert said == ["one", str(tmp_path), "last words"]


def test_a_tool_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(tools.ToolFailedError):
        tools.follow(["sleep", "60"], report=print, timeout_s=0.2, folder=tmp_path)


def test_too_little_space_is_found_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=100 * MIB))
    with pytest.raises(tools.BuildError, match="100 MiB free, 2560 are needed"):
        build._check_space(tmp_path)


def test_the_recipe_fits_the_catalogue() -> None:
    debian = recipe.load(IMAGES / "debian12")
    catalog = tomllib.loads((IMAGES / "catalog.toml").read_text(encoding="utf-8"))["image"]
    (entry,) = [one for one in catalog if one["id"] == debian.id]
    assert debian.files == {"disk": "debian12.qcow2"}
    assert debian.disk_mib <= entry["min_disk_gib"] * 1024
    assert debian.default_user == entry["default_user"]
    assert debian.min_memory_mib == entry["min_memory_mib"]


def test_the_guests_own_files_say_what_they_should() -> None:
    entries = {one.path: one for one in recipe.rootfs_entries(recipe.load(IMAGES / "debian12"))}
    config = yaml.safe_load(entries["etc/cloud/cloud.cfg.d/90_voidvm.cfg"].data)
    assert config["datasource_list"][0] == "NoCloud"
    assert config["system_info"]["network"]["renderers"] == ["networkd"]
    assert config["ssh_pwauth"] is False
    sources = entries["etc/apt/sources.list"].data.decode().splitlines()
    assert [line.split()[2] for line in sources] == [
        "bookworm",
        "bookworm-updates",
        "bookworm-security",
    ]
