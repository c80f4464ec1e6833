"""A service with a certificate: everything that it serves is served over TLS."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.certificates import make_certificate, trusting
from tests.support.contract import Api
from tests.support.service import PASSWORD, Service, eventually
from voidvm import AsyncVoidVMClient, VoidVMClient
from voidvm.client import errors


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    cert, key = make_certificate(tmp_path_factory.mktemp("tls"))
    service = Service(VOIDVM_SERVER__TLS_CERT=str(cert), VOIDVM_SERVER__TLS_KEY=str(key))
    service.trust = trusting(cert)
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def folder(service: Service) -> Path:
    return Path(service.settings["VOIDVM_SERVER__TLS_CERT"]).parent


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    return service.api()


def certificate_of(service: Service) -> bytes | None:
    """What a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=10) as line,
        context.wrap_socket(line) as secure,
    ):
        assert secure.version() in {"TLSv1.2", "TLSv1.3"}
        return secure.getpeercert(binary_form=True)


async def test_requests_events_and_sockets_go_over_tls(service: Service, api: Api) -> None:
    body = {"name": "a", "memory": 32, "disk": 1, "networks": [], "start": True}
    vm = api.ok("POST", "/vms", body)
    place = service.url.replace("https", "wss")
    # Not blocking ones: see voidvm/client/blocking_socket.py.
    async with asyncio.timeout(20):
        address = f"{place}/api/v1/vms/a/console?token={api.token}"
        async with connect(address, ssl=service.trust) as console:
            assert json.loads(await console.recv())["vmId"] == vm["id"]
        async with connect(f"{place}/ws?token={api.token}", ssl=service.trust) as live:
            assert json.loads(await live.recv())["type"] == "hello"
    with httpx.stream(
        "GET",
        f"{service.url}/api/v1/events/stream",
        headers={"authorization": f"Bearer {api.token}"},
        verify=service.trust,
        trust_env=False,
        timeout=10,
    ) as stream:
        api.stop(vm["id"])
        lines = stream.iter_lines()
        assert any("stopped" in line for line in lines)


def test_the_client_trusts_the_file_that_it_is_given(service: Service, folder: Path) -> None:
    with pytest.raises(errors.Untrusted, match="ca_file or VOIDVM_CA_FILE"):
        VoidVMClient(service.url).vms.list()
    with pytest.raises(ValueError, match="no certificate is in it"):
        VoidVMClient(service.url, ca_file=service.log)
    with pytest.raises(ValueError, match="No such file"):
        VoidVMClient(service.url, ca_file="/nowhere.pem")
    token = service.api().token
    with VoidVMClient(service.url, token, ca_file=folder / "cert.pem") as client:
        vm = client.vms.create(name="trusting", memory=32, disk=1, networks=[])
        with client.vms.console(vm) as console:
            console.open()
        with client.live() as live:
            live.ask("subscribe", {"topic": "vm-status-all"})
        after = client.events.list(limit=1).last_id
        client.vms.delete(vm)
        assert next(client.events(after=after))["vmId"] == vm.id


async def test_the_awaited_client_trusts_the_file_of_the_environment(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOIDVM_CA_FILE", str(folder / "cert.pem"))
    async with AsyncVoidVMClient(service.url, username="admin", password=PASSWORD) as client:
        vm = await client.vms.create(name="trusting", memory=32, disk=1, networks=[])
        async with client.vms.console(vm) as console:
            await console.open()
        await client.vms.delete(vm)


def test_a_login_remembers_whom_to_trust(service: Service, folder: Path, tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path), "VOIDVM_PASSWORD": PASSWORD}
    done = service.command("login", **home)
    assert done.returncode == 6
    assert "--ca-file FILE, or VOIDVM_CA_FILE" in done.stderr
    assert service.command("login", "--ca-file", str(service.log), **home).returncode == 2
    assert service.command("login", "--ca-file", str(folder / "cert.pem"), **home).returncode == 0
    assert service.command("vm", "ls", **home).returncode == 0
    assert service.command("logout", **home).returncode == 0
    assert service.command("login", **home).returncode == 0  # it is the same service still
    assert service.command("vm", "ls", **home).returncode == 0
    strange = make_certificate(tmp_path, name="elsewhere")[0]
    assert service.command("vm", "ls", VOIDVM_CA_FILE=str(strange), **home).returncode == 6


def test_a_large_answer_comes_whole(service: Service) -> None:
    found = httpx.get(f"{service.url}/docs/openapi.json", verify=service.trust, trust_env=False)
    assert len(found.content) > 100_000
    assert found.json()["openapi"].startswith("3.")


def test_plain_http_is_not_answered(service: Service) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(service.url.replace("https", "http") + "/health", trust_env=False)


def test_a_client_that_stalls_in_its_handshake_holds_up_nobody(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port)):
        began = time.monotonic()
        assert httpx.get(f"{service.url}/health", verify=service.trust, trust_env=False).is_success
        assert time.monotonic() - began < 5


def test_a_renewed_certificate_is_taken_at_sighup(service: Service, folder: Path) -> None:
    before, files = certificate_of(service), {path: path.read_bytes() for path in folder.iterdir()}
    cert, key = make_certificate(folder)
    assert certificate_of(service) == before
    assert service.process is not None
    service.process.send_signal(signal.SIGHUP)
    new = ssl.PEM_cert_to_DER_cert(cert.read_text())
    eventually(lambda: certificate_of(service) == new)
    # One that cannot be used changes nothing.
    key.write_text("no key")
    service.process.send_signal(signal.SIGHUP)
    eventually(lambda: "the certificate stays as it was" in service.log.read_text())
    assert certificate_of(service) == new
    for path, content in files.items():
        path.write_bytes(content)
    service.process.send_signal(signal.SIGHUP)
    eventually(lambda: certificate_of(service) == before)


def test_the_services_own_host_needs_no_name_of_the_certificate(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, name="vms.example.org")
    service = Service(VOIDVM_SERVER__TLS_CERT=str(cert), VOIDVM_SERVER__TLS_KEY=str(key))
    try:
        service.start()
        done = service.command("power-off-guests", "--timeout", "5")
        assert (done.returncode, done.stderr) == (0, "No guest was running.\n")
    finally:
        service.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"TLS_CERT": "{cert}"}, "tls_key: a certificate and its key belong together"),
        ({"TLS_CERT": "{cert}", "TLS_KEY": "{cert}"}, "are no certificate with its key"),
        ({"TLS_CERT": "{cert}", "TLS_KEY": "/nowhere/key.pem"}, "cannot read /nowhere/key.pem"),
    ],
)
def test_files_that_cannot_be_used_are_refused_at_the_start(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    cert, _ = make_certificate(tmp_path)
    given = {f"VOIDVM_SERVER__{key}": value.format(cert=cert) for key, value in settings.items()}
    service = Service(**given)
    try:
        done = service.command("serve")
        assert done.returncode == 1
        assert words in done.stderr
    finally:
        service.close()


def test_plain_http_beyond_loopback_is_warned_about(tmp_path: Path) -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - with a password of its own
    service = Service(VOIDVM_SERVER__HOST=everywhere, VOIDVM_ADMIN_PASSWORD="secret enough")
    try:
        service.start()
        assert "is reached over plain HTTP" in service.log.read_text()
    finally:
        service.close()
