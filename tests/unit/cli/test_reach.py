"""Which endpoints the command line reaches: each command is run, and the service itself tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from tests.support.contract import Api
from tests.support.disks import iso
from tests.support.local import LocalService
from tests.unit.cli.conftest import Cli
from voidvm.api.routing import ENDPOINTS
from voidvm.cli import app
from voidvm.cli.contexts import default_path

Call = tuple[str, str]

NAMES: Final[dict[str, Call]] = {one.name: (one.method, one.path) for one in ENDPOINTS}
# No command other than `voidvm api` calls these.
UNREACHED: Final[dict[Call, str]] = {
    ("PUT", "/vms/{vm}/config"): "the same as PATCH on the VM, which `vm set` calls",
    ("PUT", "/users/{user}"): "the same as PATCH on the user, which `user set` calls",
    ("POST", "/vms/{vm}/console/tickets"): "for clients without headers, such as browsers",
    ("POST", "/ws/tickets"): "for clients without headers, such as browsers",
    ("POST", "/system/guests/poweroff"): "`power-off-guests` calls it, with rights of its own",
    ("GET", "/docs"): "a page, for browsers",
    ("GET", "/docs/assets/{file}"): "a part of that page",
    ("GET", "/docs/openapi.json"): "for programs that make clients",
}
# These speak to no service, or to the saved logins only, and `api` could reach anything.
ASIDE: Final = {
    *("serve", "doctor", "api", "image build", "image add"),
    *("init", "backup", "restore", "power-off-guests"),
    *("context ls", "context use", "context rm"),
}

# All other commands, in an order in which they succeed, or end as is written behind `->`.
SCRIPT: Final = """
health
info
me show
whoami
me set --email admin@example.org
vm create reach --memory 128 --disk 1
vm set reach --description text
image ls
image catalog
image upload {cd} --resume {half}
image upload {cd} --name cd2
image show cd
image set cd --public
image abort {upload}
image pull http://127.0.0.1:1/nothing.qcow2 -> 1
vm iso reach cd
vm iso reach --eject
image rm cd cd2 --yes
vm start reach
vm ls
vm show reach
vm wait reach running
vm pause reach
vm resume reach
vm reset reach
vm restart reach --force
vm send reach text
vm logs reach
console reach --linger 0
vm incidents reach
vm stop reach --force
disk ls reach
disk add reach 1
disk expand reach disk1 2
disk rm reach disk1 --yes
stats
stats reach
top --once
metrics
events --last 1 --no-follow
events --after {place} --count 1
operation ls
operation show {operation}
operation wait {operation}
operation cancel {operation} -> 5
vm rm reach --yes
config show
config set limits.loginAttempts 7
config unset limits.loginAttempts
user roles
user create reach
user ls
user show reach
user set reach --status disabled
user rm reach --yes
token permissions
token create reach
token ls
token rm reach --yes
audit
me password
logout
"""


def leaves(group: TyperGroup, path: str = "") -> Iterator[str]:
    """The names of all commands, with those of their groups."""
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, TyperGroup):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield path + name


@pytest.fixture
def script(api: Api, local: LocalService, tmp_path: Path) -> list[tuple[str, int]]:
    """The commands of `SCRIPT` with what there is filled in, and the status they end with."""
    cd = tmp_path / "cd.iso"
    cd.write_bytes(iso(("hello", b"world")))
    upload = api.ok("POST", "/images/uploads", {"name": "broken-off", "sizeBytes": 1})
    place = api.ok("GET", "/events", params={"limit": 1})["lastId"]
    vm = api.ok("POST", "/vms", {"name": "earlier", "disk": 1, "memory": 128})
    started = api.call(
        "POST", f"/vms/{vm['id']}/start", headers={"prefer": "respond-async"}
    ).json()["data"]
    api.ok("GET", f"/operations/{started['id']}", params={"wait": 30})
    api.remove(vm["id"])
    half = api.ok("POST", "/images/uploads", {"name": "cd", "sizeBytes": cd.stat().st_size})
    filled = SCRIPT.format(
        half=half["uploadId"],
        cd=cd,
        upload=upload["uploadId"],
        place=place,
        operation=started["id"],
    )
    commands = []
    for line in filled.strip().splitlines():
        command, _, status = line.partition(" -> ")
        commands.append((command, int(status or 0)))
    return commands


@pytest.fixture
def reached(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> set[Call]:
    """What the service is asked and does, or would do if the object's state were another."""
    calls: set[Call] = set()
    telemetry = local.gate.telemetry
    counted, counted_open = telemetry.request, telemetry.socket_opened

    def request(route: str, method: str, status: int, seconds: float) -> None:
        if status < 400 or status == 409:
            calls.add((method, route))
        counted(route, method, status, seconds)

    def socket_opened(name: str) -> None:
        calls.add(NAMES[name])
        counted_open(name)

    monkeypatch.setattr(telemetry, "request", request)
    monkeypatch.setattr(telemetry, "socket_opened", socket_opened)
    return calls


def make_stale() -> None:
    """Let the saved access token be one that has run out."""
    content = json.loads(default_path().read_text())
    for context in content["contexts"].values():
        context["expiresAt"] = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    default_path().write_text(json.dumps(content))


def test_every_command_is_run_here() -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    named = {" ".join(word for word in line.split()[:2]) for line in SCRIPT.strip().splitlines()}
    run = {name for name in leaves(group) if {name, *_longer(name, named)} & named}
    assert run | ASIDE | {"login"} == set(leaves(group))


def _longer(name: str, named: set[str]) -> set[str]:
    """The lines that begin with a command of one word."""
    return {one for one in named if " " not in name and one.split()[0] == name}


def test_every_endpoint_is_reached_by_a_command_or_has_a_reason_not_to_be(
    script: list[tuple[str, int]],
    reached: set[Call],
    signed_in: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VOIDVM_NEW_PASSWORD", "correct horse")
    make_stale()
    for command, status in script:
        done = signed_in(*command.split())
        assert done.status == status, f"{command}: {done.out} {done.err}"
    monkeypatch.setenv("VOIDVM_PASSWORD", "correct horse")
    assert signed_in("login").status == 0
    assert set(NAMES.values()) - reached == set(UNREACHED)
