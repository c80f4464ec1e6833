"""Images from elsewhere: every form becomes our own, and nothing hostile gets in."""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
from pathlib import Path

import pytest

from tests.support.contract import Api, Json
from tests.support.disks import MIB, content, iso, qcow2
from tests.support.operations import (
    ended,
    failed,
    image_file,
    import_url,
    leftovers,
    qemu_img,
    sha256,
    succeeded,
)
from tests.support.service import Service
from tests.support.webserver import WebServer


def packed(name: str, data: bytes) -> bytes:
    if name == "gzip":
        return gzip.compress(data, 1)
    if name == "xz":
        return lzma.compress(data, preset=0)
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("form", ["qcow2", "raw", "vmdk", "vdi", "vhdx"])
def test_every_disk_format_becomes_our_own_with_the_same_content(
    service: Service, api: Api, web: WebServer, tmp_path: Path, form: str
) -> None:
    raw, other = tmp_path / "raw", tmp_path / "other"
    # A boot sector's mark: what tells a raw disk from any file.
    data = bytearray(content(2 * MIB, seed=7))
    data[510:512] = b"\x55\xaa"
    raw.write_bytes(data)
    qemu_img("convert", "-f", "raw", "-O", form, raw, other)
    body = other.read_bytes()
    url = web.file(f"/a.{form}", body)
    operation = import_url(api, url, f"from-{form}", checksum=sha256(body))
    succeeded(api, operation)
    image = api.ok("GET", f"/images/from-{form}")
    assert (image["kind"], image["format"], image["checksum"]) == ("disk", "qcow2", sha256(body))
    assert image["virtualSizeBytes"] == 2 * MIB
    back = tmp_path / "back"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", image_file(service, image), back)
    assert back.read_bytes() == data
    assert image_file(service, image).stat().st_mode & 0o077 == 0
    assert b"backing" not in qemu_img("info", image_file(service, image)).encode()


@pytest.mark.parametrize("packing", ["gzip", "xz", "zstd"])
def test_packed_images_are_unpacked(
    service: Service, api: Api, web: WebServer, disk: bytes, packing: str
) -> None:
    body = packed(packing, disk)
    succeeded(api, import_url(api, web.file(f"/p.{packing}", body), f"packed-{packing}"))
    image = api.ok("GET", f"/images/packed-{packing}")
    # The checksum is that of the file as it was sent.
    assert (image["kind"], image["checksum"]) == ("disk", sha256(body))
    assert image["virtualSizeBytes"] == 4 * MIB


def test_a_cd_stays_as_it_is(service: Service, api: Api, web: WebServer) -> None:
    body = iso(("hello.txt", b"hello"))
    succeeded(api, import_url(api, web.file("/cd", body), "a-cd"))
    image = api.ok("GET", "/images/a-cd")
    assert (image["kind"], image["format"], image["sizeBytes"]) == ("iso", "iso", len(body))
    assert image_file(service, image).read_bytes() == body
    assert [one["name"] for one in api.ok("GET", "/images", params={"kind": "iso"})["images"]] == [
        "a-cd"
    ]


def test_a_broken_connection_is_resumed_where_it_stopped(
    api: Api, web: WebServer, disk: bytes
) -> None:
    from tests.support.webserver import breaking_after  # noqa: PLC0415 - this test's alone

    url = web.on("/breaks", breaking_after(disk, 3_000_000))
    succeeded(api, import_url(api, url, "resumed", checksum=sha256(disk)))
    starts = [call.start for call in web.calls if call.path == "/breaks"]
    assert starts[0] == 0
    assert len(starts) == 2
    assert 0 < starts[1] <= 3_000_000


# What must not come in


def backing(folder: Path) -> bytes:
    base, over = folder / "base", folder / "over"
    qemu_img("create", "-f", "qcow2", base, "1M")
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "qcow2", over)
    return over.read_bytes()


def secret(folder: Path) -> bytes:
    """An overlay over a file of the host."""
    data = bytearray(backing(folder))
    place, length = struct.unpack_from(">QI", data, 8)
    data[place : place + length] = b"/etc/shadow".ljust(length, b"\0")[:length]
    return bytes(data)


