from __future__ import annotations

import json

import pytest

from tests.fakes.qemu import FakeQemu
from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.service import eventually
from tests.unit.cli.conftest import Cli


def test_a_vm_is_made_listed_shown_and_deleted(cli: Cli, api: Api) -> None:
    made = cli("vm", "create", "whole", "--memory", "128", "--disk", "1", "-p", "0:22")
    assert (made.status, made.out) == (0, "")
    assert made.err == "'whole' made.\nStart it: voidvm vm start whole\n"
    listed = cli("vm", "ls").out.splitlines()
    assert listed[0].split() == ["NAME", "STATUS", "CPU", "MEMORY", "DISK", "OS", "UPTIME", "PORTS"]
    assert "whole  stopped  1" in "\n".join(listed)
    assert not any(line.endswith(" ") for line in listed)
    shown = cli("vm", "show", "whole").out
    assert "Memory:      128 MiB\n" in shown
    assert json.loads(cli("vm", "show", "whole", "--json").out)["name"] == "whole"
    assert cli("vm", "rm", "--yes", "whole").err == "'whole' is deleted.\n"
    assert api.refused("GET", "/vms/whole", "VM_NOT_FOUND")


def test_a_dry_run_makes_nothing(cli: Cli) -> None:
    tried = cli("vm", "create", "dry", "--dry-run")
    assert (tried.status, tried.err) == (0, "'dry' would be made.\n")
    assert "Memory:      1024 MiB\n" in tried.out
    assert cli("vm", "show", "dry").status == 3


def test_actions_say_the_status_that_was_reached(cli: Cli, vm: str) -> None:
    steps = [
        (("start",), "running"),
        (("pause",), "paused"),
        (("resume",), "running"),
        (("reset",), "running"),
        (("restart", "--force"), "running"),
        (("stop", "--timeout", "5"), "stopped"),
    ]
    for (action, *options), status in steps:
        done = cli("vm", action, vm, *options)
        assert (done.status, done.err.splitlines()[0]) == (0, f"'{vm}' is {status}."), action


def test_a_refused_action_has_the_exit_status_of_a_conflict(cli: Cli, running: str) -> None:
    done = cli("vm", "start", running)
    assert done.status == 5
    assert done.err == f"error: The VM '{running}' is running already.\n"
    deleted = cli("vm", "rm", "--yes", running)
    assert deleted.status == 5
    assert deleted.err.endswith("hint: stop it first, or delete it with --force\n")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("vm", "show", "nobody"), 3, "hint: voidvm vm ls lists the VMs"),
        (("vm", "create", "a/b"), 2, "error: name: must be"),
        (("vm", "create", "x", "--os", "tinny"), 2, "Did you mean tiny?"),
        (("vm", "create", "x", "-p", "http"), 2, "'http' is not a port forward"),
        (("vm", "show", ".."), 2, "'..' cannot be the name of a VM"),
        (("vm", "ls", "--url", "ftp://x"), 2, "is not the address of a service"),
        (("vm", "ls", "--url", "http://127.0.0.1:1"), 6, "hint: start it with: voidvm serve"),
        (("vm", "ls", "--token", "wrong"), 4, "VOIDVM_TOKEN is not valid"),
        (("vm", "wait", "nobody", "--timeout", "0"), 3, "There is no VM"),
        (("vm", "rm"), 2, "hint: voidvm vm rm --help"),
        (("vm", "creat"), 2, "Did you mean 'create'"),
        (("evnts",), 2, "Did you mean 'events'?"),
        (("vm", "create", "x", "--memory", "much"), 2, "'much' is no size"),
        (("vm", "create"), 2, "a VM has a name"),
        (("nonsense",), 2, "hint: voidvm --help"),
    ],
)
def test_errors_are_one_line_with_a_hint_and_a_status_of_their_own(
    cli: Cli, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = cli(*arguments)
    assert (done.status, done.out) == (status, "")
    assert said in done.err
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) <= 2


