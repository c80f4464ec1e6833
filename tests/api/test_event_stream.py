"""`GET /events/stream`: events as they happen, for clients that come, go, stall and return."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.test_events import newest, since
from tests.fakes.qemu import FakeHost
from tests.support.contract import Api, Json
from tests.support.eventstream import PATH, Stream, refused, stream
from tests.support.local import LocalService
from tests.support.people import Person, person
from tests.support.service import eventually
from voidvm.api import streams
from voidvm.api.connections import SocketProtocol
from voidvm.api.streams import EventStream
from voidvm.domain.account import Principal
from voidvm.domain.vm import VmRecord
from voidvm.services.vms import Vms


@pytest.fixture(scope="module")
def ada(local: LocalService, api: Api) -> Person:
    return person(local, api, plan="unlimited")


@pytest.fixture(scope="module")
def her_vm(ada: Person) -> str:
    vm: str = ada.api.create("hers", os=None)["id"]
    return vm


_numbers = itertools.count(1)


def change(api: Api, vm: str) -> None:
    """One event."""
    api.ok("PATCH", f"/vms/{vm}", {"description": f"step {next(_numbers)}"})


def test_a_stream_tells_what_the_list_shows(ada: Person, her_vm: str) -> None:
    with stream(ada.api) as events:
        assert events.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert events.response.headers["cache-control"] == "no-store"
        assert events.retry_ms == 3000
        place = events.last_id
        for _ in range(5):
            change(ada.api, her_vm)
        found = events.take(5)
    listed = since(ada.api, place)
    assert [message.data for message in found] == listed
    assert [(message.id, message.kind) for message in found] == [
        (event["id"], event["event"]) for event in listed
    ]


def test_who_comes_back_loses_and_repeats_nothing(ada: Person, her_vm: str) -> None:
    place = newest(ada.api)
    found, last = [], place
    for number in range(12):
        change(ada.api, her_vm)
        if number % 3 == 2:
            # The header wins: a browser keeps the address and sends what it has seen.
            with stream(ada.api, headers={"last-event-id": last}, after=place) as events:
                assert events.last_id == last
                found += events.take(2)
                last = events.last_id
    with stream(ada.api, after=last) as events:
        found += events.take(12 - len(found))
    assert [message.data for message in found] == since(ada.api, place)


def test_each_hears_its_own_and_one_vm_if_wanted(
    local: LocalService, api: Api, ada: Person, her_vm: str, vm: str
) -> None:
    other = person(local, api)
    with (
        stream(ada.api) as hers,
        stream(api, vm=her_vm) as of_one,
        stream(api) as all_,
        stream(other.api) as his,
    ):
        change(api, vm)
        change(ada.api, her_vm)
        other.api.ok("POST", "/auth/tokens", {"name": "own"})
        assert hers.next().data["vmId"] == her_vm
        assert of_one.next().data["vmId"] == her_vm
        assert [message.data["vmId"] for message in all_.take(2)] == [vm, her_vm]
        assert his.next().kind == "token.created"
    assert refused(other.api, vm=her_vm) == (404, "VM_NOT_FOUND")


def test_a_deleted_vm_is_told_of_as_long_as_something_is_to_come(
    local: LocalService, api: Api, ada: Person
) -> None:
    place = newest(ada.api)
    vm = ada.api.create("to-go", os=None)
    ada.api.remove(vm["id"])
    with stream(ada.api, vm=vm["id"], after=place) as events:
        told = [events.next()]
        while told[-1].kind != "vm.deleted":
            told.append(events.next())
    assert [message.data for message in told] == since(ada.api, place, vm=vm["id"])
    assert refused(ada.api, vm=vm["id"]) == (404, "VM_NOT_FOUND")
    assert refused(ada.api, vm=vm["id"], after=told[-1].id) == (404, "VM_NOT_FOUND")
    assert refused(person(local, api).api, vm=vm["id"], after=place) == (404, "VM_NOT_FOUND")


def test_a_vm_that_is_deleted_as_its_stream_begins_has_an_end(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = ada.api.create("to-go-now", os=None)["id"]
    find = Vms.find

    async def find_and_lose(vms: Vms, principal: Principal, ref: str) -> VmRecord:
        found = await find(vms, principal, ref)
        monkeypatch.undo()
        await asyncio.to_thread(ada.api.remove, vm)
        await asyncio.sleep(0.1)
        return found

    monkeypatch.setattr(Vms, "find", find_and_lose)
    with stream(ada.api, vm=vm) as events:
        assert any(event.kind == "vm.deleted" for event in iter(events.next, None))


def test_messages_are_in_the_callers_language(ada: Person, her_vm: str) -> None:
    with stream(ada.api, headers={"accept-language": "zh"}) as events:
        change(ada.api, her_vm)
        assert "已更改" in events.next().data["message"]


def test_what_is_not_kept_is_one_event_and_the_stream_goes_on(ada: Person, her_vm: str) -> None:
    epoch = newest(ada.api).partition("-")[0]
    for gone in (f"{'0' * len(epoch)}-7", f"{epoch}-{10**9}"):
        with stream(ada.api, headers={"last-event-id": gone}) as events:
            message = events.next()
            assert message.kind == "resync-required"
            assert message.data == {"event": "resync-required", "lastId": message.id}
            change(ada.api, her_vm)
            assert events.next().kind == "vm.updated"
            assert since(ada.api, message.id)[0]["id"] == events.last_id


def test_silence_is_filled_and_says_where_the_client_is(
    api: Api, ada: Person, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.api.events.HEARTBEAT_S", 0.1)
    with stream(ada.api) as events:
        change(api, vm)  # somebody else's
        place = newest(api)
        eventually(lambda: events.block() is None and events.last_id == place)
        assert events.comments


# Who may


def test_a_credential_by_header_or_query_and_in_no_log(
    ada: Person, anybody: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with stream(anybody, token=ada.api.token) as events:
        ada.api.ok("POST", "/auth/tokens", {"name": "logs"})
        assert events.next().kind == "token.created"
    assert refused(anybody) == (401, "UNAUTHORIZED")
    assert refused(anybody, token="x") == (401, "UNAUTHORIZED")
    assert refused(ada.api, after="x") == (400, "VALIDATION_ERROR")
    assert refused(ada.api, headers={"origin": "https://evil.example"}) == (403, "ORIGIN_REFUSED")
    assert ada.api.token is not None
    ours = [line.getMessage() for line in caplog.records if not line.name.startswith("httpx")]
    assert ours
    assert not [line for line in ours if ada.api.token in line]


def test_a_configured_page_may_read_it() -> None:
    page = "https://ui.example.org"
    service = LocalService(FakeHost(), VOIDVM_SERVER__ALLOWED_ORIGINS=f'["{page}"]')
    try:
        service.start()
        with stream(service.api(), headers={"origin": page}) as events:
            assert events.response.headers["access-control-allow-origin"] == page
    finally:
        service.close()


def test_other_methods_are_refused(ada: Person) -> None:
    for method in ("HEAD", "POST", "OPTIONS"):
        assert ada.api.client.request(method, PATH).status_code == 405


# How it ends


def over(events: Stream) -> bool:
    """Whether the stream ends, and by itself."""
    with contextlib.suppress(httpx.RemoteProtocolError):
        events.rest()
    return True


def test_it_ends_with_the_session(local: LocalService, ada: Person) -> None:
    session, token = ada.again(), ada.token()
    with stream(session) as by_session, stream(ada.api.as_user(token["token"])) as by_token:
        session.ok("POST", "/auth/logout")
        assert over(by_session)
        assert "the session ended" in by_session.comments
        ada.api.ok("DELETE", f"/auth/tokens/{token['id']}")
        assert over(by_token)


def test_it_ends_when_the_token_runs_out(ada: Person) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    with stream(ada.with_token(expiresAt=soon)) as events:
        assert over(events)


def test_it_is_one_of_the_users_sockets(local: LocalService, api: Api) -> None:
    eve = person(local, api)
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(stream(eve.api))
        assert refused(eve.api) == (429, "RATE_LIMITED")
    eventually(lambda: local.gate.sockets._taken.get(eve.id, 0) == 0)
    with stream(eve.api):
        pass


def test_a_stop_of_the_service_ends_it_at_once(own_service: LocalService) -> None:
    with stream(own_service.api()) as events:
        start = time.monotonic()
        assert own_service._serving is not None
        own_service.loop.call_soon_threadsafe(own_service._stop.set)
        own_service._serving.result(20)
        assert time.monotonic() - start < 4, "the time that requests are given was used up"
        assert over(events)
        with contextlib.suppress(httpx.TransportError):
            own_service.stop()


class Stalled:
    """A client that reads its answer's head, and then nothing."""

    def __init__(self, url: str, token: str | None, **query: Json) -> None:
        address = urlsplit(url)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(20)
        self.socket.connect((address.hostname, address.port))
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        self.socket.sendall(
            f"GET {PATH}?{asked} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        assert self.socket.recv(12) == b"HTTP/1.1 200"

    def is_cut_off(self) -> bool:
        """Whether the connection has ended, once all is read that was sent."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionResetError:
            pass
        finally:
            self.socket.close()
        return True


@pytest.fixture
def many(local: LocalService, ada: Person, her_vm: str) -> Iterator[str]:
    """The place before more events than buffers on the way can hold."""
    place = newest(ada.api)
    database = local.services.events._store.database
    fill = (
        "INSERT INTO events (kind, owner_id, vm_id, data)"
        " WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
        " SELECT 'vm.updated', ?, ?, json_object('name', hex(zeroblob(1500)), 'fields',"
        " json_array(i)) FROM n"
    )
    local.run(database.execute(fill, (ada.id, her_vm)))
    events = local.services.events
    eventually(lambda: events.last_id == events.id_of(local.run(events._store.bounds()).newest))
    yield place
    local.run(database.execute("DELETE FROM events WHERE length(data) > 3000"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[EventStream]:
    """The streams that were opened, as the service sees them."""
    found: list[EventStream] = []
    real = SocketProtocol.stream

    def stream(self: SocketProtocol, *arguments: Json) -> EventStream:
        found.append(real(self, *arguments))
        return found[-1]

    monkeypatch.setattr(SocketProtocol, "stream", stream)
    return found


def test_a_client_that_does_not_read_is_cut_off_and_costs_nobody(
    local: LocalService,
    ada: Person,
    her_vm: str,
    many: str,
    opened: list[EventStream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "SEND_TIMEOUT_S", 0.5)
    monkeypatch.setattr(streams, "CLOSE_TIMEOUT_S", 0.2)
    stalled = Stalled(local.url, ada.api.token, after=many)
    of_stalled = eventually(lambda: opened[0] if opened else None)
    held = [0]

    def look() -> bool:
        held.append(of_stalled._transport.get_write_buffer_size())
        return not of_stalled.is_open

    with stream(ada.api) as events:
        change(ada.api, her_vm)
        assert events.next().data["data"]["fields"] == ["description"]
    eventually(lambda: local.do(look), timeout_s=20)
    assert 0 < max(held) < streams.WRITE_HIGH_BYTES + 8_192
    assert stalled.is_cut_off()
    eventually(lambda: ada.id not in local.gate.sockets._taken)
    # It comes back and has lost nothing.
    with stream(ada.api, after=many) as events:
        numbers = [message.data["data"]["fields"][0] for message in events.take(3000)]
    assert numbers == list(range(1, 3001))
