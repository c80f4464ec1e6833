"""The qcow2 header: what qemu-img makes is accepted, what could reach or cost is refused."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voidvm.errors import ImageInvalid, ImageTooLarge
from voidvm.hypervisor.qcow2 import HEAD_BYTES, Qcow2Header, parse

MIB = 1024**2
GIB = 1024**3
LIMIT = 64 * 1024 * GIB
PLAIN = ("compat=1.1", "3G")


def make(path: Path, options: str, size: str) -> Path:
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, size],
        check=True,
        timeout=20,
    )
    return path


def read(path: Path, limit: int = LIMIT) -> Qcow2Header:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return parse(head, file_size_bytes=path.stat().st_size, max_virtual_bytes=limit)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small version 3 file, whole."""
    return make(tmp_path_factory.mktemp("qcow2") / "plain", *PLAIN).read_bytes()


def patched(image: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(image)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


def check(image: bytes) -> Qcow2Header:
    return parse(image, file_size_bytes=len(image), max_virtual_bytes=LIMIT)


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ("compat=0.10", "3G", {"version": 2}),
        ("compat=1.1", "3G", {"version": 3}),
        ("cluster_size=512", "3G", {"cluster_size_bytes": 512}),
        ("cluster_size=2M", "3G", {"cluster_size_bytes": 2 * MIB}),
        ("extended_l2=on,cluster_size=128k", "3G", {"has_extended_l2": True}),
        ("extended_l2=on,cluster_size=16k", "3G", {"has_extended_l2": True}),
        ("compression_type=zstd", "3G", {"compression": "zstd"}),
        ("lazy_refcounts=on", "3G", {}),
        ("refcount_bits=1", "3G", {}),
        ("refcount_bits=64", "3G", {}),
        ("preallocation=metadata", "1G", {"virtual_size_bytes": GIB}),
        ("compat=1.1", "512", {"virtual_size_bytes": 512}),
        ("compat=1.1", "8T", {"virtual_size_bytes": 8 * 1024 * GIB}),
    ],
)
def test_every_kind_that_qemu_img_makes_is_understood(
    tmp_path: Path, options: str, size: str, expected: dict[str, object]
) -> None:
    header = read(make(tmp_path / "disk", options, size))
    assert {key: getattr(header, key) for key in expected} == expected


def test_internal_snapshots_are_counted(tmp_path: Path) -> None:
    path = make(tmp_path / "disk", *PLAIN)
    subprocess.run(["qemu-img", "snapshot", "-c", "one", path], check=True, timeout=20)
    assert read(path).snapshots == 1


def test_a_backing_file_is_refused(tmp_path: Path) -> None:
    base = make(tmp_path / "base", *PLAIN)
    top = make(tmp_path / "top", f"backing_file={base},backing_fmt=qcow2", "3G")
    with pytest.raises(ImageInvalid, match="backing file"):
        read(top)


def test_an_external_data_file_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "disk", f"data_file={tmp_path}/data", "64M")
    with pytest.raises(ImageInvalid, match="external data file"):
        read(path)


def test_encryption_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o",
         # Not luks: to measure its iterations fails where a busy host accounts too coarsely.
         "encrypt.format=aes,encrypt.key-secret=s", path, "4M"],
        check=True, timeout=30,
    )  # fmt: skip
    with pytest.raises(ImageInvalid, match="encrypted"):
        read(path)


def test_a_disk_larger_than_allowed_is_told_apart(tmp_path: Path) -> None:
    path = make(tmp_path / "disk", *PLAIN)
    assert read(path, 3 * GIB).virtual_size_bytes == 3 * GIB
    with pytest.raises(ImageTooLarge) as caught:
        read(path, 3 * GIB - 1)
    assert caught.value.fields["limit"] == 3 * GIB - 1


@pytest.mark.parametrize(
    ("at", "form", "value", "reason"),
    [
        (0, ">I", 0, "no qcow2 file"),
        (4, ">I", 1, "version 1"),
        (4, ">I", 4, "version 4"),
        (8, ">Q", 512, "backing file"),
        (16, ">I", 5, "backing file"),
        (20, ">I", 8, "clusters"),
        (20, ">I", 22, "clusters"),
        (20, ">I", 0xFFFFFFFF, "clusters"),
        (24, ">Q", 0, "a disk of 0 bytes"),
        (24, ">Q", 3 * GIB + 1, "a disk of"),
        (24, ">Q", 1024 * GIB, "too small for its disk"),
        (32, ">I", 2, "encrypted"),
        (36, ">I", 0xFFFFFFFF, "L1 table"),
        (36, ">I", 0, "L1 table"),
        (40, ">Q", 0, "L1 table"),
        (40, ">Q", 65536 * 3 + 8, "cluster's start"),
        (40, ">Q", 1 << 40, "beyond the file"),
        (40, ">Q", (1 << 64) - 65536, "beyond the file"),
        (48, ">Q", 0, "refcount table"),
        (48, ">Q", 1 << 50, "beyond the file"),
        (56, ">I", 0, "refcount table"),
        (56, ">I", 0xFFFFFFFF, "refcount table"),
        (60, ">I", 1, "snapshot table"),
        (60, ">I", 0xFFFFFFFF, "snapshots"),
        (72, ">Q", 1, "not closed"),
        (72, ">Q", 2, "corrupt"),
        (72, ">Q", 4, "external data file"),
        (72, ">Q", 8, "compression"),
        (72, ">Q", 32, "unknown features"),
        (72, ">Q", 1 << 63, "unknown features"),
        (96, ">I", 7, "refcounts"),
        (100, ">I", 96, "bytes long"),
        (100, ">I", 105, "bytes long"),
        (100, ">I", 0xFFFFFFF8, "bytes long"),
        (104, ">B", 1, "compression"),
        (104, ">B", 2, "compression"),
        (112, ">I", 0x44415441, "external data file"),
        (112, ">I", 0xE2792ACA, "backing file"),
        (112, ">I", 0x0537BE77, "encrypted"),
        (116, ">I", 0xFFFFFFFF, "no end"),
    ],
)
def test_a_field_that_does_not_fit_is_refused_with_the_reason(
    plain: bytes, at: int, form: str, value: int, reason: str
) -> None:
    with pytest.raises(ImageInvalid) as caught:
        check(patched(plain, at, form, value))
    assert reason in caught.value.details


def test_unknown_extensions_are_passed_over(plain: bytes) -> None:
    assert check(patched(plain, 112, ">I", 0x12345678)) == check(plain)


def test_extended_l2_needs_clusters_large_enough(tmp_path: Path) -> None:
    image = make(tmp_path / "disk", "cluster_size=4k", "64M").read_bytes()
    with pytest.raises(ImageInvalid, match="small clusters"):
        check(patched(image, 72, ">Q", 16))


@pytest.mark.parametrize("length", [0, 3, 4, 71, 72, 103, 104, 200])
def test_a_file_that_is_cut_off_is_refused(plain: bytes, length: int) -> None:
    with pytest.raises(ImageInvalid):
        check(plain[:length])


def outcome(head: bytes, size: int) -> object:
    try:
        return parse(head, file_size_bytes=size, max_virtual_bytes=LIMIT)
    except (ImageInvalid, ImageTooLarge) as error:
        return error.details


@given(st.binary(max_size=400), st.integers(0, 1 << 63))
def test_any_bytes_get_an_answer(rest: bytes, size: int) -> None:
    assert outcome(b"QFI\xfb\0\0\0\3" + rest, size)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 480), st.integers(0, 255)), min_size=1, max_size=12))
def test_any_change_of_a_good_file_gets_an_answer(
    plain: bytes, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(plain)
    for at, value in changes:
        changed[at] = value
    assert outcome(bytes(changed), len(changed))
