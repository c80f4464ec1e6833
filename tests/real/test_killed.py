"""SIGKILL at any moment, of the service or its qemu-img: no image is half, visible and usable."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Literal

import httpx
import psutil
import pytest

from tests.support.contract import Api
from tests.support.disks import MIB, qcow2, trickling
from tests.support.operations import (
    OPEN,
    STREAM,
    check_images,
    ended,
    leftovers,
    qemu_img,
    succeeded,
    upload,
)
from tests.support.service import Service, eventually
from tests.support.webserver import WebServer, web_server

Work = Literal["import", "upload", "create", "copy", "attach"]
WORKS: tuple[Work, ...] = ("import", "upload", "create", "copy", "attach")
SMALL = {"memory": 32, "disk": 1, "networks": []}
ENTRY = """
[[images.catalog]]
id = "killed-{number}"
title = "An image that is killed"
url = "{url}"
min_memory_mib = 32
min_disk_gib = 1
checksum = {{ algorithm = "sha256", digest = "{digest}" }}
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return qcow2(tmp_path_factory.mktemp("disk"), size=24 * MIB)


@pytest.fixture(scope="module")
def web(disk: bytes) -> Iterator[WebServer]:
    with web_server() as server:
        server.on("/disk", trickling(disk, seconds=0.3))
        yield server


@pytest.fixture(scope="module")
def service(web: WebServer, disk: bytes) -> Iterator[Service]:
    digest = hashlib.sha256(disk).hexdigest()
    entries = [ENTRY.format(number=n, url=web.url("/disk"), digest=digest) for n in range(100)]
    service = Service()
    service.config = "[images]\nallow_private_urls = true\n" + "".join(entries)
    try:
        service.start()
        succeeded(service.api(), upload(service.api(), disk, "base"))
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    return service.api()


class Round:
    """One piece of long work, begun; what it should become is looked at afterwards."""

    def __init__(self, api: Api, web: WebServer, disk: bytes, number: int) -> None:
        self._api, self._web, self._disk, self._number = api, web, disk, number

    def begin(self, work: Work) -> None:
        name = f"{work}-{self._number}"
        match work:
            case "import":
                self._send("/images", {"name": name, "url": self._web.url("/disk")})
            case "upload":
                self._upload(name)
            case "create":
                self._send("/vms", {"name": name, "os": f"killed-{self._number}", **SMALL})
            case "copy":
                self._send("/vms", {"name": name, "image": "base", "fullCopy": True, **SMALL})
            case "attach":
                self._send("/vms", {"name": name, **SMALL})
                self._send(f"/vms/{name}/disks", {"size": 1, "image": "base"})

    def _send(self, path: str, body: dict[str, object]) -> None:
        answer = self._api.call("POST", path, json=body)
        assert answer.is_success, answer.text

    def _upload(self, name: str) -> None:
        body = {"name": name, "sizeBytes": len(self._disk)}
        upload_id = self._api.ok("POST", "/images/uploads", body)["uploadId"]
        headers = {"content-type": STREAM, "upload-offset": "0"}
        path = f"/images/uploads/{upload_id}"
        assert self._api.call("PATCH", path, content=self._disk, headers=headers).is_success


def kill_qemu_img(service: Service, *, patience_s: float) -> None:
    """Kill the next qemu-img of the service."""
    parent = psutil.Process(service.pid)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        for child in parent.children(recursive=True):
            with suppress(psutil.Error):
                if any(part.endswith("qemu-img") for part in child.cmdline()):
                    child.kill()
                    return
        time.sleep(0.002)


def check(service: Service, api: Api) -> None:
    """Everything has ended, and what is there is whole."""
    for status in OPEN:
        for operation in api.ok("GET", "/operations", params={"status": status})["operations"]:
            ended(api, operation["id"])
    for upload_file in (service.data / "uploads").glob("*"):
        upload_id = upload_file.name
        api.ok("DELETE", f"/images/uploads/{upload_id}")
    eventually(lambda: not leftovers(service, api) or None)
    assert check_images(service, api) >= 1
    vms = api.ok("GET", "/vms", params={"limit": 200})["vms"]
    known = {vm["id"] for vm in vms}
    assert {path.name for path in (service.data / "vms").iterdir()} <= known
    for vm in vms:
        assert vm["status"] in {"stopped", "error"}, vm
        folder = Path(service.data, "vms", vm["id"], "disks")
        if vm["status"] == "stopped":
            files = {f"{disk['id']}.qcow2" for disk in vm["disks"]}
            assert {path.name for path in folder.iterdir()} == files
            for file in folder.iterdir():
                qemu_img("check", "-f", "qcow2", file)
        else:
            assert not folder.exists()
        api.remove(vm["id"])


def one_round(service: Service, api: Api, web: WebServer, disk: bytes, number: int) -> None:
    dice = random.Random(number)  # noqa: S311 - the same moments each time
    work = WORKS[number % len(WORKS)]
    of_service = dice.random() < 0.7
    begun = Round(api, web, disk, number)
    if not of_service:
        begun.begin(work)
        kill_qemu_img(service, patience_s=2)
    else:
        # From the first byte of the request on.
        moment = Timer(dice.uniform(0, 1.2), service.kill)
        moment.start()
        with suppress(httpx.TransportError):
            begun.begin(work)
        moment.join()
        service.start()
    check(service, api)


def test_a_sample_of_moments(service: Service, api: Api, web: WebServer, disk: bytes) -> None:
    for number in range(5):
        one_round(service, api, web, disk, number)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(5))
def test_fifty_moments(service: Service, api: Api, web: WebServer, disk: bytes, part: int) -> None:
    for number in range(10 + 10 * part, 20 + 10 * part):
        one_round(service, api, web, disk, number)
