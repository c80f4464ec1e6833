"""Names, descriptions and tags are data: refused or kept, never part of a command or a path."""

from __future__ import annotations

import re

import pytest

from tests.real.conftest import NewVm
from tests.support.contract import Api
from tests.support.guests import command_line
from tests.support.service import Service

REFUSED = (
    "",
    ".",
    "..",
    "../../etc/cron.d/x",
    "a/b",
    "a b",
    "a,b",
    "a,debug-threads=off",
    "a=b",
    "a\nb",
    "a\r\nb",
    "a\0b",
    "a\tb",
    'a"b',
    "a'b",
    "a`id`",
    "$(reboot)",
    "a;b",
    "a\\b",
    "a%s",
    "-\u202egnp",
    "\u0301a",
    "vm-0123456789ab",
    "vm-x",
    "😀",
    "x" * 64,
)
TAKEN_LITERALLY = ("-snapshot", "--", ".hidden", "名前.テスト_1", "ünïcödé-Ω-٣", "x" * 63, "a..b")


def without_identity(arguments: list[str]) -> list[str]:
    """A command line without what differs between any two VMs."""
    text = "\0".join(arguments)
    text = re.sub(r"vm-[0-9a-f]{12}", "vm-ID", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    return re.sub(r"fd=\d+", "fd=N", text).split("\0")


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_name_with_other_than_letters_digits_and_marks_is_refused(
    service: Service, api: Api, name: str
) -> None:
    before = {path.name for path in (service.data / "vms").iterdir()}
    error = api.refused("POST", "/vms", "VALIDATION_ERROR", {"name": name, "memory": 32})
    assert [problem["field"] for problem in error["errors"]] == ["name"]
    assert {path.name for path in (service.data / "vms").iterdir()} == before


def test_odd_names_do_not_change_the_command_line(api: Api, new_vm: NewVm) -> None:
    plain = api.start(new_vm("plain")["id"])
    expected = without_identity(command_line(plain["pid"]))
    api.stop(plain["id"])
    for name in TAKEN_LITERALLY:
        vm = new_vm(name)
        assert vm["name"] == name
        assert api.ok("GET", f"/vms/{vm['id']}")["name"] == name
        started = api.start(vm["id"])
        assert without_identity(command_line(started["pid"])) == expected
        api.stop(vm["id"])


def test_a_new_name_of_a_running_vm_changes_nothing_of_its_process(api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm("before")["id"])
    arguments = command_line(vm["pid"])
    changed = api.ok("PATCH", f"/vms/{vm['id']}", {"name": "after-它"})
    assert (changed["name"], changed["needsRestart"]) == ("after-它", False)
    assert command_line(vm["pid"]) == arguments
    assert api.ok("GET", "/vms/after-它")["id"] == vm["id"]
    api.refused("GET", "/vms/before", "VM_NOT_FOUND")
    # Messages call it by its new name.
    error = api.refused("POST", f"/vms/{vm['id']}/start", "VM_ALREADY_RUNNING")
    assert "after-它" in error["message"]


def test_hostile_descriptions_and_tags_are_kept_and_never_used(api: Api, new_vm: NewVm) -> None:
    plain = api.start(new_vm()["id"])
    words = "',$(touch /tmp/x);\"\n\0../😀 -device virtio-9p,path=/ --"
    vm = new_vm(description=words, tags=["a,b", "../..", "' OR 1=1 --", "-snapshot"])
    started = api.start(vm["id"])
    assert (started["description"], started["tags"]) == (words, vm["tags"])
    assert without_identity(command_line(started["pid"])) == without_identity(
        command_line(plain["pid"])
    )
    found = api.ok("GET", "/vms", params={"tag": "' OR 1=1 --"})["vms"]
    assert [one["id"] for one in found] == [vm["id"]]
