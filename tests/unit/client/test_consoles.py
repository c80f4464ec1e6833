"""Consoles, events and the live socket, over connections that break."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator

import pytest

from tests.fakes.qemu import FakeQemu
from tests.support.local import LocalService, restartable
from voidvm import AsyncVoidVMClient, VoidVMClient
from voidvm.client import errors
from voidvm.client.types import Vm


def qemu_of(local: LocalService, vm: Vm) -> FakeQemu:
    assert local.host is not None
    return local.host.alive()[vm.id]


def say(local: LocalService, vm: Vm, data: bytes) -> None:
    qemu = qemu_of(local, vm)
    local.do(lambda: qemu.say(data))


@pytest.fixture
def own() -> Iterator[LocalService]:
    """A service to be stopped and started."""
    service = restartable()
    try:
        service.start()
        yield service
    finally:
        service.close()


def test_what_is_expected_is_found_and_read_on_behind_it(
    client: VoidVMClient, local: LocalService, vm: Vm
) -> None:
    with client.vms.console(vm, since="end") as console:
        console.open()
        assert (console.status, console.viewers) == ("running", 1)
        say(local, vm, b"login: admin\r\nPassword: ")
        found = console.expect(r"login: (\w+)")
        assert (found.text, found.groups, found.before) == ("login: admin", ("admin",), b"")
        assert console.offset == found.offset
        assert console.expect(re.compile(r"password", re.IGNORECASE)).before == b"\r\n"
        assert console.read() == b": "
        assert console.read(timeout=0) == b""
        with pytest.raises(TimeoutError, match="did not come within") as caught:
            console.expect(b"never", timeout=0.05)
        assert isinstance(caught.value, errors.ExpectTimeout)
        console.write("ls\n")
        console.expect("ls")
    assert qemu_of(local, vm).typed == b"ls\n"
    with client.vms.console(vm, since=0) as again:
        assert again.expect("Password").offset > found.offset


def test_what_is_expected_is_found_across_pieces_and_behind_a_flood(
    client: VoidVMClient, local: LocalService, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.client.console.OVERLAP_BYTES", 1000)
    monkeypatch.setattr("voidvm.client.console.KEPT_BYTES", 20_000)
    with client.vms.console(vm, since="end") as console:
        console.open()
        for number in range(50):
            say(local, vm, b"%d" % number + b"x" * 999)
        say(local, vm, b"log")
        with pytest.raises(errors.ExpectTimeout):
            console.expect("login", timeout=0.3)
        say(local, vm, b"in: ")
        found = console.expect(r"log\w+: ")
        assert (found.text, len(found.before)) == ("login: ", 20_000 - len("login: "))
        assert console.offset == found.offset
        assert console.read(timeout=0) == b""


def test_a_console_for_reading_types_nothing_and_ends_with_its_vm(
    client: VoidVMClient, local: LocalService
) -> None:
    gone = client.vms.create(name="gone", memory=128, disk=1, networks=[], start=True)
    with client.vms.console(gone, mode="read", since=0) as console:
        console.write("rm -rf /\n")
        console.expect("fake guest")
        assert qemu_of(local, gone).typed == b""
        client.vms.delete(gone, force=True)
        with pytest.raises(errors.VmNotFound, match="the VM was deleted"):
            console.expect("never")
    with pytest.raises(errors.VmNotFound):
        client.vms.console(gone).read()


def begun(own: LocalService) -> tuple[str, Vm]:
    token = own.api().token
    assert token is not None
    with VoidVMClient(own.url, token) as client:
        vm = client.vms.create(name="demo", memory=128, disk=1, networks=[], start=True)
    return token, vm


def test_a_new_service_goes_on_at_the_byte_where_the_old_one_ended(own: LocalService) -> None:
    token, vm = begun(own)
    with VoidVMClient(own.url, token) as client, client.vms.console(vm, since=0) as console:
        seen = b""
        for number in range(100):
            say(own, vm, b"<%d>" % number)
        while b"<99>" not in seen:
            seen += console.read()
        own.stop()
        restart = threading.Thread(target=own.start)
        restart.start()
        console.write("typed while away")
        restart.join()
        for number in range(100, 200):
            say(own, vm, b"<%d>" % number)
        while b"<199>" not in seen:
            seen += console.read()
        assert [int(found) for found in re.findall(rb"<(\d+)>", seen)] == list(range(200))
        assert (console.missing, console.offset) == (0, len(seen))
        assert qemu_of(own, vm).typed == b"typed while away"


async def test_a_console_on_asyncio_resumes_too(own: LocalService) -> None:
    token, vm = begun(own)
    async with (
        AsyncVoidVMClient(own.url, token) as client,
        client.vms.console(vm, since=0) as console,
    ):
        await console.expect("fake guest")
        place = console.offset
        own.stop()
        restart = threading.Thread(target=own.start)
        restart.start()
        await console.write("x")
        restart.join()
        say(own, vm, b"back again")
        found = await console.expect("back again")
        assert place is not None
        assert found.offset == place + len(found.before) + len("back again")


def test_history_that_is_gone_is_counted(client: VoidVMClient, local: LocalService, vm: Vm) -> None:
    fleet = local.fleet
    for _ in range(20):
        say(local, vm, b"x" * 19_999 + b"\n")
    ends_at = time.monotonic() + 20
    while not local.do(lambda: fleet.get(vm.id).console.first):
        assert time.monotonic() < ends_at
        time.sleep(0.02)
    with client.vms.console(vm, since=0) as console:
        while not console.read(timeout=5):
            pass
        assert console.missing > 0


def test_events_go_on_after_the_last_one(own: LocalService) -> None:
    token, vm = begun(own)
    breaks: list[errors.VoidVMError] = []
    with VoidVMClient(own.url, token) as client:
        place = client.events.list(limit=1).last_id
        events = client.events(after=place, on_break=breaks.append)
        client.vms.pause(vm)
        assert next(events).data["status"] == "paused"
        own.stop()
        own.start()
        client.vms.resume(vm)
        assert next(events).data["status"] == "running"
        assert len(breaks) == 1
        client.vms.delete(vm, force=True)
        of_vm = client.events(vm=vm, after=place)
        assert next(of_vm).data["status"] == "paused"
        assert any(event.event == "vm.deleted" for event in of_vm)
        assert client.events.list(vm=vm).events[-1].event == "vm.deleted"
        for nothing in (None, "0-0", client.events.list().last_id):
            with pytest.raises(errors.VmNotFound):
                next(client.events(vm=vm, after=nothing))


def test_events_that_are_kept_no_more_are_an_error(client: VoidVMClient) -> None:
    with pytest.raises(errors.ResyncRequired) as caught:
        next(client.events(after="00000000-1"))
    newest = client.events.list(limit=1).last_id
    assert caught.value.last_id == newest
    with pytest.raises(errors.ResyncRequired):
        client.events.list(after="00000000-1")


async def test_events_come_on_asyncio(awaiting: AsyncVoidVMClient, vm: Vm) -> None:
    after = (await awaiting.events.list(limit=1)).last_id
    await awaiting.vms.pause(vm)
    async for event in awaiting.events(vm=vm, after=after):
        assert (event.event, event.vm_id, event.data["status"]) == ("vm.status", vm.id, "paused")
        break


def test_the_live_socket_answers_and_tells(client: VoidVMClient, vm: Vm) -> None:
    with client.live() as live:
        state = live.subscribe("vm-status", vm=vm)
        assert state["status"] == "running"
        assert live.control(vm, "pause") == "paused"
        told = next(live.messages(timeout=10))
        assert (told.type, told.data["status"]) == ("vm-status", "paused")
        with pytest.raises(errors.VmNotFound):
            live.control("nobody", "start")
        live.unsubscribe("vm-status", vm=vm)
        assert list(live.messages(timeout=0.1)) == []


async def test_the_live_socket_on_asyncio(awaiting: AsyncVoidVMClient, vm: Vm) -> None:
    async with awaiting.live() as live:
        await live.subscribe("vm-status", vm=vm)
        await live.control(vm, "pause")
        async for told in live.messages(timeout=10):
            assert told.data["status"] == "paused"
            break
