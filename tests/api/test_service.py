"""The service as a whole: it comes and goes, and the guests go on."""

from __future__ import annotations

import socket
import sqlite3
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest
from msgspec.structs import replace

from tests.api.conftest import add_tiny
from tests.fakes.qemu import FakeHost, FakeQemu
from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.service import Service, eventually
from voidvm.app import StartRefused

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is refused, or allowed with a password


def host_of(service: LocalService) -> FakeHost:
    assert service.host is not None
    return service.host


def status(api: Api, vm: str) -> tuple[str, str | None]:
    found = api.ok("GET", f"/vms/{vm}")
    return found["status"], found["statusReason"]


def test_stopping_closes_sockets_with_1001(own: LocalService) -> None:
    own.start()
    api = own.api()
    vm = api.create("a")["id"]
    api.start(vm)
    with console(own.url, vm, token=api.token) as client:
        client.until(b"fake guest")
        stopping = threading.Thread(target=own.stop)
        stopping.start()
        assert client.closed() == (1001, "the service stops")
        stopping.join()


def test_a_burst_of_connections_waits_for_a_busy_service(own: LocalService) -> None:
    """Sanic's hundred places would have the others try again after a second, and then two."""
    own.start()
    address = urlsplit(own.url)
    is_busy, may_go_on = threading.Event(), threading.Event()

    def be_busy() -> None:
        is_busy.set()
        may_go_on.wait(10)

    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        busy = pool.submit(own.do, be_busy)
        assert is_busy.wait(5)
        clients = [stack.enter_context(socket.socket()) for _ in range(300)]
        try:
            for client in clients:
                client.settimeout(0.9)
                client.connect((address.hostname, address.port))
        finally:
            may_go_on.set()
            busy.result()


def test_a_restart_finds_every_vm_again(own: LocalService) -> None:
    own.start()
    api = own.api()
    host = host_of(own)
    made = {name: api.create(name)["id"] for name in ("runs", "paused", "off", "died", "hung")}
    for name in ("runs", "paused", "died", "hung"):
        api.start(made[name])
    api.ok("POST", f"/vms/{made['paused']}/pause")
    before = {name: api.ok("GET", f"/vms/{vm}") for name, vm in made.items()}
    own.stop()
    qemus = host.alive()
    assert len(qemus) == 4
    own.do(qemus[made["died"]].die)
    own.do(qemus[made["hung"]].hang)
    own.start()
    api = own.anybody().as_user(api.token)
    assert host.starts(made["runs"]) == 1
    for name in ("runs", "paused", "off"):
        now = api.ok("GET", f"/vms/{made[name]}")
        assert {**now, "uptime": 0} == {**before[name], "uptime": 0}
    assert status(api, made["died"]) == ("crashed", "ended while the service was away")
    assert status(api, made["hung"]) == ("unresponsive", "QEMU does not answer")
    [incident] = api.ok("GET", f"/vms/{made['died']}/incidents")["incidents"]
    assert "fake guest" in incident["console"]
    own.do(qemus[made["hung"]].wake)
    eventually(lambda: status(api, made["hung"]) == ("running", None))
    with console(own.url, made["runs"], token=api.token) as client:
        client.until(b"fake guest")
        client.type(b"again")
        assert client.until(b"again") == b"fake guest\r\nagain"
    assert api.stop(made["runs"], force=False)["statusReason"] == "host-request"
    assert own.errors.texts == []


@pytest.mark.parametrize(
    ("happens", "expected"),
    [
        (FakeQemu.power_off, ("stopped", "guest-shutdown")),
        (FakeQemu.panic, ("paused", "guest-panicked")),
        (lambda qemu: qemu.fail_io(is_full=True), ("paused", "io-error: no space")),
    ],
)
def test_what_happened_while_away_is_seen(
    own: LocalService, happens: Json, expected: tuple[str, str]
) -> None:
    own.start()
    api = own.api()
    vm = api.create("a")["id"]
    api.start(vm)
    own.stop()
    qemu = host_of(own).alive()[vm]
    own.do(lambda: happens(qemu))
    own.start()
    api = own.api()
    eventually(lambda: status(api, vm) == expected)
    assert own.errors.texts == []


