"""`GET /health` on hosts that fall ill: a disk that fills, a database that cannot be written."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import psutil
import pytest

from tests.support.contract import Api, Json
from tests.support.disks import MIB
from tests.support.service import NO_TLS, Service, eventually

SIZE_MIB = 300


def health(service: Service) -> httpx.Response:
    return httpx.get(f"{service.url}/health", trust_env=False, verify=NO_TLS)


def codes(service: Service) -> list[str] | None:
    answer = health(service)
    if answer.status_code != 200:
        return None
    body = answer.json()
    found = [one["code"] for one in body["data"]["reasons"]]
    assert body["status"] == body["data"]["status"] == ("degraded" if found else "ok")
    return found


def told(api: Api) -> list[Json]:
    """The data of the events of health, oldest first."""
    found = api.ok("GET", "/events", params={"limit": 200})["events"]
    return [one["data"] for one in found if one["event"] == "system.health"]


@pytest.fixture(scope="module")
def small() -> Iterator[Service]:
    """A service whose data directory is a small file system of its own."""
    service = Service()
    service.data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=700", "vv", str(service.data)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        service.close()
        pytest.skip(f"no tmpfs may be mounted here: {done.stderr.strip()}")
    try:
        service.start()
        yield service
    finally:
        service.end_processes()
        subprocess.run(["umount", "--lazy", str(service.data)], check=True)
        service.close()


@contextmanager
def filled(service: Service, *, but: int) -> Iterator[None]:
    """Meanwhile another program's file leaves so many bytes free, at the first look."""
    ballast = service.data / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while os.statvfs(service.data).f_bavail * os.statvfs(service.data).f_frsize > but:
                file.write(bytes(MIB))
        yield
    finally:
        ballast.unlink()


def test_a_disk_that_fills_is_told_and_so_is_the_room_that_comes_back(small: Service) -> None:
    api = small.api()
    eventually(lambda: codes(small) == [], timeout_s=30)
    before = len(told(api))
    with filled(small, but=100 * MIB):
        eventually(lambda: codes(small) == ["disk-nearly-full"])
        eventually(lambda: len(told(api)) == before + 1)
    eventually(lambda: codes(small) == [])
    eventually(lambda: len(told(api)) == before + 2)
    assert told(api)[before:] == [
        {"status": "degraded", "reasons": ["disk-nearly-full"]},
        {"status": "ok", "reasons": []},
    ]


def test_a_database_without_room_is_degraded_until_there_is_some(small: Service) -> None:
    api = small.api()
    places = itertools.count(11)

    def is_refused() -> bool:
        body = {"limits": {"websocketsPerUser": next(places)}}
        return api.call("PUT", "/config", json=body).status_code == 507

    said = "degraded: The database has no room on its disk"
    before = small.log.read_text().count(said)
    with filled(small, but=0):
        # What the database holds in reserve is used up first.
        eventually(is_refused, timeout_s=60)
        assert "database-full" in (codes(small) or [])
        assert api.ok("GET", "/vms")["vms"] == []
        eventually(lambda: small.log.read_text().count(said) == before + 1)
    eventually(lambda: codes(small) == [], timeout_s=30)
    assert small.log.read_text().count(said) == before + 1
    api.ok("PUT", "/config", {"limits": {"websocketsPerUser": None}})


def test_a_database_that_cannot_be_written_is_no_service() -> None:
    service = Service()
    try:
        service.start()
        api = service.api()
        process = psutil.Process(service.pid)
        _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        # Each write of a file beyond its first byte fails from now on.
        process.rlimit(psutil.RLIMIT_FSIZE, (1, hard))
        assert api.call("PUT", "/config", json={"limits": {"websocketsPerUser": 9}}).is_error
        answer = health(service)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "DATABASE_UNUSABLE"
        assert int(answer.headers["content-length"]) > 0
        process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        eventually(lambda: codes(service) == [], timeout_s=30)
    finally:
        service.close()


def test_a_host_without_qemu_is_degraded() -> None:
    service = Service(VOIDVM_QEMU__BINARY="/nonexistent/qemu", VOIDVM_QEMU__IMG_BINARY="no-such")
    try:
        service.start()
        assert codes(service) == ["qemu-missing", "qemu-img-missing"]
        chinese = {"accept-language": "zh"}
        answer = httpx.get(
            f"{service.url}/health", headers=chinese, trust_env=False, verify=NO_TLS
        ).json()
        assert "QEMU" in answer["data"]["reasons"][0]["message"]
        assert answer["data"]["reasons"][0]["message"] != "QEMU is not there: no VM can be started."
    finally:
        service.close()