def test_deleting_without_a_terminal_needs_a_yes(cli: Cli, vm: str) -> None:
    refused = cli("vm", "rm", vm)
    assert refused.status == 2
    assert refused.err.endswith(f"hint: if that is meant: voidvm vm rm --yes {vm}\n")
    forced = cli("vm", "rm", vm, "--force").err
    assert forced.endswith(f"hint: if that is meant: voidvm vm rm --yes --force {vm}\n")


def test_a_filter_that_nothing_fits_is_not_called_an_empty_host(cli: Cli, vm: str) -> None:
    assert cli("vm", "ls", "-s", "no such name").err == "No VM is like that.\n"


def test_set_changes_what_is_named_and_nothing_else(cli: Cli, api: Api, vm: str) -> None:
    before = api.ok("GET", f"/vms/{vm}")
    options = ["--cpu", "2", "--tag", "a", "--tag", "b", "-p", "0:80", "--autostart"]
    assert cli("vm", "set", vm, *options).err == f"'{vm}' changed.\n"
    after = api.ok("GET", f"/vms/{vm}")
    assert (after["cpu"], after["tags"], after["memory"]) == (2, ["a", "b"], before["memory"])
    assert after["autostart"] == {**before["autostart"], "enabled": True}
    [network] = after["networks"]
    assert network["mac"] == before["networks"][0]["mac"]
    assert [one["guestPort"] for one in network["forwards"]] == [80]
    assert cli("vm", "set", vm, "--tag", "", "-p", "").status == 0
    emptied = api.ok("GET", f"/vms/{vm}")
    assert (emptied["tags"], emptied["networks"][0]["forwards"]) == ([], [])


def test_set_says_what_waits_for_the_next_start(cli: Cli, running: str) -> None:
    done = cli("vm", "set", running, "--memory", "192")
    assert f"The next start brings: memory. Now: voidvm vm restart {running}" in done.err


def test_set_without_a_change_is_a_mistake(cli: Cli, vm: str) -> None:
    assert cli("vm", "set", vm).status == 2


def test_incidents_tell_why_it_ended(
    cli: Cli, running: str, qemu: FakeQemu, api: Api, local: LocalService
) -> None:
    assert cli("vm", "incidents", running).err == f"'{running}' has had none.\n"
    local.do(lambda: qemu.die(signal=9))
    eventually(lambda: api.ok("GET", f"/vms/{running}")["status"] == "crashed")
    eventually(lambda: "killed by signal 9" in cli("vm", "incidents", running).out)
    [incident] = json.loads(cli("vm", "incidents", running, "--json").out)
    assert incident["signal"] == "SIGKILL"


def test_logs_are_the_bytes_of_the_console(cli: Cli, running: str, qemu: FakeQemu) -> None:
    eventually(lambda: "fake guest" in cli("vm", "logs", running, "--all").out)
    assert cli("vm", "logs", running, "-n", "3").out == "t\r\n"


def test_several_vms_at_once_and_one_failure_keeps_nobody_from_it(
    cli: Cli, api: Api, vm: str, running: str
) -> None:
    other = api.ok("POST", "/vms", {"name": f"{vm}-other", "disk": 1, "memory": 128})["name"]
    done = cli("vm", "start", other, running, "nobody")
    assert done.status == 1, "one is running, one is not there"
    assert f"'{other}' is running.\n" in done.err
    assert done.err.endswith("error: 2 of 3 failed\n")
    assert cli("vm", "start", other, running).status == 5
    stopped = cli("vm", "stop", other, running, "--force", "--json")
    assert [one["status"] for one in json.loads(stopped.out)] == ["stopped", "stopped"]
    named = cli("vm", "ls", "--quiet", "-s", vm).out.split()
    assert len(named) == 2
    assert all(one.startswith("vm-") for one in named)
    assert cli("vm", "rm", "--yes", *named).status == 0
    assert cli("vm", "ls", "-s", vm).out == ""


def test_text_is_typed_with_its_enter(cli: Cli, running: str, qemu: FakeQemu) -> None:
    assert cli("vm", "send", running, "halt").status == 0
    eventually(lambda: b"halt\r" in qemu.typed)
    assert cli("vm", "send", running, "y", "--no-enter").status == 0
    eventually(lambda: qemu.typed.endswith(b"y"))