def external(folder: Path) -> bytes:
    made = folder / "ext"
    options = f"data_file={folder / 'data'},data_file_raw=on"
    qemu_img("create", "-f", "qcow2", "-o", options, made, "1M")
    return made.read_bytes()


def huge(folder: Path) -> bytes:
    made = folder / "huge"
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=2M", made, "100T")
    return made.read_bytes()


def torn(folder: Path) -> bytes:
    return qcow2(folder)[:100_000]


def disguised(_folder: Path) -> bytes:
    """qcow2's first bytes, then something else."""
    return b"QFI\xfb" + content(MIB)


def vmdk_flat(folder: Path) -> bytes:
    """A descriptor that names another file as its extent."""
    return (
        b"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
        b'createType="monolithicFlat"\nRW 2048 FLAT "/etc/shadow" 0\n'
    )


def twice_packed(folder: Path) -> bytes:
    return gzip.compress(gzip.compress(qcow2(folder), 1), 1)


def cut_packed(folder: Path) -> bytes:
    return gzip.compress(qcow2(folder), 1)[:-1000]


def text(_folder: Path) -> bytes:
    return b"<html>404 not found, politely with 200</html>\n" * 100


def empty(_folder: Path) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("make", "codes"),
    [
        (backing, {"IMAGE_INVALID"}),
        (secret, {"IMAGE_INVALID"}),
        (external, {"IMAGE_INVALID"}),
        (huge, {"IMAGE_TOO_LARGE", "IMAGE_INVALID"}),
        (torn, {"IMAGE_INVALID"}),
        (disguised, {"IMAGE_INVALID"}),
        (vmdk_flat, {"IMAGE_INVALID"}),
        (twice_packed, {"IMAGE_INVALID"}),
        (cut_packed, {"IMAGE_INVALID"}),
        (text, {"IMAGE_INVALID"}),
        (empty, {"IMAGE_INVALID"}),
    ],
)
def test_a_hostile_file_never_becomes_an_image(
    service: Service,
    api: Api,
    web: WebServer,
    tmp_path: Path,
    make: Json,
    codes: set[str],
) -> None:
    url = web.file(f"/{make.__name__}", make(tmp_path))
    found = ended(api, import_url(api, url, "hostile"))
    assert found["status"] == "failed", found
    assert found["error"]["code"] in codes, found["error"]
    assert found["error"]["details"], "no word of why"
    said = found["error"]["message"] + found["error"]["details"]
    assert str(service.data) not in said
    assert "/etc/shadow" not in said or make is secret or make is vmdk_flat
    api.refused("GET", "/images/hostile", "IMAGE_NOT_FOUND")
    assert leftovers(service, api) == []


def test_a_wrong_checksum_never_becomes_an_image(
    service: Service, api: Api, web: WebServer, disk: bytes
) -> None:
    url = web.file("/sum", disk)
    error = failed(
        api, import_url(api, url, "sum", checksum="sha256:" + "a" * 64), "CHECKSUM_MISMATCH"
    )
    assert sha256(disk) in error["details"]
    api.refused("GET", "/images/sum", "IMAGE_NOT_FOUND")
    assert leftovers(service, api) == []


def test_what_is_asked_for_wrongly_is_refused_before_anything_begins(api: Api) -> None:
    url = "http://127.0.0.1:1/x"
    for body, field in (
        ({}, "name"),
        ({"name": "a"}, "url"),
        ({"name": "a", "url": "ftp://example.org/x"}, "url"),
        ({"name": "a", "url": "file:///etc/passwd"}, "url"),
        ({"name": "a/b", "url": url}, "name"),
        ({"name": "a", "url": url, "checksum": "md5:" + "0" * 32}, "checksum"),
        ({"os": "debian12", "url": url}, "url"),
    ):
        error = api.refused("POST", "/images", "VALIDATION_ERROR", body)
        assert field in [problem["field"] for problem in error["errors"]], error


def test_a_private_address_is_refused_unless_the_configuration_allows_it(web: WebServer) -> None:
    service = Service()
    try:
        service.start()
        api = service.api()
        before = len(web.calls)
        failed(api, import_url(api, web.url("/gnu.qcow2"), "inside"), "URL_REFUSED")
        assert len(web.calls) == before
    finally:
        service.close()
