"""Starts: one QEMU each, and QEMU's own words when there is none."""

from __future__ import annotations

import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.real.conftest import NewVm
from tests.support.contract import Api
from tests.support.guests import frozen
from tests.support.sectors import SWITCHES_OFF, put_code
from tests.support.service import Service


def disk_of(service: Service, vm_id: str) -> Path:
    return service.data / "vms" / vm_id / "disks" / "disk0.qcow2"


def test_two_starts_at_once_give_one_qemu(service: Service, api: Api, new_vm: NewVm) -> None:
    vm = new_vm()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.call("POST", f"/vms/{vm['id']}/start"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 7]
    codes = {a.json()["error"]["code"] for a in answers if a.status_code == 409}
    assert codes <= {"VM_ALREADY_RUNNING", "VM_BUSY"}
    assert service.qemus() == [api.ok("GET", f"/vms/{vm['id']}")["pid"]]


def test_a_second_start_says_in_details_that_the_vm_runs(api: Api, new_vm: NewVm) -> None:
    vm = new_vm()
    first = api.start(vm["id"])
    error = api.refused("POST", f"/vms/{vm['id']}/start", "VM_ALREADY_RUNNING")
    assert error["details"] == "running"
    again = api.ok("GET", f"/vms/{vm['id']}")
    assert (again["pid"], again["startedAt"]) == (first["pid"], first["startedAt"])


def test_a_guest_that_is_off_again_before_anybody_looked_has_been_started(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    """On a busy host all of its life may be told at once."""
    vm = new_vm()["id"]
    put_code(service, vm, SWITCHES_OFF)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(api.call, "POST", f"/vms/{vm}/start")
        while not service.qemus():
            assert not starting.done()
        with frozen(service.pid):
            time.sleep(3)
        assert starting.result().status_code == 200, starting.result().text
    off = api.ok("GET", f"/vms/{vm}/wait", params={"for": "stopped", "timeout": 10})
    assert off["statusReason"] == "guest-shutdown"
    assert api.ok("GET", f"/vms/{vm}/incidents") == {"incidents": []}


def test_the_words_of_a_qemu_that_cannot_read_its_disk_reach_the_caller(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm = new_vm()
    disk = disk_of(service, vm["id"])
    whole = disk.read_bytes()
    disk.write_bytes(b"no qcow2" + whole[8:])
    error = api.refused("POST", f"/vms/{vm['id']}/start", "VM_START_FAILED")
    assert "Image is not in qcow2 format" in error["details"]
    assert str(service.folder) not in str(error)
    after = api.ok("GET", f"/vms/{vm['id']}")
    assert (after["status"], after["statusReason"]) == ("error", "did not start")
    assert after["pid"] is None
    assert service.qemus() == []
    incident = api.ok("GET", f"/vms/{vm['id']}/incidents")["incidents"][0]
    assert incident["exitStatus"] == 1
    assert "Image is not in qcow2 format" in incident["stderr"]
    assert "-blockdev" in incident["commandLine"]
    disk.write_bytes(whole)
    assert api.start(vm["id"])["status"] == "running"


def test_only_the_last_run_s_words_are_reported(service: Service, api: Api, new_vm: NewVm) -> None:
    vm = new_vm()
    disk = disk_of(service, vm["id"])
    whole = disk.read_bytes()
    disk.write_bytes(b"no qcow2" + whole[8:])
    api.refused("POST", f"/vms/{vm['id']}/start", "VM_START_FAILED")
    disk.unlink()
    error = api.refused("POST", f"/vms/{vm['id']}/start", "VM_START_FAILED")
    assert error["details"] == "cannot open disk0.qcow2: No such file or directory"
    disk.write_bytes(whole)
    disk.chmod(0o600)
    api.start(vm["id"])


def test_a_port_that_is_taken_is_named(api: Api, new_vm: NewVm) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        vm = new_vm(networks=[{"forwards": [{"guestPort": 22, "hostPort": port}]}])
        error = api.refused("POST", f"/vms/{vm['id']}/start", "PORT_IN_USE")
        assert str(port) in error["message"]
        assert api.ok("GET", f"/vms/{vm['id']}")["status"] == "stopped"
    started = api.start(vm["id"])
    assert [end["hostPort"] for end in started["endpoints"]] == [port]


@pytest.fixture
def wrapped() -> Iterator[Service]:
    """A service whose QEMU is started through a shell script that a test writes."""
    service = Service()
    script = service.folder / "qemu-system-x86_64"
    service.settings["VOIDVM_QEMU__BINARY"] = str(script)
    # QEMU's user must be able to reach it.
    service.folder.chmod(0o711)
    write_script(service, 'exec /usr/bin/qemu-system-x86_64 "$@"')
    try:
        service.start()
        yield service
    finally:
        service.close()


def write_script(service: Service, line: str) -> None:
    script = service.folder / "qemu-system-x86_64"
    script.write_text(f"#!/bin/sh\n{line}\n")
    script.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)


def test_a_qemu_that_ends_at_start_leaves_its_words_and_no_process(wrapped: Service) -> None:
    api = wrapped.api()
    api.ok("POST", "/vms", {"name": "w", "memory": 32, "networks": []})
    write_script(wrapped, "echo 'qemu-system-x86_64: the moon is wrong' >&2; exit 3")
    error = api.refused("POST", "/vms/w/start", "VM_START_FAILED")
    assert error["details"] == "the moon is wrong"
    assert api.ok("GET", "/vms/w")["status"] == "error"
    incident = api.ok("GET", "/vms/w/incidents")["incidents"][0]
    assert (incident["exitStatus"], incident["stderr"]) == (3, "the moon is wrong")

    # Another program takes the port after it was found free, before QEMU binds it.
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    forward = {"guestPort": 80, "hostPort": port}
    api.ok("PATCH", "/vms/w", {"networks": [{"forwards": [forward]}]})
    taker = (
        "import os, socket, sys, time\n"
        "if os.fork(): time.sleep(0.3); os.execv('/usr/bin/qemu-system-x86_64', sys.argv[1:])\n"
        "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        f"s.bind(('127.0.0.1', {port})); s.listen(); time.sleep(2)\n"
    )
    (wrapped.folder / "taker.py").write_text(taker)
    (wrapped.folder / "taker.py").chmod(0o644)
    write_script(wrapped, f'exec /usr/bin/python3 {wrapped.folder}/taker.py qemu-system "$@"')
    error = api.refused("POST", "/vms/w/start", "VM_START_FAILED")
    assert f"tcp:127.0.0.1:{port}" in error["details"]
    assert api.ok("GET", "/vms/w")["status"] == "error"
    assert wrapped.qemus() == []


def test_a_qemu_that_is_not_installed_is_said_so(wrapped: Service) -> None:
    api = wrapped.api()
    api.ok("POST", "/vms", {"name": "w", "memory": 32, "networks": []})
    (wrapped.folder / "qemu-system-x86_64").unlink()
    error = api.refused("POST", "/vms/w/start", "VM_START_FAILED")
    assert "not installed" in error["details"]
    assert api.ok("GET", "/vms/w")["status"] == "error"
