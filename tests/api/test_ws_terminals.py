"""Terminals in messages: the console's bytes as whole characters, and keys the other way."""

from __future__ import annotations

import base64
import json
import time

import pytest

from tests.fakes.qemu import Behaviour, FakeHost, FakeQemu
from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.live import LiveClient, live
from tests.support.local import LocalService
from tests.support.people import Person
from tests.support.service import eventually

BOOT = "fake guest\r\n"


def viewers(local: LocalService, vm: str) -> int:
    return local.do(lambda: local.fleet.get(vm).console.viewers)


def outputs(client: LiveClient) -> list[Json]:
    return [one["data"] for one in client.all("terminal-output")]


def test_a_key_is_echoed(client: LiveClient, running: str) -> None:
    connected = client.ask("terminal-connect", vmId=running, type="serial")
    assert connected["vmId"] == running
    assert (connected["mode"], connected["status"]) == ("write", "running")
    assert connected["offset"] == connected["firstOffset"] == 0
    client.output(running, BOOT)
    client.tell("terminal-input", vmId=running, input="ls -ü\r")
    client.output(running, "ls -ü\r")


def test_keys_that_follow_at_once_are_typed_in_order(
    client: LiveClient, running: str, qemu: FakeQemu
) -> None:
    client.tell("terminal-connect", vmId=running)
    for number in range(100):
        client.tell("terminal-input", vmId=running, input=f"{number},")
    eventually(lambda: qemu.typed.endswith(b"99,"))
    assert qemu.typed == "".join(f"{number}," for number in range(100)).encode()


