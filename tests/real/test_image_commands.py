"""`voidvm image`, `disk` and `operation` against a running service, in a pipe and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contract import Api, Json
from tests.support.disks import MIB, Held, iso, qcow2
from tests.support.operations import leftovers, sha256
from tests.support.service import PASSWORD, VOIDVM, Service, eventually
from tests.support.webserver import WebServer, web_server


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A running service that the command line is signed in to."""
    service = Service(VOIDVM_IMAGES__ALLOW_PRIVATE_URLS="true")
    try:
        service.start()
        done = service.command("login", "--username", "admin", VOIDVM_PASSWORD=PASSWORD)
        assert done.returncode == 0, done.stderr
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    made = folder / "some.disk.qcow2"
    made.write_bytes(qcow2(folder, size=20 * MIB))
    return made


def run(service: Service, *arguments: str, status: int = 0) -> tuple[str, str]:
    """What a command says on stdout and on stderr."""
    done = service.command(*arguments)
    assert done.returncode == status, f"{arguments}: {done.stdout} {done.stderr}"
    return done.stdout, done.stderr


def _uploaded(service: Service) -> int:
    return sum(path.stat().st_size for path in (service.data / "uploads").glob("*"))


def test_a_file_is_uploaded_with_its_checksum_and_plain_lines(
    service: Service, api: Api, file: Path
) -> None:
    out, said = run(service, "image", "upload", str(file))
    assert out == ""
    lines = said.splitlines()
    assert lines[0] == "checksum …"
    assert "upload …" in lines
    assert any(line.startswith("upload: 75 % of 20") for line in lines)
    assert lines[-1].startswith("The image 'some.disk' is there.")
    image = api.ok("GET", "/images/some.disk")
    assert image["checksum"] == sha256(file.read_bytes())
    shown, _ = run(service, "image", "show", "some.disk")
    assert image["id"] in shown
    assert "20.0 MiB" in shown
    found = json.loads(run(service, "image", "show", "--json", "some.disk")[0])
    assert found == image
    _, said = run(service, "image", "upload", str(file), status=5)
    assert "is taken" in said
    run(service, "image", "rm", "--yes", "some.disk")
    _, said = run(service, "image", "show", "some.disk", status=3)
    assert said.startswith("error: ")
    assert leftovers(service, api) == []


def test_an_upload_goes_on_when_the_service_restarts(
    service: Service, api: Api, file: Path
) -> None:
    command = [str(VOIDVM), "image", "upload", str(file), "--name", "restarted"]
    environ = service.environ | {"VOIDVM_URL": service.url}
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as running:
        eventually(lambda: _uploaded(service) or None, timeout_s=20)
        service.kill()
        time.sleep(0.5)
        service.start()
        _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert api.ok("GET", "/images/restarted")["checksum"] == sha256(file.read_bytes())
    run(service, "image", "rm", "--yes", "restarted")


def test_an_upload_that_was_interrupted_is_resumed_by_its_id(
    service: Service, api: Api, file: Path
) -> None:
    data = file.read_bytes()
    body = {"name": "resumed", "sizeBytes": len(data), "checksum": sha256(data)}
    upload = api.ok("POST", "/images/uploads", body)["uploadId"]
    api.call(
        "PATCH",
        f"/images/uploads/{upload}",
        content=data[:5_000_000],
        headers={"content-type": "application/offset+octet-stream", "upload-offset": "0"},
    )
    _, said = run(service, "image", "upload", str(file), "--resume", upload)
    assert "The image 'resumed' is there." in said
    assert "checksum …\nupload" not in said
    run(service, "image", "rm", "--yes", "resumed")


def test_an_address_is_pulled_and_a_failure_is_told(
    service: Service, api: Api, web: WebServer, file: Path
) -> None:
    data = file.read_bytes()
    url = web.file("/some/thing.qcow2", data)
    out, said = run(service, "image", "pull", url, "--checksum", sha256(data), "--json")
    assert json.loads(out)["name"] == "thing"
    # So small a file may be at any stage, or there, when somebody asks how far it is.
    assert all(re.fullmatch(r"\w+ …|\w+: \d+ % of .+", line) for line in said.splitlines())
    _, said = run(service, "image", "pull", url, "--name", "other", "--checksum",
                  "sha256:" + "0" * 64, status=1)  # fmt: skip
    assert "checksum" in said
    assert "hint: voidvm operation show op-" in said
    _, said = run(service, "image", "pull", "debain12", status=2)
    assert "debian12" in said
    run(service, "image", "pull", "debian12", "--name", "x", status=2)
    run(service, "image", "rm", "--yes", "thing")


