"""Starting, stopping and what lies between: refusals, jobs, failures, callers who go away."""

from __future__ import annotations

import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fakes.qemu import Behaviour, FakeHost, FakeQemu, json_options
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.service import NO_TLS, eventually


def status(api: Api, vm: str) -> tuple[str, str | None]:
    found = api.ok("GET", f"/vms/{vm}")
    return found["status"], found["statusReason"]


def stubborn(host: FakeHost, api: Api, vm: str) -> FakeQemu:
    """The fake of a running VM whose guest ignores the power button."""
    host.plan(vm, Behaviour(obeys_power_button=False))
    api.start(vm)
    return host.alive()[vm]


# Starting


def test_two_starts_at_once_give_one_qemu(api: Api, host: FakeHost, vm: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.call("POST", f"/vms/{vm}/start"), range(8)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] + [409] * 7
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["error"]["code"] in {"VM_BUSY", "VM_ALREADY_RUNNING"}
    assert host.starts(vm) == 1


def test_a_qemu_that_refuses_is_told_in_its_own_words(
    api: Api, host: FakeHost, local: LocalService, vm: str
) -> None:
    words = (
        "2026-11-24T10:00:00.000000Z qemu-system-x86_64: -device x: "
        "Could not open '/var/lib/voidvm/vms/vm-1/disk': No such file\n"
    )
    host.plan(vm, Behaviour(refusal=words))
    error = api.refused("POST", f"/vms/{vm}/start", "VM_START_FAILED")
    assert error["details"] == "-device x: Could not open 'disk': No such file"
    assert status(api, vm) == ("error", "did not start")
    assert local.statuses(vm) == ["starting", "error"]
    [incident] = api.ok("GET", f"/vms/{vm}/incidents")["incidents"]
    assert (incident["exitStatus"], incident["signal"]) == (1, None)
    assert incident["stderr"] == error["details"]
    host.plan(vm, Behaviour())
    assert api.start(vm)["status"] == "running"


def test_words_of_an_earlier_run_are_not_repeated(api: Api, host: FakeHost, vm: str) -> None:
    host.plan(vm, Behaviour(refusal="qemu-system-x86_64: no luck\n"))
    api.refused("POST", f"/vms/{vm}/start", "VM_START_FAILED")
    host.plan(vm, Behaviour(dies_by=signal.SIGSEGV))
    error = api.refused("POST", f"/vms/{vm}/start", "VM_START_FAILED")
    assert "no luck" not in error["details"]
    incidents = api.ok("GET", f"/vms/{vm}/incidents")["incidents"]
    assert [incident["signal"] for incident in incidents] == ["SIGSEGV", None]
    assert "no luck" not in incidents[0]["stderr"]