def test_characters_are_never_split(
    client: LiveClient, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    client.ask("terminal-connect", vmId=running, since="end")
    start = local.do(lambda: local.fleet.get(running).console.end)
    text = "aü€😀z"
    for byte in text.encode():
        local.do(lambda byte=byte: qemu.say(bytes([byte])))  # type: ignore[misc]  # bound now
        time.sleep(0.01)
    seen, place = "", start
    while seen != text:
        data = client.next("terminal-output")["data"]
        assert data["offset"] == place
        place = data["nextOffset"]
        seen += data["output"]
        assert place - start == len(seen.encode())
        assert text.startswith(seen)


def test_bytes_that_are_no_text_are_replaced(
    client: LiveClient, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    client.ask("terminal-connect", vmId=running, since="end")
    local.do(lambda: qemu.say(b"\xff\xc3(\x00\x1b[1m!"))
    assert client.output(running, "!") == "\ufffd\ufffd(\x00\x1b[1m!"


def test_bytes_come_as_they_are_on_request(
    client: LiveClient, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    client.ask("terminal-connect", vmId=running, encoding="base64", since="end")
    data = bytes(range(256))
    local.do(lambda: qemu.say(data))
    seen = b""
    while len(seen) < 256:
        push = client.next("terminal-output")["data"]
        assert "output" not in push
        seen += base64.b64decode(push["outputBase64"])
    assert seen == data


def test_who_comes_back_goes_on_where_it_was(
    local: LocalService, api: Api, running: str, qemu: FakeQemu
) -> None:
    with live(local.url, token=api.token) as client:
        client.ask("terminal-connect", vmId=running, since=0)
        client.output(running, BOOT)
    local.do(lambda: qemu.say("while you were ä-way\n".encode()))
    with live(local.url, token=api.token) as client:
        client.ask("terminal-connect", vmId=running, since=len(BOOT))
        assert client.output(running, "way\n") == "while you were ä-way\n"


def test_a_terminal_and_a_console_share_the_line(
    client: LiveClient, local: LocalService, api: Api, running: str
) -> None:
    client.ask("terminal-connect", vmId=running)
    with console(local.url, running, token=api.token) as other:
        other.type(b"hello")
        client.output(running, "hello")
        client.tell("terminal-input", vmId=running, input="world")
        other.until(b"world")


def test_a_terminal_stays_through_stop_and_start(
    client: LiveClient, api: Api, running: str, name: str
) -> None:
    client.ask("terminal-connect", vmId=running)
    client.output(running, BOOT)
    api.stop(running)
    client.next("terminal-status", vmId=running, status="stopped")
    error = client.refused("terminal-input", vmId=running, input="x")
    assert (error["code"], error["vmId"]) == ("VM_NOT_RUNNING", running)
    api.start(running)
    client.next("terminal-status", vmId=running, status="running")
    client.output(running, BOOT)
    # By its name, too.
    client.tell("terminal-input", vmId=name, input="again")
    client.output(running, "again")


def test_a_size_is_acknowledged(client: LiveClient, shared: str) -> None:
    size = {"vmId": shared, "cols": 132, "rows": 50}
    assert client.refused("terminal-resize", **size)["code"] == "NOT_FOUND"
    client.ask("terminal-connect", vmId=shared)
    answer = client.answer(client.tell("terminal-resize", **size))
    assert (answer["type"], answer["data"]) == ("terminal-resized", size)
    for wrong in ({"cols": 0}, {"rows": -1}, {"cols": 1e9}, {"rows": "x"}):
        error = client.refused("terminal-resize", **{**size, **wrong})
        assert [one["field"] for one in error["errors"]] == list(wrong)


def test_nothing_comes_after_disconnected(
    client: LiveClient, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    client.ask("terminal-connect", vmId=running)
    assert viewers(local, running) == 1
    answer = client.answer(client.tell("terminal-disconnect", vmId=running))
    assert answer["type"] == "terminal-disconnected"
    assert answer["data"] == {"vmId": running, "reason": None}
    assert viewers(local, running) == 0
    client.messages.clear()
    local.do(lambda: qemu.say(b"alone"))
    client.ask("ping")
    assert client.messages == []
    for kind, data in (("terminal-disconnect", {}), ("terminal-input", {"input": "x"})):
        assert client.refused(kind, vmId=running, **data)["code"] == "NOT_FOUND"


def test_connecting_again_replaces(client: LiveClient, local: LocalService, running: str) -> None:
    client.ask("terminal-connect", vmId=running)
    client.output(running, BOOT)
    again = client.ask("terminal-connect", vmId=running, since=0, mode="read")
    assert again["mode"] == "read"
    client.output(running, BOOT)
    assert viewers(local, running) == 1
    error = client.refused("terminal-input", vmId=running, input="x")
    assert (error["code"], error["vmId"]) == ("FORBIDDEN", running)


def test_a_terminal_needs_the_permission(local: LocalService, ada: Person) -> None:
    mine = ada.vm()
    with live(local.url, token=ada.token("vm:read")["token"]) as client:
        assert client.refused("terminal-connect", vmId=mine)["code"] == "FORBIDDEN"
    ada.api.remove(mine)


def test_there_is_a_limit_of_terminals(
    client: LiveClient, api: Api, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.api.live.terminals.TERMINALS_MAX", 2)
    vms = [api.create(f"{name}-{number}", os=None)["id"] for number in range(3)]
    for vm in vms[:2]:
        client.ask("terminal-connect", vmId=vm)
    assert client.refused("terminal-connect", vmId=vms[2])["code"] == "RATE_LIMITED"
    client.ask("terminal-connect", vmId=vms[0])
    client.ask("terminal-disconnect", vmId=vms[0])
    client.ask("terminal-connect", vmId=vms[2])
    for vm in vms:
        api.remove(vm)


def test_a_deaf_guest_holds_up_nothing_else(
    client: LiveClient, api: Api, host: FakeHost, vm: str, local: LocalService
) -> None:
    host.plan(vm, Behaviour(is_deaf=True, echoes=False))
    api.start(vm)
    client.ask("terminal-connect", vmId=vm)
    numbers = [client.tell("terminal-input", vmId=vm, input="x" * 100_000) for _ in range(6)]
    error = client.answer(numbers[-1])
    assert error["data"]["code"] == "RATE_LIMITED"
    assert client.ask("ping") == {}
    local.do(lambda: host.alive()[vm].say(b"but it talks"))
    client.output(vm, "but it talks")
    refused = {one["id"] for one in client.all("error")} | {numbers[-1]}
    accepted = 100_000 * sum(number not in refused for number in numbers)
    assert 100_000 <= accepted <= 300_000
    qemu = host.alive()[vm]
    local.do(lambda: qemu.serial.be_deaf(is_deaf=False))
    eventually(lambda: len(qemu.typed) >= accepted)
    assert qemu.typed == b"x" * accepted
    api.stop(vm)


def test_a_flood_of_output_is_whole(
    client: LiveClient, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    client.ask("terminal-connect", vmId=running, since="end")
    data = b"0123456789\x1b[31m\xc3\xbc\r\n" * 20_000
    local.do(lambda: qemu.say(data))
    seen = 0
    while seen < len(data):
        push = json.loads(client.connection.recv(timeout=10))
        if push["type"] == "terminal-output":
            text = push["data"]["output"].encode()
            assert text == data[seen : seen + len(text)]
            seen += len(text)
