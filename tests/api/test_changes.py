"""Changing VMs, running or not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.fakes.qemu import FakeHost, FakeQemu
from tests.support.contract import Api
from tests.support.local import LocalService


@pytest.fixture
def three(api: Api, name: str) -> Iterator[list[str]]:
    """The ids of three VMs with tags and descriptions."""
    made = [
        api.create(f"{name}-one", tags=[name, f"{name}-odd"], description="100%_sure")["id"],
        api.create(f"{name}-two", tags=[name], description="100xxsure")["id"],
        api.create(f"{name}-three", tags=[name, f"{name}-odd"])["id"],
    ]
    yield made
    for vm in made:
        api.remove(vm)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_stopped_vm_is_changed_at_once(api: Api, name: str, vm: str, method: str) -> None:
    path = f"/vms/{vm}" + ("/config" if method == "PUT" else "")
    before = api.ok("GET", f"/vms/{vm}")
    wanted = {
        "name": f"{name}-new",
        "cpu": 4,
        "memory": 400,
        "disk": 2,
        "description": "new",
        "tags": ["new"],
        "machine": "pc",
        "bootOrder": ["cdrom"],
        "autostart": {"enabled": True, "order": 0, "delay": 0},
        "restartPolicy": "on-failure",
        "kernel": {"image": "tiny-vmlinuz", "initrd": None, "cmdline": ""},
    }
    after = api.ok(method, path, wanted)
    assert {key: after[key] for key in wanted} == wanted
    assert after["updatedAt"] > before["updatedAt"]
    assert (after["pending"], after["needsRestart"]) == ({}, False)
    same = set(after) - set(wanted) - {"updatedAt", "disks"}
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert api.ok("GET", f"/vms/{name}-new") == after
    assert api.call("GET", f"/vms/{name}").status_code == 404
    cleared = api.ok(method, path, {"kernel": None, "tags": [], "description": ""})
    assert (cleared["kernel"], cleared["tags"], cleared["description"]) == (None, [], "")


def test_an_empty_change_changes_nothing(api: Api, vm: str) -> None:
    before = api.ok("GET", f"/vms/{vm}")
    after = api.ok("PATCH", f"/vms/{vm}", {})
    assert {**after, "updatedAt": ""} == {**before, "updatedAt": ""}


def test_hardware_of_a_running_vm_waits(api: Api, host: FakeHost, running: str) -> None:
    before = api.ok("GET", f"/vms/{running}")
    after = api.ok(
        "PATCH", f"/vms/{running}", {"cpu": 2, "machine": "pc", "description": "at once"}
    )
    assert (after["cpu"], after["machine"]) == (before["cpu"], before["machine"])
    assert after["description"] == "at once"
    assert (after["pending"], after["needsRestart"]) == ({"cpu": 2, "machine": "pc"}, True)
    back = api.ok("PATCH", f"/vms/{running}", {"machine": "q35"})
    assert back["pending"] == {"cpu": 2}
    restarted = api.ok("POST", f"/vms/{running}/restart", {"mode": "force"})
    assert (restarted["cpu"], restarted["pending"]) == (2, {})
    assert restarted["needsRestart"] is False
    command = host.alive()[running].command
    assert command[command.index("-smp") + 1] == "cpus=2"


def test_networks_that_stay_the_same_wait_for_nothing(api: Api, running: str) -> None:
    networks = api.ok("GET", f"/vms/{running}")["networks"]
    assert api.ok("PATCH", f"/vms/{running}", {"networks": networks})["pending"] == {}


def test_the_disk_of_a_running_vm_grows_at_once(api: Api, running: str, qemu: FakeQemu) -> None:
    assert api.ok("PATCH", f"/vms/{running}", {"disk": 3})["disk"] == 3
    assert qemu.sizes == {"disk0": 3 * 1024**3}


def test_a_disk_never_shrinks(api: Api, local: LocalService, vm: str) -> None:
    api.ok("PATCH", f"/vms/{vm}", {"disk": 3})
    error = api.refused("PATCH", f"/vms/{vm}", "VALIDATION_ERROR", {"disk": 2, "cpu": 9})
    assert error["errors"] == [{"field": "disk", "message": "may only grow; it has 3 GiB"}]
    assert api.ok("GET", f"/vms/{vm}")["cpu"] == 1
    file = local.folder / "d" / "vms" / vm / "disks" / "disk0.qcow2"
    output = subprocess.run(
        ["qemu-img", "info", "--output=json", str(file)], check=True, capture_output=True
    ).stdout
    assert json.loads(output)["virtual-size"] == 3 * 1024**3


def test_a_change_to_a_taken_name_changes_nothing(api: Api, three: list[str], name: str) -> None:
    body = {"name": f"{name}-two", "cpu": 7, "disk": 5}
    api.refused("PATCH", f"/vms/{three[0]}", "NAME_TAKEN", body)
    vm = api.ok("GET", f"/vms/{three[0]}")
    assert (vm["name"], vm["cpu"], vm["disk"]) == (f"{name}-one", 1, 1)


def test_a_change_to_the_own_name_is_fine(api: Api, name: str, vm: str) -> None:
    assert api.ok("PATCH", f"/vms/{vm}", {"name": name})["name"] == name


def test_changes_that_do_not_go_together_are_refused(api: Api, vm: str) -> None:
    body = {"machine": "microvm", "firmware": "uefi"}
    error = api.refused("PATCH", f"/vms/{vm}", "VALIDATION_ERROR", body)
    assert [problem["field"] for problem in error["errors"]] == ["firmware"]
    api.ok("PATCH", f"/vms/{vm}", {"machine": "microvm"})
    error = api.refused(
        "PATCH", f"/vms/{vm}", "VALIDATION_ERROR", {"networks": [{"model": "e1000"}]}
    )
    assert [problem["field"] for problem in error["errors"]] == ["networks"]


def test_a_renamed_vm_is_called_so_in_errors(api: Api, name: str, vm: str) -> None:
    api.ok("PATCH", f"/vms/{vm}", {"name": f"{name}-b"})
    error = api.refused("POST", f"/vms/{vm}/stop", "VM_NOT_RUNNING")
    assert f"{name}-b" in error["message"]
