"""The console for programs without a socket: its log, and typing."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.qemu import Behaviour, FakeHost, FakeQemu
from tests.support.consoles import console
from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.service import eventually

BOOT = b"fake guest\r\n"


def log(api: Api, vm: str, **query: int) -> tuple[int, bytes]:
    """Offset and bytes of a piece of the log."""
    answer = api.call("GET", f"/vms/{vm}/console/log", params=query)
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-console-offset"]), answer.content


@pytest.fixture
def said(api: Api, local: LocalService, running: str, qemu: FakeQemu) -> bytes:
    """All that the guest has said."""
    data = os.urandom(150_000)
    local.do(lambda: qemu.say(data))
    eventually(lambda: log(api, running, since=0, limit=1_000_000)[1] == BOOT + data)
    return BOOT + data


def test_the_log_of_a_vm_that_never_ran_is_empty(api: Api, vm: str) -> None:
    assert log(api, vm) == (0, b"")
    assert log(api, vm, since=100) == (0, b"")


def test_the_log_is_plain_text(api: Api, running: str) -> None:
    answer = api.call("GET", f"/vms/{running}/console/log")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_by_default_the_end_comes(api: Api, running: str, said: bytes) -> None:
    assert log(api, running) == (len(said) - 65_536, said[-65_536:])
    assert log(api, running, limit=10) == (len(said) - 10, said[-10:])


@pytest.mark.parametrize(
    ("since", "limit"), [(0, 1), (0, 200_000), (7, 65_536), (65_536, 65_537), (149_000, 5000)]
)
def test_a_piece_is_what_stands_there(
    api: Api, running: str, said: bytes, since: int, limit: int
) -> None:
    assert log(api, running, since=since, limit=limit) == (since, said[since : since + limit])


def test_beyond_the_end_is_nothing_at_the_end(api: Api, running: str, said: bytes) -> None:
    assert log(api, running, since=len(said)) == (len(said), b"")
    assert log(api, running, since=10**15) == (len(said), b"")


def test_the_log_outlives_the_run(api: Api, running: str, said: bytes) -> None:
    api.stop(running)
    assert log(api, running, since=0, limit=200_000) == (0, said)
    api.start(running)
    eventually(lambda: log(api, running, since=len(said)) == (len(said), BOOT))


def test_a_full_disk_loses_history_but_no_output(
    api: Api, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    with console(local.url, running, token=api.token) as client:
        client.until(BOOT)
        block = b"x" * (4096 - len(BOOT))
        local.do(lambda: qemu.say(block))
        client.until(BOOT + block)
        # QEMU cannot write its log for a while.
        lost = b"lost" * 512
        for _ in range(4):
            local.do(lambda: qemu.serial.say(lost, is_logged=False))
            time.sleep(0.1)
        client.until(block + lost * 4)
        file = local.folder / "d" / "vms" / running / "console.log"
        eventually(lambda: file.stat().st_size == 4096 + 4 * len(lost))
        local.do(lambda: qemu.say(b"after"))
        whole = BOOT + block + lost * 4 + b"after"
        assert client.until(b"after") == whole
    after = len(whole) - 5
    assert log(api, running, since=0, limit=4096) == (0, BOOT + block)
    assert log(api, running, since=5000, limit=100) == (after, b"after")
    with console(local.url, running, token=api.token, query="?since=0") as client:
        assert client.notice("gap") == {"type": "gap", "from": 4096, "to": after}
        assert client.until(b"after") == BOOT + block + b"after"


def test_what_is_sent_is_typed(api: Api, running: str, qemu: FakeQemu) -> None:
    end = eventually(lambda: (found := log(api, running))[1] == BOOT and len(found[1]))
    text = "echo 'ü 🚀'\n\x03\x00"
    sent = api.ok("POST", f"/vms/{running}/console/send", {"text": text})
    assert sent == {"sentBytes": len(text.encode()), "offset": end}
    eventually(lambda: qemu.typed == text.encode())
    eventually(lambda: log(api, running, since=end)[1] == text.encode())


def test_nothing_is_typed_on_a_vm_that_is_off(api: Api, vm: str) -> None:
    error = api.refused("POST", f"/vms/{vm}/console/send", "VM_NOT_RUNNING", {"text": "x"})
    assert error["details"] == "stopped"


def test_sending_to_a_deaf_guest_ends_with_its_qemu(api: Api, host: FakeHost, vm: str) -> None:
    host.plan(vm, Behaviour(is_deaf=True))
    api.start(vm)
    body = {"text": "x" * 65_536}
    with ThreadPoolExecutor(1) as pool:
        api.ok("POST", f"/vms/{vm}/console/send", body)
        second = pool.submit(api.call, "POST", f"/vms/{vm}/console/send", json=body)
        time.sleep(0.1)
        assert not second.done()
        api.stop(vm)
        assert second.result(5).status_code in {200, 409}