def test_a_qemu_that_never_greets_is_ended(
    api: Api, host: FakeHost, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.supervisor.machine.GREETING_S", 0.2)
    host.plan(vm, Behaviour(is_hung=True))
    error = api.refused("POST", f"/vms/{vm}/start", "VM_START_FAILED")
    assert "no greeting" in error["details"]
    assert status(api, vm) == ("error", "did not start")
    assert vm not in host.alive()


def test_a_qemu_that_hangs_on_cont_is_ended(
    api: Api, host: FakeHost, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeQemu, "_do_cont", FakeQemu.hang)
    monkeypatch.setattr("voidvm.supervisor.machine.GREETING_S", 1.0)
    api.refused("POST", f"/vms/{vm}/start", "VM_START_FAILED")
    assert status(api, vm) == ("error", "did not start")
    assert vm not in host.alive()
    assert len(api.ok("GET", f"/vms/{vm}/incidents")["incidents"]) == 1


def test_a_missing_disk_is_told_without_our_paths(api: Api, local: LocalService, vm: str) -> None:
    (local.folder / "d" / "vms" / vm / "disks" / "disk0.qcow2").rename(local.folder / "away")
    error = api.refused("POST", f"/vms/{vm}/start", "VM_START_FAILED")
    assert error["details"] == "cannot open disk0.qcow2: No such file or directory"
    assert status(api, vm) == ("error", "did not start")
    (local.folder / "away").rename(local.folder / "d" / "vms" / vm / "disks" / "disk0.qcow2")
    assert api.start(vm)["status"] == "running"


def test_a_missing_qemu_is_told(api: Api, host: FakeHost, vm: str) -> None:
    def missing(_: object) -> None:
        from voidvm.hypervisor.launch import LaunchFailed  # noqa: PLC0415 - as the launcher does

        raise LaunchFailed("qemu-system-x86_64 is not installed")

    host.before_launch = missing
    try:
        error = api.refused("POST", f"/vms/{vm}/start", "VM_START_FAILED")
    finally:
        host.before_launch = None
    assert error["details"] == "qemu-system-x86_64 is not installed"


def test_more_memory_than_the_host_has_is_refused(api: Api, host: FakeHost, vm: str) -> None:
    api.ok("PATCH", f"/vms/{vm}", {"memory": 4_194_304})
    response = api.call("POST", f"/vms/{vm}/start")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (507, "NOT_ENOUGH_MEMORY")
    assert error["retryable"] is True
    assert "4194304 MiB" in error["message"]
    assert status(api, vm) == ("stopped", None)
    assert host.starts(vm) == 0


# Forwards


def test_a_free_port_is_chosen_at_each_start(api: Api, host: FakeHost, name: str) -> None:
    vm = api.create(name, networks=[{"forwards": [{"guestPort": 80}, {"guestPort": 22}]}])
    endpoints = api.start(vm["id"])["endpoints"]
    assert [endpoint["guestPort"] for endpoint in endpoints] == [80, 22]
    assert len({endpoint["hostPort"] for endpoint in endpoints}) == 2
    assert {endpoint["hostAddress"] for endpoint in endpoints} == {"127.0.0.1"}
    [netdev] = json_options(host.alive()[vm["id"]].command, "-netdev")
    assert netdev["hostfwd"] == [
        {"str": f"tcp:127.0.0.1:{endpoint['hostPort']}-:{endpoint['guestPort']}"}
        for endpoint in endpoints
    ]
    # What was asked for stays 0: the next start chooses again.
    assert api.ok("GET", f"/vms/{name}")["networks"][0]["forwards"][0]["hostPort"] == 0
    assert api.stop(vm["id"])["endpoints"] == []
    api.remove(vm["id"])


def test_a_taken_port_is_told(api: Api, host: FakeHost, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        forwards = [{"guestPort": 80, "hostPort": port}]
        vm = api.create(name, networks=[{"forwards": forwards}])
        error = api.refused("POST", f"/vms/{name}/start", "PORT_IN_USE")
        assert error["message"] == f"The host port {port} is in use."
        assert status(api, vm["id"]) == ("stopped", None)
        assert host.starts(vm["id"]) == 0
    assert api.start(name)["endpoints"][0]["hostPort"] == port
    api.remove(name)


# Jobs


def test_a_busy_vm_names_its_job(api: Api, host: FakeHost, local: LocalService, vm: str) -> None:
    qemu = stubborn(host, api, vm)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(api.stop, vm, force=False, timeout=20)
        eventually(lambda: status(api, vm)[0] == "stopping")
        for method, path, body in (
            ("POST", "/start", None),
            ("POST", "/stop", {}),
            ("POST", "/restart", {}),
            ("POST", "/reset", None),
            ("POST", "/pause", None),
            ("PATCH", "", {"cpu": 2}),
            ("DELETE", "", None),
        ):
            error = api.call(method, f"/vms/{vm}{path}", json=body).json()["error"]
            assert error["code"] in {"VM_BUSY", "VM_ALREADY_RUNNING"}, (path, error)
            if error["code"] == "VM_BUSY":
                assert error["details"] == "stop"
                assert error["retryable"] is True
                assert "stop is under way" in error["message"]
        local.do(qemu.power_off)
        assert stopping.result()["statusReason"] == "host-request"


def test_a_forced_stop_ends_a_graceful_one(api: Api, host: FakeHost, vm: str) -> None:
    stubborn(host, api, vm)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(api.stop, vm, force=False, timeout=20)
        eventually(lambda: status(api, vm)[0] == "stopping")
        begun = time.monotonic()
        assert api.stop(vm)["status"] == "stopped"
        assert stopping.result()["status"] == "stopped"
        assert time.monotonic() - begun < 5


def test_a_forced_stop_cuts_a_start_short(
    api: Api, host: FakeHost, local: LocalService, vm: str
) -> None:
    host.plan(vm, Behaviour(is_hung=True))
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(api.call, "POST", f"/vms/{vm}/start")
        eventually(lambda: vm in host.alive())
        stopped = api.stop(vm)
        assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
        error = starting.result().json()["error"]
    assert (error["code"], error["details"]) == ("VM_STATE_CONFLICT", "a forced stop cut it short")
    assert vm not in host.alive()
    assert local.statuses(vm)[0] == "starting"
    assert local.statuses(vm)[-1] == "stopped"
    host.plan(vm, Behaviour())
    assert api.start(vm)["status"] == "running"


def test_a_forced_stop_cuts_a_restart_short(api: Api, host: FakeHost, vm: str) -> None:
    stubborn(host, api, vm)
    with ThreadPoolExecutor(1) as pool:
        body = {"timeout": 20}
        restarting = pool.submit(api.call, "POST", f"/vms/{vm}/restart", json=body)
        eventually(lambda: status(api, vm)[0] == "stopping")
        assert api.stop(vm)["status"] == "stopped"
        assert restarting.result().json()["error"]["code"] == "VM_STATE_CONFLICT"
    assert vm not in host.alive()
    assert status(api, vm)[0] == "stopped"


def test_a_forced_stop_works_on_a_hung_qemu(
    api: Api, host: FakeHost, local: LocalService, running: str
) -> None:
    local.do(host.alive()[running].hang)
    begun = time.monotonic()
    assert api.stop(running)["status"] == "stopped"
    assert time.monotonic() - begun < 5


def test_deleting_by_force_works_on_a_hung_qemu(
    api: Api, host: FakeHost, local: LocalService, running: str
) -> None:
    local.do(host.alive()[running].hang)
    assert api.call("DELETE", f"/vms/{running}?force=true").status_code == 200


def test_deleting_by_force_works_during_a_job(api: Api, host: FakeHost, vm: str) -> None:
    stubborn(host, api, vm)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(api.call, "POST", f"/vms/{vm}/stop", json={"timeout": 20})
        eventually(lambda: status(api, vm)[0] == "stopping")
        assert api.call("DELETE", f"/vms/{vm}?force=true").status_code == 200
        assert stopping.result().status_code in {200, 404}
    assert api.call("GET", f"/vms/{vm}").status_code == 404


def test_a_caller_who_hangs_up_stops_nothing(
    api: Api, host: FakeHost, local: LocalService, vm: str
) -> None:
    qemu = stubborn(host, api, vm)
    with httpx.Client(base_url=local.url, timeout=0.3, trust_env=False, verify=NO_TLS) as client:
        headers = {"authorization": f"Bearer {api.token}"}
        with pytest.raises(httpx.ReadTimeout):
            client.post(f"/api/v1/vms/{vm}/stop", headers=headers, json={"timeout": 20})
    assert status(api, vm)[0] == "stopping"
    local.do(qemu.power_off)
    eventually(lambda: status(api, vm) == ("stopped", "host-request"))


def test_fifty_mixed_calls_end_consistent(api: Api, host: FakeHost, name: str) -> None:
    vm = api.create(name)["id"]
    calls: list[tuple[str, str, Json]] = [
        ("POST", "/start", None),
        ("POST", "/stop", {"force": True}),
        ("POST", "/reset", None),
        ("POST", "/stop", {"timeout": 1}),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/restart", {"mode": "force"}),
        ("PATCH", "", {"cpu": 2}),
        ("GET", "", None),
        ("DELETE", "", None),
    ]

    def call(number: int) -> int:
        method, path, body = calls[number % len(calls)]
        return api.call(method, f"/vms/{vm}{path}", json=body).status_code

    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(call, range(50)))
    assert set(statuses) <= {200, 404, 409}, statuses
    answer = api.call("GET", f"/vms/{vm}")
    if answer.status_code == 200:
        has_qemu = vm in host.alive()
        assert has_qemu is (answer.json()["data"]["pid"] is not None)
        api.remove(vm)
    assert vm not in host.alive()


# Stopping


def test_a_guest_that_ignores_the_button_is_ended_in_time(
    api: Api, host: FakeHost, local: LocalService, vm: str
) -> None:
    stubborn(host, api, vm)
    begun = time.monotonic()
    stopped = api.stop(vm, force=False, timeout=0.3)
    assert 0.3 <= time.monotonic() - begun < 3
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
    assert local.statuses(vm) == ["starting", "running", "stopping", "stopped"]
    assert api.ok("GET", f"/vms/{vm}/incidents")["incidents"] == []


@pytest.mark.parametrize("before", [[], ["reset"]])
def test_a_paused_guest_is_woken_for_its_button(
    api: Api, local: LocalService, running: str, before: list[str]
) -> None:
    api.ok("POST", f"/vms/{running}/pause")
    for action in before:
        api.ok("POST", f"/vms/{running}/{action}")
    begun = time.monotonic()
    assert api.stop(running, force=False, timeout=10)["status"] == "stopped"
    assert time.monotonic() - begun < 5
    assert local.statuses(running)[-3:] == ["paused", "stopping", "stopped"]


def test_a_graceful_stop_waits_for_a_qemu_that_hangs_for_a_moment(
    api: Api, host: FakeHost, local: LocalService, running: str
) -> None:
    qemu = host.alive()[running]
    local.do(qemu.hang)
    timer = threading.Timer(0.6, lambda: local.do(qemu.wake))
    timer.start()
    stopped = api.stop(running, force=False, timeout=10)
    timer.join()
    assert (stopped["status"], qemu.outcome and qemu.outcome.signal) == ("stopped", None)


def test_a_graceful_stop_of_a_hung_qemu_ends_it_in_time(
    api: Api, host: FakeHost, local: LocalService, running: str
) -> None:
    qemu = host.alive()[running]
    local.do(qemu.hang)
    assert api.stop(running, force=False, timeout=0.5)["status"] == "stopped"
    assert qemu.outcome is not None
    assert qemu.outcome.signal == signal.SIGKILL


def test_a_graceful_restart_of_a_stubborn_guest_takes_its_time(
    api: Api, host: FakeHost, local: LocalService, vm: str
) -> None:
    stubborn(host, api, vm)
    again = api.ok("POST", f"/vms/{vm}/restart", {"timeout": 0.2})
    assert again["status"] == "running"
    assert host.starts(vm) == 2
    assert local.statuses(vm) == [
        *("starting", "running", "stopping", "stopped"),
        *("starting", "running"),
    ]
