"""`voidvm events` shows each event once, over restarts of the service too."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contract import Api
from tests.support.local import LocalService, restartable
from tests.support.service import eventually
from tests.unit.cli.conftest import Cli

VOIDVM = Path(sys.executable).with_name("voidvm")


@pytest.fixture
def place(api: Api) -> str:
    found: str = api.ok("GET", "/events", params={"limit": 1})["lastId"]
    return found


def describe(api: Api, vm: str, text: str) -> None:
    api.ok("PATCH", f"/vms/{vm}", {"description": text})


def test_one_line_an_event_for_people(cli: Cli, api: Api, vm: str, place: str) -> None:
    describe(api, vm, "1")
    api.start(vm)
    done = cli("events", vm, "--after", place, "--count", "2")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(rf"\S+Z [0-9a-f]{{8}}-\d+ VM '{vm}' was changed\.", lines[0])


def test_json_for_programs(cli: Cli, api: Api, vm: str, place: str) -> None:
    describe(api, vm, "1")
    done = cli("events", "--after", place, "--count", "1", "--json")
    assert json.loads(done.out) == api.ok("GET", "/events", params={"after": place})["events"][0]


def test_a_deleted_vm_is_told_of_to_its_end(cli: Cli, api: Api, vm: str, place: str) -> None:
    vm_id = api.ok("GET", f"/vms/{vm}")["id"]
    describe(api, vm, "1")
    api.remove(vm)
    for options in (["--last", "20"], ["--after", place]):
        done = cli("events", vm_id, *options)
        assert (done.status, done.err) == (0, "")
        assert done.out.endswith(f" VM '{vm}' was deleted.\n")
        assert f" VM '{vm}' was changed.\n" in done.out
    assert cli("events", vm_id).status == 3


def test_what_is_wrong_is_said(cli: Cli, place: str) -> None:
    assert cli("events", "none").status == 3
    wrong = cli("events", "--after", "x")
    assert wrong.status == 2
    assert "after: must be an event's id" in wrong.err


def test_what_is_kept_no_more_is_said(
    api: Api, vm: str, place: str, environ: dict[str, str]
) -> None:
    gone = place.partition("-")[0][::-1] + "-1"
    process = subprocess.Popen(
        [VOIDVM, "events", "--after", gone, "--count", "1"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "kept no more" in process.stderr.readline()
        describe(api, vm, "1")
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out.count("\n")) == (0, 1)


@pytest.fixture
def own() -> Iterator[LocalService]:
    """A service that starts again at its address, and nobody else's tests go on with."""
    service = restartable()
    try:
        service.start()
        yield service
    finally:
        service.close()


def test_it_connects_again_and_shows_what_it_missed(
    own: LocalService, environ: dict[str, str]
) -> None:
    api = own.api()
    assert api.token is not None
    vm = api.ok("POST", "/vms", {"name": "events", "disk": 1})["id"]
    process = subprocess.Popen(
        [VOIDVM, "events", "events", "--count", "3", "--json"],
        env=environ | {"VOIDVM_URL": own.url, "VOIDVM_TOKEN": api.token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        eventually(lambda: own.gate.sockets._taken or None, timeout_s=30)
        describe(api, vm, "1")
        seen = [json.loads(process.stdout.readline())]
        own.stop()
        own.start()
        again = own.anybody().as_user(api.token)
        describe(again, vm, "2")
        describe(again, vm, "3")
        out, err = process.communicate(timeout=30)
        seen += [json.loads(line) for line in out.splitlines()]
        assert process.returncode == 0, err
        assert "Connecting again" in err
        query = {"vm": vm, "kind": "vm.updated"}
        assert seen == again.ok("GET", "/events", params=query)["events"]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", [("events",), ("image", "abort")])
def test_what_names_nothing_is_a_mistake_of_usage(cli: Cli, command: tuple[str, ...]) -> None:
    done = cli(*command, "..")
    assert (done.status, done.out, done.err) == (2, "", "error: '..' names no object\n")
