"""The service dies at any moment and comes back; QEMUs and what was promised stay."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import psutil
import pytest

from tests.real.conftest import NewVm
from tests.support.contract import Api, Json
from tests.support.guests import frozen, is_alive, log_of
from tests.support.service import Service, eventually

FOUND_WITHIN_S = 2.0


def get(api: Api, vm_id: str) -> Json:
    return api.ok("GET", f"/vms/{vm_id}")


def reborn(service: Service) -> None:
    """Kill the service and start it again."""
    service.kill()
    service.start()


def kill_and_reap(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_alive(pid))


def test_running_and_paused_vms_are_found_again_as_they_were(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    ids = [new_vm(networks=[{"forwards": [{"guestPort": 80}]}])["id"] for _ in range(3)]
    off = new_vm()["id"]
    for vm_id in ids:
        api.start(vm_id)
    api.ok("POST", f"/vms/{ids[2]}/pause")
    before = [get(api, vm_id) for vm_id in ids]
    reborn(service)
    begun = time.monotonic()
    after = [get(api, vm_id) for vm_id in ids]
    assert time.monotonic() - begun < FOUND_WITHIN_S
    assert [vm["status"] for vm in after] == ["running", "running", "paused"]
    assert after[2]["statusReason"] == "host-request"
    for field in ("pid", "startedAt", "endpoints", "accelInUse", "pending", "networks"):
        assert [vm[field] for vm in after] == [vm[field] for vm in before], field
    assert get(api, off)["status"] == "stopped"
    assert sorted(service.qemus()) == sorted(vm["pid"] for vm in before)
    # They obey as before.
    api.ok("POST", f"/vms/{ids[2]}/resume")
    api.ok("POST", f"/vms/{ids[0]}/pause")
    api.ok("POST", f"/vms/{ids[1]}/reset")
    for vm_id in ids:
        assert api.stop(vm_id)["status"] == "stopped"
    assert service.qemus() == []


@contextmanager
def stopped_before_cont(service: Service, api: Api, vm_id: str) -> Iterator[int]:
    """A QEMU that has been spawned and has not been told `cont`; its service is dead."""
    for _ in range(20):
        starter = threading.Thread(target=_start_and_be_cut_off, args=(service, api.token, vm_id))
        starter.start()
        pid = eventually(lambda: _child_of(service, vm_id), timeout_s=20)
        os.kill(pid, signal.SIGSTOP)
        service.kill()
        starter.join()
        os.kill(pid, signal.SIGCONT)
        if "cont" not in _said_to(service, vm_id, pid):
            break
        kill_and_reap(pid)
        service.start()
    else:
        pytest.fail("the moment between spawn and cont was never hit")
    yield pid


def _start_and_be_cut_off(service: Service, token: str, vm_id: str) -> None:
    # The service is killed meanwhile.
    with suppress(httpx.TransportError):
        httpx.post(
            f"{service.url}/api/v1/vms/{vm_id}/start",
            headers={"authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
        )


def _child_of(service: Service, vm_id: str) -> int | None:
    try:
        for child in psutil.Process(service.pid).children():
            arguments = child.cmdline()
            if arguments and "qemu-system" in arguments[0] and vm_id in " ".join(arguments):
                return child.pid
    except psutil.Error:
        return None
    return None


def _said_to(service: Service, vm_id: str, pid: int) -> str:
    """ "cont" when the guest runs; asked over QMP, as the next service will."""
    script = (
        "import asyncio, sys\n"
        "from qemu.qmp import QMPClient\n"
        "async def ask():\n"
        "    client = QMPClient('test')\n"
        "    await client.connect(sys.argv[1])\n"
        "    print((await client.execute('query-status'))['status'])\n"
        "    await client.disconnect()\n"
        "asyncio.run(ask())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(service.run / vm_id / "qmp")],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return "cont" if done.stdout.strip() == "running" else ""


def test_a_start_cut_between_spawn_and_cont_is_finished_or_undone_by_the_next_service(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm_id = new_vm(networks=[{"forwards": [{"guestPort": 80}]}])["id"]
    with stopped_before_cont(service, api, vm_id) as pid:
        service.start()
        found = eventually(lambda: settled(api, vm_id))
        if found["status"] == "running":
            assert found["pid"] == pid
            assert service.qemus() == [pid]
            assert found["accelInUse"] == "tcg"
            assert found["startedAt"] is not None
            assert [end["guestPort"] for end in found["endpoints"]] == [80]
            assert found["pending"] == {}
            assert api.stop(vm_id)["status"] == "stopped"
        # Undone if the service died before it was on record that the VM shall run.
        assert get(api, vm_id)["status"] == "stopped"
        assert not is_alive(pid)
        assert service.qemus() == []


def settled(api: Api, vm_id: str) -> Json:
    """The VM, once its status is one that stays."""
    found = get(api, vm_id)
    return found if found["status"] in {"running", "stopped"} else None


def test_a_qemu_that_died_between_spawn_and_cont_is_told(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm_id = new_vm()["id"]
    with stopped_before_cont(service, api, vm_id) as pid:
        kill_and_reap(pid)
        service.start()
        found = get(api, vm_id)
        if found["status"] != "stopped":
            assert found["status"] == "crashed"
            assert found["statusReason"] == "ended while the service was away"
        assert found["pid"] is None
        assert service.qemus() == []
        assert api.start(vm_id)["status"] == "running"


def test_a_vm_whose_qemu_died_meanwhile_is_crashed_with_an_incident(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm = api.start(new_vm()["id"])
    eventually(lambda: b"SeaBIOS" in log_of(api, vm["id"]))
    service.kill()
    kill_and_reap(vm["pid"])
    service.start()
    found = get(api, vm["id"])
    assert found["status"] == "crashed"
    assert found["statusReason"] == "ended while the service was away"
    assert found["pid"] is None
    assert list((service.run / vm["id"]).iterdir()) == []
    incident = api.ok("GET", f"/vms/{vm['id']}/incidents")["incidents"][0]
    assert "SeaBIOS" in incident["console"]
    # It is told once, not at each start of the service.
    reborn(service)
    assert len(api.ok("GET", f"/vms/{vm['id']}/incidents")["incidents"]) == 1
    assert api.start(vm["id"])["status"] == "running"


def test_a_qemu_that_hangs_while_the_service_starts_does_not_hide_the_others(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    sick, well = (api.start(new_vm()["id"]) for _ in range(2))
    service.kill()
    with frozen(sick["pid"]):
        service.start()
        begun = time.monotonic()
        assert get(api, well["id"])["status"] == "running"
        assert get(api, sick["id"])["status"] == "unresponsive"
        assert time.monotonic() - begun < FOUND_WITHIN_S
        assert get(api, sick["id"])["pid"] == sick["pid"]
    eventually(lambda: get(api, sick["id"])["status"] == "running")
    service.kill()
    with frozen(sick["pid"]):
        service.start()
        assert get(api, sick["id"])["status"] == "unresponsive"
        assert api.stop(sick["id"])["status"] == "stopped"
        assert not is_alive(sick["pid"])


def test_a_wiped_run_directory_costs_the_monitor_not_the_guest(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm = api.start(new_vm()["id"])
    service.kill()
    for path in (service.run / vm["id"]).iterdir():
        path.unlink()
    service.start()
    found = get(api, vm["id"])
    assert (found["status"], found["pid"]) == ("unresponsive", vm["pid"])
    assert is_alive(vm["pid"])
    assert api.stop(vm["id"])["status"] == "stopped"
    assert not is_alive(vm["pid"])
    assert api.start(vm["id"])["status"] == "running"


def test_sigterm_leaves_guests_running_and_says_so(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm = api.start(new_vm()["id"])
    offset = service.log.stat().st_size
    assert service.stop() == 0
    said = service.log.read_text()[offset:]
    assert "1 VMs keep running; the next start finds them again" in said
    assert is_alive(vm["pid"])
    service.start()
    found = get(api, vm["id"])
    assert (found["status"], found["pid"]) == ("running", vm["pid"])
    assert found["startedAt"] == vm["startedAt"]


def test_a_second_service_on_the_same_data_is_refused(service: Service, api: Api) -> None:
    second = service.command("serve", VOIDVM_SERVER__PORT="0")
    assert second.returncode == 1
    assert "another VoidVM uses" in second.stderr
    assert "data_dir" in second.stderr
    assert "Traceback" not in second.stderr
    assert api.ok("GET", "/vms") is not None


def test_sockets_of_a_qemu_without_a_record_are_taken_away(
    service: Service, api: Api, new_vm: NewVm
) -> None:
    vm_id = new_vm()["id"]
    service.kill()
    # As left by one that was spawned and killed at once, with its service.
    left = [service.run / vm_id / name for name in ("qmp", "agent")]
    left[0].parent.mkdir()
    for path in left:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    service.start()
    assert not any(path.exists() for path in left)
    assert api.ok("GET", f"/vms/{vm_id}")["status"] == "stopped"
