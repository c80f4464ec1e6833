"""Making, finding, listing, changing and deleting VMs."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator

import pytest

from tests.fakes.qemu import FakeHost, json_options
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from voidvm.domain.vm import VmCreate, VmPatch


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


def listed(api: Api, **query: Json) -> list[str]:
    return [vm["id"] for vm in api.ok("GET", "/vms", params=query)["vms"]]


# Making


def test_only_the_name_is_required(api: Api, name: str) -> None:
    response = api.call("POST", "/vms", json={"name": name})
    assert response.status_code == 201
    vm = response.json()["data"]
    assert response.headers["location"] == f"/api/v1/vms/{vm['id']}"
    assert {key: vm[key] for key in ("cpu", "memory", "disk", "os", "image", "iso", "kernel")} == {
        "cpu": 1,
        "memory": 1024,
        "disk": 10,
        "os": None,
        "image": None,
        "iso": None,
        "kernel": None,
    }
    assert (vm["status"], vm["statusReason"], vm["pid"], vm["uptime"]) == (
        *("stopped", None),
        *(None, None),
    )
    assert (vm["owner"], vm["machine"], vm["firmware"], vm["accel"]) == (
        *("admin", "q35"),
        *("bios", "auto"),
    )
    assert (vm["accelInUse"], vm["pending"], vm["needsRestart"]) == (None, {}, False)
    assert vm["disks"] == [
        {
            "id": "disk0",
            "size": 10,
            "format": "qcow2",
            "bus": "virtio",
            "cache": "writeback",
            "discard": True,
            "image": None,
        }
    ]
    assert vm["createdAt"] == vm["updatedAt"]
    assert api.ok("GET", f"/vms/{vm['id']}") == vm
    api.remove(vm["id"])


def test_what_is_asked_for_is_kept(api: Api, name: str) -> None:
    wanted = {
        "name": name,
        "cpu": 3,
        "memory": 333,
        "disk": 3,
        "os": "tiny",
        "kernel": {"image": "tiny-vmlinuz", "initrd": "tiny-initramfs", "cmdline": "a b=c,d"},
        "description": 'line\nline, "quoted" 🚀',
        "tags": ["a,b", "🚀"],
        "firmware": "bios",
        "machine": "pc",
        "accel": "tcg",
        "networks": [
            {
                "type": "user",
                "model": "e1000",
                "mac": "52:54:00:aa:bb:cc",
                "forwards": [
                    {
                        "guestPort": 80,
                        "hostPort": 0,
                        "hostAddress": "127.0.0.1",
                        "protocol": "tcp",
                    }
                ],
                "isolated": True,
            }
        ],
        "bootOrder": ["network", "disk"],
        "autostart": {"enabled": True, "order": 5, "delay": 9},
        "restartPolicy": "always",
    }
    vm = api.ok("POST", "/vms", wanted)
    assert {key: vm[key] for key in wanted} == wanted
    assert vm["disks"][0]["image"] == api.ok("GET", "/images/tiny")["id"]
    api.remove(vm["id"])


def test_every_field_of_a_body_is_tried_here() -> None:
    # A field that is added to the body must be added to the test above.
    assert set(VmCreate.__struct_encode_fields__) - set(VmPatch.__struct_encode_fields__) == {
        "os",
        "image",
        "start",
        "fullCopy",  # tests/real/test_creating.py
        "cloudInit",  # tests/guest/test_debian12.py
    }


def test_each_card_gets_an_address_that_stays(api: Api, name: str) -> None:
    vm = api.create(name, networks=[{}, {}])
    macs = [network["mac"] for network in vm["networks"]]
    assert len(set(macs)) == 2
    assert all(mac.startswith("52:54:00:") for mac in macs)
    started = api.start(vm["id"])
    assert [network["mac"] for network in started["networks"]] == macs
    api.remove(vm["id"])


def test_the_disk_is_an_overlay_of_the_image(api: Api, local: LocalService, vm: str) -> None:
    file = local.folder / "d" / "vms" / vm / "disks" / "disk0.qcow2"
    output = subprocess.run(
        ["qemu-img", "info", "--output=json", str(file)], check=True, capture_output=True
    ).stdout
    info = json.loads(output)
    image = api.ok("GET", "/images/tiny")["id"]
    assert info["virtual-size"] == 1024**3
    assert info["backing-filename-format"] == "qcow2"
    assert f"/{image}/" in info["backing-filename"]
    assert info["format-specific"]["data"]["extended-l2"] is True


def test_files_are_nobody_elses_to_read(local: LocalService, running: str) -> None:
    for path in (local.folder / "d" / "vms" / running, local.folder / "r" / running):
        for file in (path, *path.rglob("*")):
            mode = stat.S_IMODE(file.stat().st_mode)
            assert mode & 0o077 == 0, (file, oct(mode))


def test_a_dry_run_makes_nothing(api: Api, local: LocalService, name: str) -> None:
    folder = local.folder / "d" / "vms"
    before = sorted(path.name for path in folder.iterdir())
    response = api.call(
        "POST", "/vms", params={"dryRun": "true"}, json={"name": name, "os": "tiny", "start": True}
    )
    assert response.status_code == 200
    assert "location" not in response.headers
    assert response.json()["data"]["name"] == name
    assert response.json()["data"]["status"] == "stopped"
    assert api.call("GET", f"/vms/{name}").status_code == 404
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_vm_may_start_as_it_is_made(api: Api, name: str) -> None:
    response = api.call("POST", "/vms", json={"name": name, "os": "tiny", "start": True})
    assert response.status_code == 201
    assert response.json()["data"]["status"] == "running"
    api.remove(name)


def test_a_full_disk_makes_nothing(
    api: Api, local: LocalService, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.services.space.SPARE_BYTES", 2**63)
    response = api.call("POST", "/vms", json={"name": name})
    assert (response.status_code, response.json()["error"]["code"]) == (507, "NO_SPACE")
    assert api.call("GET", f"/vms/{name}").status_code == 404
    assert not list((local.folder / "d" / "vms").glob(".*"))


def test_a_failure_on_the_way_leaves_nothing(
    api: Api, local: LocalService, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    img = local.services.creation._img
    monkeypatch.setattr(img, "_binary", "false")
    folder = local.folder / "d" / "vms"
    before = sorted(path.name for path in folder.iterdir())
    error = api.refused("POST", "/vms", "COMMAND_FAILED", {"name": name})
    assert error["message"] == "qemu-img could not do it."
    assert sorted(path.name for path in folder.iterdir()) == before
    monkeypatch.undo()
    api.remove(api.create(name)["id"])


def test_a_missing_tool_is_told(
    api: Api, local: LocalService, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.services.creation._img, "_binary", "no-such-qemu-img")
    error = api.refused("POST", "/vms", "COMMAND_FAILED", {"name": name})
    assert "no-such-qemu-img" in error["details"]


# Finding and listing


def test_id_and_name_both_work(api: Api, name: str, vm: str) -> None:
    assert api.ok("GET", f"/vms/{vm}") == api.ok("GET", f"/vms/{name}")


@pytest.mark.parametrize("action", ["start", "stop", "restart", "reset", "pause", "resume"])
def test_actions_on_a_vm_that_is_not_there_are_404(api: Api, action: str) -> None:
    error = api.refused("POST", f"/vms/ghost/{action}", "VM_NOT_FOUND")
    assert error["message"] == "There is no VM 'ghost'."


def test_pages_follow_each_other(api: Api, name: str, three: list[str]) -> None:
    pages = []
    for page in (1, 2, 3):
        data = api.ok("GET", "/vms", params={"tag": name, "limit": 2, "page": page})
        assert data["pagination"] == {"page": page, "limit": 2, "total": 3, "pages": 2}
        pages.append([vm["id"] for vm in data["vms"]])
    assert pages == [three[:2], three[2:], []]


def test_the_usual_page_has_fifty(api: Api) -> None:
    assert api.ok("GET", "/vms")["pagination"]["limit"] == 50
    empty = api.ok("GET", "/vms", params={"tag": "nobody-has-this"})
    assert empty == {
        "vms": [],
        "pagination": {"page": 1, "limit": 50, "total": 0, "pages": 0},
    }


def test_filters_narrow(api: Api, name: str, three: list[str]) -> None:
    one, two, last = three
    api.start(two)
    assert listed(api, tag=f"{name}-odd") == [one, last]
    assert listed(api, tag=name, status="running") == [two]
    assert listed(api, tag=name, status="stopped") == [one, last]
    assert listed(api, tag=name, status="crashed") == []
    assert listed(api, tag=name, owner="admin") == three
    assert listed(api, tag=name, owner="nobody") == []
    assert listed(api, q=f"{name}-t") == [two, last]
    assert listed(api, q=f"{name}-T") == [two, last]
    assert listed(api, tag=name[:-1] + "%") == []


@pytest.mark.parametrize(
    ("q", "found"),
    [("100%", [0]), ("100%_", [0]), ("%", [0]), ("_", [0]), ("sure", [0, 1]), ("!", [])],
)
def test_a_search_takes_its_text_literally(
    api: Api, name: str, three: list[str], q: str, found: list[int]
) -> None:
    assert listed(api, tag=name, q=q) == [three[number] for number in found]


def test_odd_searches_find_nothing(api: Api) -> None:
    for q in (
        "'; DROP TABLE vms; --",
        "\x00",
        "\ud83d".encode("utf-8", "surrogatepass"),
        "x" * 500,
    ):
        assert api.call("GET", "/vms", params={"q": q, "tag": "none"}).status_code in {200, 400}
    assert api.call("GET", "/vms").status_code == 200


def test_a_status_that_has_just_changed_is_filtered_by(api: Api, vm: str) -> None:
    for _ in range(5):
        api.start(vm)
        assert vm in listed(api, status="running", limit=200)
        api.stop(vm)
        assert vm in listed(api, status="stopped", limit=200)


# Deleting


def test_a_deleted_vm_leaves_nothing(api: Api, local: LocalService, name: str) -> None:
    vm = api.create(name)["id"]
    api.start(vm)
    api.stop(vm)
    response = api.call("DELETE", f"/vms/{vm}")
    assert (response.status_code, response.json()["data"]) == (200, None)
    assert api.call("GET", f"/vms/{vm}").status_code == 404
    assert not [path for path in local.folder.rglob("*") if vm in path.name]
    assert local.statuses(vm)[-1] == "deleting"
    api.refused("DELETE", f"/vms/{vm}", "VM_NOT_FOUND")


def test_a_running_vm_is_not_deleted_by_mistake(api: Api, running: str) -> None:
    error = api.refused("DELETE", f"/vms/{running}", "VM_ALREADY_RUNNING")
    assert error["details"] == "running"
    assert "force=true" in error["hint"]
    assert api.ok("GET", f"/vms/{running}")["status"] == "running"


def test_a_running_vm_is_deleted_by_force(api: Api, host: FakeHost, name: str) -> None:
    vm = api.create(name)["id"]
    api.start(vm)
    assert api.call("DELETE", f"/vms/{vm}?force=true").status_code == 200
    assert vm not in host.alive()
    assert api.call("GET", f"/vms/{vm}").status_code == 404


# What QEMU is told


def test_requests_reach_qemu_as_json_values(api: Api, host: FakeHost, name: str) -> None:
    cmdline = 'console=ttyS0 a=b,c="d" ,server=on'
    vm = api.create(
        name,
        kernel={"image": "tiny-vmlinuz", "initrd": "tiny-initramfs", "cmdline": cmdline},
        networks=[{"mac": "52:54:00:00:00:01", "isolated": True}],
    )
    api.start(vm["id"])
    command = host.alive()[vm["id"]].command
    assert command[command.index("-append") + 1] == cmdline
    [netdev] = json_options(command, "-netdev")
    assert netdev == {"type": "user", "id": "net0", "restrict": True}
    devices = {device["driver"]: device for device in json_options(command, "-device")}
    assert devices["virtio-net-pci"]["mac"] == "52:54:00:00:00:01"
    api.remove(vm["id"])


def test_a_vm_that_is_deleted_meanwhile_is_left_out_of_a_list(
    local: LocalService, api: Api, vm: str
) -> None:
    machines = local.fleet._machines
    machine = local.do(lambda: machines.pop(vm))
    assert vm not in listed(api, limit=200)
    local.do(lambda: machines.update({vm: machine}))
    assert vm in listed(api, limit=200)


def test_a_deletion_removes_what_a_creation_has_left(
    local: LocalService, api: Api, name: str
) -> None:
    vm_id = api.create(name)["id"]
    draft = local.folder / "d" / "vms" / f".{vm_id}.tmp"
    (draft / "disks").mkdir(parents=True)
    api.remove(vm_id)
    assert not draft.exists()
