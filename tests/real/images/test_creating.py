"""VMs whose image must be fetched first."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.contract import Api
from tests.support.creating import SMALL, create, has_bytes, made
from tests.support.disks import Held
from tests.support.operations import (
    failed,
    leftovers,
    operation_of,
    sha256,
    succeeded,
)
from tests.support.service import Service
from tests.support.webserver import WebServer


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
    error = api.refused("POST", f"/vms/{vm['id']}/start", "VM_STATE_CONFLICT")
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
    for path, body in (("/vms", {"name": "x", "os": "tiny"}), ("/images", {"os": "tiny"})):
        assert "image build tiny" in api.refused("POST", path, "IMAGE_NOT_READY", body)["hint"]


def test_a_dry_run_fetches_nothing(api: Api) -> None:
    body = {"name": "x", "os": "gone-os", **SMALL}
    assert api.ok("POST", "/vms", body, params={"dryRun": "true"})["operationId"] is None
    assert api.ok("GET", "/vms")["vms"] == []


# By address