def test_operations_are_listed_shown_awaited_and_cancelled(
    service: Service, api: Api, web: WebServer, file: Path
) -> None:
    held = Held(file.read_bytes())
    url = web.on("/held", held)
    body = {"name": "held", "url": url}
    operation = api.ok("POST", "/images", body)["id"]
    eventually(lambda: api.ok("GET", f"/operations/{operation}")["progress"]["bytesDone"])
    listed, _ = run(service, "operation", "ls", "--status", "running")
    assert operation in listed
    assert "images/held" in listed
    assert "download" in listed
    shown, _ = run(service, "operation", "show", operation)
    assert "image-import" in shown
    run(service, "operation", "cancel", operation)
    _, said = run(service, "operation", "wait", operation, status=1)
    assert "cancelled" in said
    run(service, "operation", "cancel", operation, status=5)
    run(service, "operation", "show", "op-nothing", status=3)
    run(service, "operation", "show", "../vms", status=3)
    held.go.set()
    operation = api.ok("POST", "/images", body)["id"]
    found = json.loads(run(service, "operation", "wait", operation, "--json")[0])
    assert found["status"] == "succeeded"
    run(service, "image", "rm", "--yes", "held")


def test_ctrl_c_leaves_the_work_alone_and_says_how_to_end_it(
    service: Service, api: Api, web: WebServer, file: Path
) -> None:
    held = Held(file.read_bytes())
    url = web.on("/left", held)
    command = [str(VOIDVM), "image", "pull", url]
    environ = service.environ | {"VOIDVM_URL": service.url}
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as running:
        eventually(lambda: held.calls or None, timeout_s=20)
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "voidvm operation cancel op-" in said
    operation = said.split()[-1]
    assert api.ok("GET", f"/operations/{operation}")["status"] == "running"
    run(service, "operation", "cancel", operation)
    held.go.set()


def test_a_terminal_gets_a_bar(service: Service, api: Api, file: Path) -> None:
    parent, child = pty.openpty()
    seen = bytearray()

    def read() -> None:
        try:
            while piece := os.read(parent, 4096):
                seen.extend(piece)
        except OSError:
            pass  # the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    command = [str(VOIDVM), "image", "upload", str(file), "--name", "barred"]
    environ = service.environ | {"VOIDVM_URL": service.url, "TERM": "xterm-256color"}
    done = subprocess.run(command, env=environ, stderr=child, stdout=subprocess.PIPE, check=False)
    os.close(child)
    reader.join(10)
    os.close(parent)
    assert done.returncode == 0, seen.decode()
    assert "━".encode() in seen
    assert b"upload" in seen
    assert b"MiB" in seen
    run(service, "image", "rm", "--yes", "barred")


def test_disks_and_cds(service: Service, api: Api, tmp_path: Path) -> None:
    vm: Json = api.ok("POST", "/vms", {"name": "cli", "memory": 32, "disk": 1, "networks": []})
    disc = tmp_path / "disc.iso"
    disc.write_bytes(iso(("a", b"a")))
    run(service, "image", "upload", str(disc))
    _, said = run(service, "disk", "add", "cli", "2", "--bus", "scsi", "--cache", "none")
    assert "new disk 'disk1', 2 GiB, on scsi" in said
    run(service, "disk", "expand", "cli", "disk1", "3")
    listed, _ = run(service, "disk", "ls", "cli")
    assert [line.split()[:5] for line in listed.splitlines()[1:]] == [
        ["disk0", "1", "GiB", "virtio", "writeback"],
        ["disk1", "3", "GiB", "scsi", "none"],
    ]
    _, said = run(service, "disk", "rm", "cli", "disk1", status=2)
    assert "--yes" in said
    run(service, "disk", "rm", "--yes", "cli", "disk1")
    assert len(json.loads(run(service, "disk", "ls", "--json", "cli")[0])) == 1
    run(service, "vm", "iso", "cli", "disc")
    assert api.ok("GET", "/vms/cli")["iso"] == "disc"
    _, said = run(service, "image", "rm", "--yes", "disc", status=5)
    assert "cli" in said
    run(service, "vm", "iso", "cli", "--eject")
    assert api.ok("GET", "/vms/cli")["iso"] is None
    run(service, "vm", "iso", "cli", status=2)
    api.remove(vm["id"])
