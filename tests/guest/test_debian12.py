"""A whole Debian, configured by cloudInit: what was asked for has arrived, and it can be entered.

One test in one piece, since tests run in any order and a boot takes minutes under TCG. The image is
made by `voidvm image build debian12`, which takes minutes, too, once; VOIDVM_TEST_DEBIAN12 names
another folder that has it.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contract import Api, Json
from tests.support.guests import end_of, log_of, send
from tests.support.service import VOIDVM, Service, eventually

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[2]
PASSWORD = "Kühe & 'Gänse' $6$"
LINE_S = 120
CONFIGURED_S = 900
DONE = "voidvm-runcmd-done"
RUNCMD: list[str | list[str]] = [
    'umask 022; echo "as a line: $(id -un) \'a\' \\"b\\" 😀" > /srv/line',
    ["touch", "/srv/as a list; $(id)"],
    # To the serial console, since the journal's way there depends on the image.
    f"echo {DONE} > /dev/ttyS0",
]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def image() -> Path:
    """The built disk; made in .cache once, as scripts/test does with the small guest."""
    folder = Path(os.environ.get("VOIDVM_TEST_DEBIAN12", ROOT / ".cache" / "debian12"))
    disk = folder / "debian12.qcow2"
    if not disk.exists():
        done = subprocess.run(
            [VOIDVM, "image", "build", "debian12", "--output", folder],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return disk


@pytest.fixture(scope="module")
def service(image: Path) -> Iterator[Service]:
    service = Service()
    try:
        done = service.command("image", "add", "--os", "debian12", str(image))
        assert done.returncode == 0, done.stderr
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    return service.api()


@pytest.fixture(scope="module")
def key(service: Service) -> Path:
    """A fresh SSH key."""
    path = service.folder / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@test", "-f", path],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return path


@pytest.fixture(scope="module")
def vm(api: Api, key: Path) -> Json:
    """The VM once cloud-init has done its last command."""
    wanted: Json = {
        "name": "debian",
        "os": "debian12",
        "cpu": 2,
        "memory": 1024,
        "disk": 5,
        "networks": [{"forwards": [{"guestPort": 22}]}],
        "cloudInit": {
            "hostname": "deb1.example.org",
            "user": "alice",
            "password": PASSWORD,
            "sshKeys": [key.with_suffix(".pub").read_text()],
            "runcmd": RUNCMD,
        },
    }
    made = api.ok("POST", "/vms", wanted)
    api.start(made["id"])
    wait_long(api, made["id"], "console:/deb1 login: /")
    return wait_long(api, made["id"], f"console:/{DONE}/")


def wait_long(api: Api, vm: str, condition: str) -> Json:
    """The VM once the condition holds; asked anew before the client's own patience ends."""
    deadline = time.monotonic() + CONFIGURED_S
    while True:
        answer = api.call("GET", f"/vms/{vm}/wait", params={"for": condition, "timeout": 45})
        if answer.is_success:
            return answer.json()["data"]
        assert answer.status_code == 408, answer.text
        assert time.monotonic() < deadline, f"{condition}: {log_of(api, vm)[-2000:]!r}"


def said(api: Api, pattern: str, *, since: int, timeout_s: float = LINE_S) -> re.Match[str]:
    """The first match on the console behind an offset."""
    return eventually(
        lambda: re.search(pattern, log_of(api, "debian", since=since).decode(errors="replace")),
        timeout_s=timeout_s,
    )


def sign_in(api: Api) -> None:
    """Sign in on the console with name and password."""
    since = send(api, "debian", "\n")
    said(api, "deb1 login: ", since=since)
    since = send(api, "debian", "alice\n")
    said(api, "Password: ", since=since)
    since = send(api, "debian", f"{PASSWORD}\n")
    said(api, r"alice@deb1:~\$ ", since=since)


def shell(api: Api, command: str) -> str:
    """What a command prints in alice's shell; fails unless its status is 0."""
    number = next(_numbers)
    # The quotes keep the echo of the line apart from what the line prints.
    since = send(api, "debian", f"echo BE''GIN-{number}; {command}; echo EN''D-{number}-$?\n")
    found = said(api, rf"(?s)BEGIN-{number}\r\n(.*?)END-{number}-(\d+)\r\n", since=since)
    assert found[2] == "0", f"{command!r} ended with {found[2]}: {found[1]}"
    # Bash brackets its pasted input.
    return re.sub(r"\x1b\[\?2004[hl]\r?", "", found[1]).replace("\r\n", "\n").strip()


def ssh(vm: Json, key: Path, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A command as alice through the forwarded port."""
    (endpoint,) = vm["endpoints"]
    return subprocess.run(
        [
            "ssh", "-i", key, "-p", str(endpoint["hostPort"]), "-F", "none",
            "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={os.devnull}",
            "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60",
            "-o", "LogLevel=ERROR", *options, f"alice@{endpoint['hostAddress']}", command,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LINE_S,
        check=False,
    )  # fmt: skip


def test_what_was_asked_for_arrives_and_the_guest_stops(
    service: Service, api: Api, vm: Json, key: Path
) -> None:
    check_that_the_password_is_nowhere(service, api)
    sign_in(api)
    check_the_guest_from_its_console(api)
    check_ssh(vm, key)
    offset = end_of(api, "debian")
    begun = time.monotonic()
    stopped = api.stop("debian", force=False, timeout=50)
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
    assert time.monotonic() - begun < 50
    assert b"Power down" in log_of(api, "debian", since=offset)


def check_that_the_password_is_nowhere(service: Service, api: Api) -> None:
    for answer in (api.call("GET", "/vms/debian"), api.call("GET", "/vms")):
        assert "$6$" not in answer.text
        assert "passwordHash" not in answer.text
    assert api.ok("GET", "/vms/debian")["cloudInit"]["user"] == "alice"
    words = ("Gänse".encode(), b"G\\u00e4nse")
    for path in service.data.rglob("*"):
        if path.is_file() and path.suffix != ".qcow2":
            data = path.read_bytes()
            assert not any(word in data for word in words), path


def check_the_guest_from_its_console(api: Api) -> None:
    assert shell(api, "hostname; hostname -f; id -un") == "deb1\ndeb1.example.org\nalice"
    assert shell(api, "sudo -n id -u") == "0"
    assert shell(api, "cat /srv/line") == "as a line: root 'a' \"b\" 😀"
    assert shell(api, "ls -1 /srv") == "'as a list; $(id)'\nline"
    assert "status: done" in shell(api, "cloud-init status --wait")
    assert "Valid" in shell(api, "sudo cloud-init schema --system")
    assert shell(api, "sudo grep WARNING /var/log/cloud-init.log; true") == ""
    assert shell(api, "systemctl --failed --no-legend --no-pager") == ""
    # The root file system has grown from the image's size to the disk's.
    assert int(shell(api, "df --output=size -BM / | tail -1").rstrip("M")) > 4500


def check_ssh(vm: Json, key: Path) -> None:
    done = ssh(vm, key, "cat /home/alice/.ssh/authorized_keys; hostname")
    assert done.returncode == 0, done.stderr
    *keys, host = done.stdout.splitlines()
    assert [line for line in keys if line.startswith("ssh-")] == [
        key.with_suffix(".pub").read_text().strip()
    ]
    assert host == "deb1"
    # Where there is a key, nobody gets in by a password.
    refused = ssh(vm, key, "true", "-o", "PubkeyAuthentication=no")
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr
