"""What a file is, by content: made by the real tools, and built to deceive."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voidvm.errors import ImageInvalid
from voidvm.hypervisor.formats import Found, check_declared, find, find_in

MIB = 1024**2


def disk(folder: Path, kind: str, options: str = "") -> Path:
    """A disk of a mebibyte, written by qemu-img."""
    raw = folder / "raw"
    raw.write_bytes(b"data" * (MIB // 4))
    path = folder / "disk"
    chosen = ["-o", options] if options else []
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", kind, *chosen, raw, path], check=True, timeout=20
    )
    return path


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("qcow2", ""),
        ("raw", ""),
        ("vdi", ""),
        ("vdi", "static=on"),
        ("vhdx", ""),
        ("vmdk", ""),
        ("vmdk", "subformat=streamOptimized"),
    ],
)
def test_a_disk_is_found_by_what_is_in_it(tmp_path: Path, kind: str, options: str) -> None:
    assert find(disk(tmp_path, kind, options)) == Found(format=kind)  # type: ignore[arg-type]  # of a test


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("vpc", "", "VHD"),
        ("vpc", "subformat=fixed", "VHD"),
        ("qed", "", "QED"),
        ("parallels", "", "Parallels"),
        ("vmdk", "subformat=monolithicFlat", "descriptor"),
        ("vmdk", "subformat=twoGbMaxExtentSparse", "descriptor"),
        ("vmdk", "subformat=twoGbMaxExtentFlat", "descriptor"),
    ],
)
def test_a_disk_of_another_kind_is_refused_by_its_name(
    tmp_path: Path, kind: str, options: str, reason: str
) -> None:
    with pytest.raises(ImageInvalid, match=reason):
        find(disk(tmp_path, kind, options))


def test_one_of_several_vmdk_files_is_refused(tmp_path: Path) -> None:
    disk(tmp_path, "vmdk", "subformat=twoGbMaxExtentSparse")
    with pytest.raises(ImageInvalid, match="VMDK"):
        find(tmp_path / "disk-s001")


def test_a_vmdk_with_a_parent_is_refused(tmp_path: Path) -> None:
    base = disk(tmp_path, "vmdk")
    child = tmp_path / "child"
    command = ["qemu-img", "create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", str(base), str(child)]
    subprocess.run(command, check=True, timeout=20)
    with pytest.raises(ImageInvalid, match="parent"):
        find(child)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"monolithicSparse"', b'"monolithicFlat"  ', "monolithicFlat"),
        (b'createType="monolithicSparse"', b'createTypo="monolithicSparse"', "no type"),
        (b"SPARSE", b"FLAT  ", "several files"),
        (b'"disk"\n', b'"d"\nRW 1 FLAT "/etc/shadow" 0\n', "several files"),
        (b"parentCID=", b"parentFileNameHint=", "parent"),
    ],
)
def test_a_vmdk_descriptor_that_was_tampered_with_is_refused(
    tmp_path: Path, old: bytes, new: bytes, reason: str
) -> None:
    head = disk(tmp_path, "vmdk").read_bytes()[:65536]
    assert old in head
    with pytest.raises(ImageInvalid, match=reason):
        find_in(head.replace(old, new), tail=b"", size_bytes=MIB)


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [(12, 0, "several files"), (28, 0, "several files"), (28, 2, "several files"),
     (36, 0, "descriptor of 0"), (36, 1 << 40, "descriptor of")],
)  # fmt: skip
def test_a_vmdk_header_that_leads_elsewhere_is_refused(
    tmp_path: Path, at: int, value: int, reason: str
) -> None:
    head = bytearray(disk(tmp_path, "vmdk").read_bytes()[:65536])
    struct.pack_into("<Q", head, at, value)
    with pytest.raises(ImageInvalid, match=reason):
        find_in(bytes(head), tail=b"", size_bytes=MIB)


def test_packed_files_are_found_whatever_is_in_them(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(gzip.compress(b"x"))
    assert find(file) == Found(packing="gzip")
    file.write_bytes(lzma.compress(b"x"))
    assert find(file) == Found(packing="xz")
    zstd = ["zstd", "-q", "-c", "-"]
    file.write_bytes(subprocess.run(zstd, input=b"x", capture_output=True, check=True).stdout)
    assert find(file) == Found(packing="zstd")


def test_kernels_initrds_and_isos_are_found(tmp_path: Path, guest: Path) -> None:
    assert find(guest / "vmlinuz") == Found(format="kernel")
    assert find(guest / "initramfs.gz") == Found(packing="gzip")
    assert find_in(b"070701" + bytes(506), tail=b"", size_bytes=512) == Found(format="initrd")
    assert find_in(b"\x7fELF" + bytes(508), tail=b"", size_bytes=512) == Found(format="kernel")
    iso = bytearray(64 * 1024)
    iso[510:512] = b"\x55\xaa"  # a hybrid: boots from a stick too
    iso[32769:32774] = b"CD001"
    assert find_in(bytes(iso), tail=b"", size_bytes=len(iso)) == Found(format="iso")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"BZh91AY" + bytes(505), "bzip2"),
        (b"PK\x03\x04" + bytes(508), "zip"),
        (b"LUKS\xba\xbe" + bytes(506), "encrypted"),
        (b"\n<!DOCTYPE html><title>404</title>", "web page"),
        (b"<HTML>" + bytes(506), "web page"),
        (bytes(257) + b"ustar" + bytes(1000), "tar archive"),
        (b"# Disk DescriptorFile\nversion=1\n", "descriptor"),
        (b"hello", "whole sectors"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(ImageInvalid, match=reason):
        find(file)


def test_only_a_regular_file_itself_is_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "missing"):
        with pytest.raises(OSError):  # noqa: PT011 - whichever
            find(tmp_path / name)


def test_a_file_must_be_what_its_sender_says() -> None:
    check_declared("qcow2", None)
    check_declared("qcow2", "qcow2")
    with pytest.raises(ImageInvalid, match="qcow2; it was said to be raw"):
        check_declared("qcow2", "raw")
    with pytest.raises(ImageInvalid, match="no format VoidVM knows"):
        check_declared("raw", "vpc")


@given(
    st.sampled_from([b"", b"KDMV", b"QFI\xfb", b"# Disk DescriptorFile\n", b"<"]),
    st.binary(max_size=2000),
    st.integers(0, 1 << 40),
)
def test_any_bytes_get_an_answer(magic: bytes, rest: bytes, size: int) -> None:
    try:
        found = find_in(magic + rest, tail=rest[-512:], size_bytes=size)
    except ImageInvalid:
        return
    assert (found.format is None) != (found.packing is None)
