"""Images by the catalogue and by address: fetched once, verified, and made from any format."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.contract import Api, Json
from tests.support.disks import MIB, Held, content, iso, qcow2
from tests.support.operations import (
    check_images,
    ended,
    failed,
    image_file,
    import_url,
    leftovers,
    operation_of,
    qemu_img,
    sha256,
    succeeded,
)
from tests.support.service import Service, eventually
from tests.support.webserver import WebServer, web_server

CATALOG = """
[images]
allow_private_urls = true
"""
ENTRY = """
[[images.catalog]]
id = "{os}"
title = "{os} from the next room"
url = "{url}"
default_user = "nobody"
min_memory_mib = 64
min_disk_gib = 1
checksum = {checksum}
"""


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return qcow2(tmp_path_factory.mktemp("disk"))


def entries(web: WebServer, disk: bytes) -> str:
    """A catalogue: one entry for each form of a checksum, and some that go wrong."""
    digest = hashlib.sha256(disk).hexdigest()
    lists = {
        "gnu": f"{'0' * 64}  other.qcow2\n{digest} *gnu.qcow2\n",
        "bsd": f"SHA256 (other.qcow2) = {'0' * 64}\nSHA256 (bsd.qcow2) = {digest}\n",
        "bare": f"{digest}\n",
    }
    text = CATALOG
    for form, body in lists.items():
        web.file(f"/{form}.qcow2", disk)
        sums = web.file(f"/{form}.sums", body.encode())
        checksum = f'{{ algorithm = "sha256", format = "{form}", url = "{sums}" }}'
        text += ENTRY.format(os=f"{form}-os", url=web.url(f"/{form}.qcow2"), checksum=checksum)
    pinned = f'{{ algorithm = "sha256", digest = "{digest}" }}'
    wrong = f'{{ algorithm = "sha256", digest = "{"1" * 64}" }}'
    for os in ("twice", "slow", "killed", "deleted", "cancelled", "stopped", "shared"):
        text += ENTRY.format(os=f"{os}-os", url=web.url(f"/{os}"), checksum=pinned)
    text += ENTRY.format(os="wrong-os", url=web.file("/wrong", disk), checksum=wrong)
    return text + ENTRY.format(os="gone-os", url=web.url("/gone"), checksum=pinned)


@pytest.fixture(scope="module")
def service(web: WebServer, disk: bytes) -> Iterator[Service]:
    """A running service with a catalogue of its own."""
    service = Service()
    service.config = entries(web, disk)
    try:
        service.start()
        yield service
        check_images(service, service.api())
    finally:
        service.close()


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    return service.api()


@pytest.fixture
def clean(service: Service, api: Api) -> Iterator[None]:
    """No VM is left, and nothing that belongs to no image."""
    yield
    for vm in api.ok("GET", "/vms")["vms"]:
        api.remove(vm["id"])
    assert leftovers(service, api) == []
    assert list((service.data / "vms").iterdir()) == []


pytestmark = pytest.mark.usefixtures("clean")
SMALL = {"memory": 32, "disk": 1, "networks": []}


def create(api: Api, os: str, **more: Json) -> Json:
    return api.ok("POST", "/vms", {"name": f"vm-of-{os}"[3:], "os": os, **SMALL, **more})


def made(api: Api, vm: Json, *, timeout_s: float = 30) -> Json:
    """The VM, when it is no longer being made."""

    def look() -> Json | None:
        found = api.ok("GET", f"/vms/{vm['id']}")
        return None if found["status"] == "creating" else found

    return eventually(look, timeout_s=timeout_s)


def has_bytes(api: Api, vm: Json) -> Json:
    """The operation that makes a VM, once a part of its image has arrived."""

    def look() -> Json | None:
        operation = api.ok("GET", f"/operations/{vm['operationId']}")
        return operation if operation["progress"]["bytesDone"] else None

    return eventually(look)


@pytest.fixture
def hold(web: WebServer, disk: bytes) -> Iterator[Held]:
    held = Held(disk)
    try:
        yield held
    finally:
        held.go.set()


# The catalogue


@pytest.mark.parametrize("form", ["gnu", "bsd", "bare"])
def test_a_vm_of_an_os_that_is_not_here_fetches_it(
    service: Service, api: Api, disk: bytes, form: str
) -> None:
    vm = create(api, f"{form}-os")
    assert vm["status"] == "creating"
    operation = succeeded(api, vm["operationId"])
    assert (operation["type"], operation["resources"]) == (
        "vm-create", [f"/api/v1/vms/{vm['id']}"],
    )  # fmt: skip
    found = api.ok("GET", f"/vms/{vm['id']}")
    assert (found["status"], found["statusReason"], found["os"]) == ("stopped", None, f"{form}-os")
    image = api.ok("GET", f"/images/{form}-os")
    assert (image["os"], image["owner"], image["public"]) == (f"{form}-os", None, True)
    assert image["checksum"] == sha256(disk)
    assert found["disks"][0]["image"] == image["id"]
    # Present by now: the next one is an overlay, in milliseconds and without an operation.
    begun = time.monotonic()
    again = create(api, f"{form}-os", name=f"second-{form}")
    assert time.monotonic() - begun < 2
    assert (again["status"], again["operationId"]) == ("stopped", None)


def test_the_catalogue_lists_entries_of_the_configuration(api: Api) -> None:
    found = {one["os"]: one for one in api.ok("GET", "/images/catalog")["images"]}
    assert found["wrong-os"]["present"] is False
    assert found["wrong-os"]["title"] == "wrong-os from the next room"
    assert {"debian12", "ubuntu20.04", "tiny", "alpine"} & set(found) >= {"debian12", "ubuntu20.04"}


def test_it_starts_by_itself_when_it_is_wanted_running(
    api: Api, web: WebServer, hold: Held
) -> None:
    web.on("/slow", hold)
    vm = create(api, "slow-os", start=True)
    progress = has_bytes(api, vm)["progress"]
    assert progress["stage"] == "download"
    assert progress["bytesTotal"] == len(hold.body)
    found = api.ok("GET", f"/vms/{vm['id']}")
    assert (found["status"], found["operationId"]) == ("creating", vm["operationId"])
    assert api.refused("POST", f"/vms/{vm['id']}/start", "VM_BUSY")["details"] == "create"
    hold.go.set()
    succeeded(api, vm["operationId"])
    assert made(api, vm)["status"] == "running"


def test_two_at_once_fetch_once(api: Api, web: WebServer, hold: Held) -> None:
    web.on("/twice", hold)
    with ThreadPoolExecutor() as pool:
        vms = list(pool.map(lambda n: create(api, "twice-os", name=f"twin{n}"), range(2)))
        explicit = operation_of(api.call("POST", "/images", json={"os": "twice-os"}))
    for vm in vms:
        has_bytes(api, vm)
    hold.go.set()
    succeeded(api, explicit)
    found = [made(api, vm) for vm in vms]
    assert [vm["status"] for vm in found] == ["stopped", "stopped"]
    assert len({vm["disks"][0]["image"] for vm in found}) == 1
    assert hold.calls == 1


def test_who_waits_for_another_ones_fetch_can_watch_it_and_is_not_cancelled_with_it(
    service: Service, api: Api, web: WebServer, hold: Held
) -> None:
    web.on("/shared", hold)
    password = "a long password 1"
    api.ok("POST", "/users", {"username": "guest", "password": password})
    other = service.api(username="guest", password=password)
    first = create(api, "shared-os")
    has_bytes(api, first)
    second = operation_of(other.call("POST", "/images", json={"os": "shared-os"}))
    assert other.ok("GET", f"/operations/{second}", params={"wait": 0.1})["createdBy"] == "guest"
    api.ok("DELETE", f"/operations/{first['operationId']}")
    hold.go.set()
    succeeded(other, second)
    assert hold.calls == 1
    found = made(api, first)
    assert (found["status"], found["statusReason"]) == ("error", "creation cancelled")


@pytest.mark.parametrize(
    ("os", "code", "words"),
    [("gone-os", "DOWNLOAD_REFUSED", "404"), ("wrong-os", "CHECKSUM_MISMATCH", "checksum")],
)
def test_a_fetch_that_fails_leaves_a_vm_that_says_why(
    service: Service, api: Api, os: str, code: str, words: str
) -> None:
    vm = create(api, os, start=True)
    failed(api, vm["operationId"], code)
    found = made(api, vm)
    assert found["status"] == "error"
    assert words in found["statusReason"]
    error = api.refused("POST", f"/vms/{vm['id']}/start", "COMMAND_FAILED")
    assert "never made" in error["details"]
    assert os not in [image["name"] for image in api.ok("GET", "/images")["images"]]
    api.ok("DELETE", f"/vms/{vm['id']}")
    assert leftovers(service, api) == []


def test_deleting_a_vm_that_is_being_made_ends_its_fetch(
    service: Service, api: Api, web: WebServer, hold: Held
) -> None:
    web.on("/deleted", hold)
    vm = create(api, "deleted-os")
    has_bytes(api, vm)
    api.ok("DELETE", f"/vms/{vm['id']}")
    api.refused("GET", f"/vms/{vm['id']}", "VM_NOT_FOUND")
    assert api.ok("GET", f"/operations/{vm['operationId']}")["status"] == "cancelled"
    assert leftovers(service, api) == []
    hold.go.set()
    time.sleep(0.3)
    assert "deleted-os" not in [image["name"] for image in api.ok("GET", "/images")["images"]]


def test_a_cancelled_creation_can_be_deleted_and_begun_again(
    service: Service, api: Api, web: WebServer, hold: Held
) -> None:
    web.on("/cancelled", hold)
    vm = create(api, "cancelled-os")
    has_bytes(api, vm)
    assert api.ok("DELETE", f"/operations/{vm['operationId']}")["status"] == "cancelled"
    found = api.ok("GET", f"/vms/{vm['id']}")
    assert (found["status"], found["statusReason"]) == ("error", "creation cancelled")
    assert leftovers(service, api) == []
    api.ok("DELETE", f"/vms/{vm['id']}")
    hold.go.set()
    again = create(api, "cancelled-os")
    assert made(api, again)["status"] == "stopped"


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_next_service_goes_on_with_a_creation(
    service: Service, api: Api, web: WebServer, hold: Held, end: str
) -> None:
    os = {"kill": "killed", "stop": "stopped"}[end]
    web.on(f"/{os}", hold)
    vm = create(api, f"{os}-os", start=True)
    has_bytes(api, vm)
    getattr(service, end)()
    hold.go.set()
    service.start()
    found = api.ok("GET", f"/vms/{vm['id']}")
    succeeded(api, found["operationId"])
    assert api.ok("GET", f"/vms/{vm['id']}")["status"] == "running"
    assert found["operationId"] != vm["operationId"]
    assert api.ok("GET", f"/operations/{vm['operationId']}")["status"] == "interrupted"
    assert hold.calls == 2


def test_an_unknown_os_is_refused_with_the_nearest_names(api: Api) -> None:
    for path, body in (("/vms", {"name": "x", "os": "debain12"}), ("/images", {"os": "debain12"})):
        assert "debian12" in api.refused("POST", path, "UNKNOWN_OS", body)["details"]
    body = {"name": "x", "os": "tiny"}
    assert "image build tiny" in api.refused("POST", "/vms", "IMAGE_NOT_READY", body)["hint"]


def test_a_dry_run_fetches_nothing(api: Api) -> None:
    body = {"name": "x", "os": "gone-os", **SMALL}
    assert api.ok("POST", "/vms", body, params={"dryRun": "true"})["operationId"] is None
    assert api.ok("GET", "/vms")["vms"] == []


# By address


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
