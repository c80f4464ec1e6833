"""The example configurations of nginx and Caddy, with the programs themselves."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.meta.sources import ROOT
from tests.support.certificates import make_certificate, trusting
from tests.support.contract import Json
from tests.support.service import PASSWORD, Service, eventually

EXAMPLES = ROOT / "docs" / "deploy"
NAME, UPSTREAM = "vms.example.org", "127.0.0.1:3000"
# Clients come from elsewhere than the proxy, or nobody could tell them apart.
CLIENT, PROXY = "127.0.0.5", "127.0.0.1"


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind((PROXY, 0))
        port: int = trial.getsockname()[1]
        return port


def nginx(folder: Path, port: int, upstream: str, cert: Path, key: Path) -> list[str]:
    """The command that runs the example, which is a part of a whole configuration."""
    site = (EXAMPLES / "nginx.conf").read_text()
    for example, real in (
        (UPSTREAM, upstream),
        ("listen 443", f"listen {PROXY}:{port}"),
        (f"/etc/ssl/{NAME}/fullchain.pem", str(cert)),
        (f"/etc/ssl/{NAME}/key.pem", str(key)),
        (NAME, "localhost"),
        ("/var/log/nginx", str(folder)),
    ):
        assert example in site
        site = site.replace(example, real)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    main = folder / "nginx.conf"
    main.write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\n{temporary}{site}\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(main)]


def caddy(folder: Path, port: int, upstream: str, cert: Path, key: Path) -> list[str]:
    """The command that runs the example; certificates of others cannot be had here."""
    site = (EXAMPLES / "Caddyfile").read_text()
    for example, real in (
        (UPSTREAM, upstream),
        (f"\n{NAME} {{", f"\nhttps://localhost:{port} {{\n\tbind {PROXY}\n\ttls {cert} {key}"),
    ):
        assert example in site
        site = site.replace(example, real)
    main = folder / "Caddyfile"
    main.write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{site}")
    return ["caddy", "run", "--config", str(main), "--adapter", "caddyfile"]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service(VOIDVM_SERVER__TRUSTED_PROXIES=f'["{PROXY}"]')
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def vm(service: Service) -> Json:
    body = {"name": "a", "memory": 32, "disk": 1, "networks": [], "start": True}
    return service.api().ok("POST", "/vms", body)


class Proxy:
    """A running proxy, and a client of it that is signed in."""

    def __init__(self, port: int, trust: ssl.SSLContext, folder: Path) -> None:
        self.place = f"localhost:{port}"
        self.trust = trust
        self.folder = folder
        self.client = httpx.Client(
            base_url=f"https://{self.place}",
            transport=httpx.HTTPTransport(verify=trust, local_address=CLIENT),
            timeout=20,
        )
        self.token = ""

    def is_up(self) -> bool:
        try:
            return self.client.get("/health").is_success
        except httpx.TransportError:
            return False

    def login(self) -> None:
        body = {"username": "admin", "password": PASSWORD}
        # What a client says of its own address is worth nothing.
        forged = {"x-forwarded-for": "203.0.113.9"}
        answer = self.client.post("/api/v1/auth/login", json=body, headers=forged)
        self.token = answer.json()["token"]
        self.client.headers["authorization"] = f"Bearer {self.token}"


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxy(
    request: pytest.FixtureRequest, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    make = request.param
    if shutil.which(make.__name__) is None:
        pytest.skip(f"{make.__name__} is not installed")
    folder, port = tmp_path_factory.mktemp(make.__name__), free_port()
    cert, key = make_certificate(folder)
    command = make(folder, port, f"127.0.0.1:{service.port}", cert, key)
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )
    try:
        found = Proxy(port, trusting(cert), folder)

        def is_up() -> bool:
            assert process.poll() is None, (folder / "out").read_text()
            return found.is_up()

        eventually(is_up, timeout_s=30)
        found.login()
        yield found
        found.client.close()
    finally:
        # Politely it would wait for the ends of connections; of nginx also the worker ends so.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_service_sees_the_clients_address(proxy: Proxy) -> None:
    logs = proxy.client.get("/api/v1/logs", params={"limit": 200}).json()["data"]["logs"]
    assert {one["address"] for one in logs if one["action"] == "login"} >= {CLIENT}
    assert "203.0.113.9" not in json.dumps(logs)


def test_an_upload_larger_than_any_default_goes_through(proxy: Proxy) -> None:
    size = 3 * 1024**2
    body = {"name": "upload", "sizeBytes": size * 2}
    made = proxy.client.post("/api/v1/images/uploads", json=body).json()["data"]
    path = f"/api/v1/images/uploads/{made['uploadId']}"
    try:
        headers = {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
        answer = proxy.client.patch(path, content=os.urandom(size), headers=headers)
        assert answer.json()["data"]["offset"] == size
        assert answer.headers["upload-offset"] == str(size)
    finally:
        proxy.client.delete(path)


def test_events_come_as_they_happen(proxy: Proxy, vm: Json) -> None:
    with proxy.client.stream("GET", "/api/v1/events/stream") as stream:
        # The beginning of the stream is here before anything has happened.
        lines = stream.iter_lines()
        assert next(lines) is not None
        tag = f"seen-{proxy.place.partition(':')[2]}"
        proxy.client.patch(f"/api/v1/vms/{vm['id']}", json={"tags": [tag]})
        assert any("vm.updated" in line or "vm.changed" in line for line in lines)


async def test_both_websockets_pass(proxy: Proxy, vm: Json) -> None:
    # Not blocking ones: see voidvm/client/blocking_socket.py.
    for path, first in ((f"/api/v1/vms/{vm['id']}/console", "hello"), ("/ws", "hello")):
        address = f"wss://{proxy.place}{path}?token={proxy.token}"
        headers = {"Origin": f"https://{proxy.place}"}
        async with (
            asyncio.timeout(20),
            connect(address, ssl=proxy.trust, additional_headers=headers) as line,
        ):
            assert json.loads(await line.recv())["type"] == first
            await line.send(json.dumps({"type": "ping", "id": "7", "data": {}}))
            while True:
                told = await line.recv()
                if isinstance(told, str) and json.loads(told)["type"] == "pong":
                    break


def test_a_refused_socket_is_an_http_answer(proxy: Proxy, vm: Json) -> None:
    answer = proxy.client.get(
        f"/api/v1/vms/{vm['id']}/console", headers={"authorization": "Bearer wrong"}
    )
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "UNAUTHORIZED"


def test_no_token_is_written_down(proxy: Proxy, vm: Json) -> None:
    proxy.client.get("/health", params={"token": proxy.token})
    for file in proxy.folder.rglob("*"):
        if file.is_file():
            assert proxy.token.encode() not in file.read_bytes(), file