def test_a_paused_vm_that_was_reset_stays_paused(own: LocalService) -> None:
    own.start()
    api = own.api()
    vm = api.create("a")["id"]
    api.start(vm)
    api.ok("POST", f"/vms/{vm}/pause")
    api.ok("POST", f"/vms/{vm}/reset")
    own.stop()
    own.start()
    api = own.api()
    assert status(api, vm)[0] == "paused"
    assert api.ok("POST", f"/vms/{vm}/resume")["status"] == "running"


def test_guests_go_off_where_the_config_says_so() -> None:
    own = LocalService(FakeHost())
    try:
        add_tiny(own)
        own.settings = replace(own.settings, qemu=replace(own.settings.qemu, shutdown="stop"))
        own.start()
        api = own.api()
        vms = [api.create(name)["id"] for name in "ab"]
        for vm in vms:
            api.start(vm)
        own.run(own.services.host_power.power_off(timeout_s=5))
        assert [status(api, vm) for vm in vms] == [("stopped", "host-request")] * 2
        assert host_of(own).alive() == {}
    finally:
        own.close()


def test_what_was_answered_is_there_after_a_restart(own: LocalService) -> None:
    own.start()
    api = own.api()
    vm = api.create("a", tags=["x"], networks=[{"forwards": [{"guestPort": 1}]}])
    own.stop()
    own.start()
    again = own.anybody().as_user(api.token)
    assert again.ok("GET", "/vms/a") == vm
    again.ok("POST", "/auth/logout")
    own.stop()
    own.start()
    own.anybody().as_user(api.token).refused("GET", "/vms", "SESSION_ENDED")


def test_what_was_half_made_is_removed(own: LocalService) -> None:
    folder = own.folder / "d" / "vms"
    half = folder / ".vm-000000000000.tmp" / "disks"
    half.mkdir(parents=True)
    (folder / "vm-111111111111").mkdir()
    own.start()
    assert list(folder.iterdir()) == []
    api = own.api()
    vm = api.create("a")["id"]
    own.stop()
    with sqlite3.connect(own.folder / "d" / "voidvm.db") as database:
        database.execute("UPDATE vms SET status = 'deleting'")
    database.close()
    own.start()
    own.api().refused("GET", f"/vms/{vm}", "VM_NOT_FOUND")
    assert list(folder.iterdir()) == []


# Starts that are refused


def refusal(service: LocalService) -> str:
    with pytest.raises(StartRefused) as caught:
        service.start()
    return str(caught.value)


@pytest.mark.parametrize("damage", ["cut short", "a link to nowhere"])
def test_one_vms_broken_disk_holds_up_no_start(own: LocalService, damage: str) -> None:
    own.start()
    vms = {name: own.api().create(name)["id"] for name in ("broken", "whole")}
    own.stop()
    disk = own.settings.data_dir / "vms" / vms["broken"] / "disks" / "disk0.qcow2"
    if damage == "cut short":
        disk.write_bytes(b"QFI")
    else:
        disk.unlink()
        disk.symlink_to("/nowhere/disk0.qcow2")
    own.start()
    own.api().start(vms["whole"])
    assert own.api().ok("GET", "/vms/broken")["status"] == "stopped"


def test_a_second_service_is_refused(own: LocalService) -> None:
    own.start()
    second = LocalService(FakeHost())
    second.settings = own.settings
    try:
        assert "another VoidVM uses" in refusal(second)
    finally:
        second.close()
    assert own.api().call("GET", "/vms").status_code == 200


