"""Networks, waits, disks and changes of guests that run: two of them, on one image."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.support.contract import Api, Json
from tests.support.guests import PROMPT, boot, command_line, shell, wait_for
from tests.support.service import Service, eventually
from tests.support.warm_guests import MAC

pytestmark = pytest.mark.guest

FORWARD = {"guestPort": 80}


@pytest.fixture(scope="module")
def pair(api: Api) -> tuple[str, str]:
    """Two booted guests over the same image: `open` and `isolated`."""
    api.create("open", networks=[{"mac": MAC, "forwards": [FORWARD, {"guestPort": 81}]}])
    api.create("isolated", networks=[{"mac": MAC, "isolated": True, "forwards": [FORWARD]}])
    api.start("open")
    api.start("isolated")
    for name in ("open", "isolated"):
        wait_for(api, name, PROMPT, timeout_s=60)
    return "open", "isolated"


@pytest.fixture
def host_page() -> Iterator[int]:
    """A page on the host's loopback; its port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from the host")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def port_of(api: Api, name: str, guest_port: int = 80) -> int:
    ends: list[Json] = api.ok("GET", f"/vms/{name}")["endpoints"]
    return next(int(end["hostPort"]) for end in ends if end["guestPort"] == guest_port)


def test_forwards_lead_to_the_guests_web_server(api: Api, pair: tuple[str, str]) -> None:
    ports = [port_of(api, name) for name in pair]
    assert 0 not in ports
    assert ports[0] != ports[1]
    for name, port in zip(pair, ports, strict=True):
        wait_for(api, name, "tcp:80")
        page = httpx.get(f"http://127.0.0.1:{port}/", timeout=10, trust_env=False)
        assert page.status_code == 200
        assert "<b>tiny</b>" in page.text


def test_wait_tells_what_is_missing_on_a_port(api: Api, pair: tuple[str, str]) -> None:
    query = {"for": "tcp:81", "timeout": 1}
    error = api.refused("GET", "/vms/open/wait", "WAIT_TIMEOUT", params=query)
    assert error["details"] == "nothing listens on port 81 of the guest"
    query = {"for": "tcp:22", "timeout": 0.3}
    error = api.refused("GET", "/vms/open/wait", "WAIT_TIMEOUT", params=query)
    assert "no forward leads to port 22" in error["details"]


def test_wait_sees_agent_address_console_and_status(api: Api, pair: tuple[str, str]) -> None:
    wait_for(api, "open", "agent")
    wait_for(api, "open", "ip")
    wait_for(api, "open", PROMPT)
    assert wait_for(api, "open", "running", timeout_s=1)["status"] == "running"
    query = {"for": "console:/never said/", "timeout": 0.3}
    error = api.refused("GET", "/vms/open/wait", "WAIT_TIMEOUT", params=query)
    assert error["details"] == "nothing on the console matched"
    query = {"for": "stopped", "timeout": 0.3}
    error = api.refused("GET", "/vms/open/wait", "WAIT_TIMEOUT", params=query)
    assert error["details"] == "the VM is running"


def test_an_isolated_guest_does_not_reach_the_host(
    api: Api, pair: tuple[str, str], host_page: int
) -> None:
    for name in pair:
        wait_for(api, name, "ip")
    # Not with wget: a static busybox does not survive its own look-up of names.
    fetch = f"(echo GET /; sleep 1) | nc -w 3 10.0.2.2 {host_page} || echo no"
    assert "from the host" in shell(api, "open", fetch)
    assert shell(api, "isolated", fetch).endswith("no")


def test_two_guests_on_one_image_have_disks_of_their_own(api: Api, pair: tuple[str, str]) -> None:
    place = "bs=1M seek=900 of=/dev/vda conv=fsync 2>/dev/null"
    for name in pair:
        shell(api, name, f"echo mark-{name} | dd {place}")
    for name in pair:
        read = "dd bs=1M skip=900 count=1 if=/dev/vda 2>/dev/null | head -c 20"
        assert f"mark-{name}" in shell(api, name, f"{read} | head -n 1")


def test_a_disk_grows_under_a_running_guest(api: Api, pair: tuple[str, str]) -> None:
    before = api.ok("GET", "/vms/open")["disk"]
    changed = api.ok("PATCH", "/vms/open", {"disk": before + 1})
    assert (changed["disk"], changed["disks"][0]["size"]) == (before + 1, before + 1)
    assert changed["needsRestart"] is False
    sectors = (before + 1) * 1024**3 // 512
    eventually(lambda: int(shell(api, "open", "cat /sys/block/vda/size")) == sectors)
    error = api.refused("PATCH", "/vms/open", "VALIDATION_ERROR", {"disk": before})
    assert [problem["field"] for problem in error["errors"]] == ["disk"]


def test_changes_of_a_running_vm_wait_for_its_next_start(
    service: Service, api: Api, pair: tuple[str, str]
) -> None:
    vm = api.ok("GET", "/vms/isolated")
    forward = {"guestPort": 80, "hostPort": 0}
    wanted = {"memory": 224, "cpu": 2, "networks": [{"forwards": [forward]}]}
    changed = api.ok("PATCH", "/vms/isolated", {**wanted, "description": "at once"})
    assert (changed["memory"], changed["cpu"]) == (256, 1)
    assert changed["description"] == "at once"
    assert changed["needsRestart"] is True
    assert set(changed["pending"]) == {"memory", "cpu", "networks"}
    assert (changed["pending"]["memory"], changed["pending"]["cpu"]) == (224, 2)
    # What was changed back waits no more.
    back = api.ok("PATCH", "/vms/isolated", {"cpu": 1, "networks": vm["networks"]})
    assert set(back["pending"]) == {"memory"}
    api.stop("isolated")
    stopped = api.ok("GET", "/vms/isolated")
    assert (stopped["memory"], stopped["pending"], stopped["needsRestart"]) == (224, {}, False)
    # What a guest finds of its memory is seen where one boots: test_boots.py.
    assert "size=224M" in command_line(api.start("isolated")["pid"])
    api.stop("isolated")
    # As the other tests know it.
    api.ok("PATCH", "/vms/isolated", {"memory": 256})
    boot(api, "isolated")