def test_a_start_waits_for_the_last_child_of_a_killed_service(own: LocalService) -> None:
    # Between its fork and its exec it has what the service had open, the lock as well.
    own.settings.data_dir.mkdir(exist_ok=True)
    lock = own.settings.data_dir / "lock"
    command = ["flock", str(lock), "sh", "-c", "echo locked; sleep 0.4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        own.start()
        assert child.poll() is not None


def test_a_database_of_a_newer_version_is_refused(own: LocalService) -> None:
    with sqlite3.connect(own.folder / "d" / "voidvm.db") as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    assert "newer one" in refusal(own)


def test_what_is_no_database_is_refused(own: LocalService) -> None:
    (own.folder / "d" / "voidvm.db").write_bytes(b"not a database" * 1000)
    assert "cannot be used" in refusal(own)


def test_a_key_that_others_can_read_is_refused(own: LocalService) -> None:
    key = own.folder / "d" / "secret.key"
    key.write_bytes(b"x" * 32)
    key.chmod(0o644)
    assert f"chmod 600 {key}" in refusal(own)
    key.chmod(0o600)
    key.write_bytes(b"x" * 31)
    assert "must hold 32 bytes" in refusal(own)


def test_the_default_password_stays_on_loopback(own: LocalService) -> None:
    loopback = own.settings.server
    own.settings = replace(own.settings, server=replace(loopback, host=EVERYWHERE))
    assert "listens on loopback only" in refusal(own)
    # That was no first start: the advice to set a password before it can still be followed.
    own.settings = replace(
        own.settings, auth=replace(own.settings.auth, admin_password="a better one")
    )
    own.start()
    own.api(password="a better one").ok("GET", "/vms")


def test_a_mistake_in_the_catalogue_is_named(own: LocalService) -> None:
    images = replace(own.settings.images, catalog=[{"os": "x"}])
    own.settings = replace(own.settings, images=images)
    assert "[images] catalog: " in refusal(own)


def test_a_limit_of_0_bytes_for_bodies_is_none() -> None:
    own = LocalService(FakeHost(), VOIDVM_LIMITS__BODY_BYTES="0")
    try:
        own.start()
        own.api().ok("PATCH", "/auth/me", {"language": "en"})
    finally:
        own.close()


def test_another_password_may_listen_anywhere() -> None:
    own = LocalService(FakeHost(), VOIDVM_ADMIN_PASSWORD="a better one")
    try:
        own.settings = replace(own.settings, server=replace(own.settings.server, host=EVERYWHERE))
        own.start()
        own.api(password="a better one").ok("GET", "/vms")
        body = {"username": "admin", "password": "admin123"}
        own.anybody().refused("POST", "/auth/login", "INVALID_CREDENTIALS", body)
    finally:
        own.close()


def test_an_unknown_user_for_qemu_is_refused(own: LocalService) -> None:
    threads = threading.active_count()
    own.settings = replace(own.settings, qemu=replace(own.settings.qemu, user="nobody-here"))
    assert "there is no user 'nobody-here'" in refusal(own)
    own.close()
    eventually(lambda: threading.active_count() <= threads)


def test_a_run_dir_too_long_for_sockets_is_refused(own: LocalService) -> None:
    long = str(own.folder / ("x" * 90))
    storage = replace(own.settings.storage, run_dir=long)
    own.settings = replace(own.settings, storage=storage)
    assert "run_dir is too long" in refusal(own)


def test_folders_are_nobody_elses(own: LocalService) -> None:
    own.start()
    for folder in (own.folder / "d", own.folder / "r", own.folder / "d" / "vms"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("voidvm.db", "secret.key", "lock"):
        assert stat.S_IMODE((own.folder / "d" / name).stat().st_mode) == 0o600


# Pages of other origins


def test_a_configured_origin_may_call_and_connect() -> None:
    origin = "https://panel.example"
    # In a process of its own: Sanic rewrites its classes for the first application it serves.
    own = Service(VOIDVM_SERVER__ALLOWED_ORIGINS=f'["{origin}"]')
    try:
        own.start()
        api = own.api()
        vm = api.ok("POST", "/vms", {"name": "a"})["id"]
        with console(own.url, vm, token=api.token, headers={"origin": origin}) as client:
            assert client.hello["vmId"] == vm
        answer = api.call("GET", "/vms", headers={"origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        preflight = httpx.options(
            f"{own.url}/api/v1/vms",
            headers={
                "origin": origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization",
            },
        )
        assert preflight.is_success
        assert "POST" in preflight.headers["access-control-allow-methods"]
        other = api.call("GET", "/vms", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
    finally:
        own.close()


def test_without_configured_origins_no_page_is_let_in(api: Api) -> None:
    answer = api.call("GET", "/vms", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_whether_guests_are_limited_is_told(own: LocalService) -> None:
    own.settings = replace(own.settings, qemu=replace(own.settings.qemu, cgroup="off"))
    own.start()
    assert own.api().ok("GET", "/system/info")["cgroups"] == {
        "available": False,
        "reason": 'switched off: [qemu] cgroup = "off"',
        "controllers": [],
    }
