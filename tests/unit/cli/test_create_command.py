"""`voidvm vm create` and `set`: what the options say is what the service is told."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.contract import Api, Json
from tests.unit.cli.conftest import Cli


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key; the public one lies beside it."""
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def planned(cli: Cli, *options: str) -> Json:
    """The VM that would be made."""
    done = cli("vm", "create", "plan", "--dry-run", "--json", *options)
    assert done.status == 0, done.err
    return json.loads(done.out)


def test_hardware_and_life(cli: Cli) -> None:
    vm = planned(
        cli,
        *("--cpu", "2", "--memory", "2G", "--disk", "1T", "--firmware", "uefi"),
        *("--machine", "pc", "--accel", "tcg", "--boot", "cdrom", "--boot", "disk"),
        *("--description", "text", "--tag", "a", "--tag", "b", "--restart", "always"),
        *("--autostart-order", "3", "--autostart-delay", "5"),
    )
    assert (vm["cpu"], vm["memory"], vm["disk"]) == (2, 2048, 1024)
    assert (vm["firmware"], vm["machine"], vm["accel"]) == ("uefi", "pc", "tcg")
    assert vm["bootOrder"] == ["cdrom", "disk"]
    assert (vm["description"], vm["tags"], vm["restartPolicy"]) == ("text", ["a", "b"], "always")
    assert vm["autostart"] == {"enabled": True, "order": 3, "delay": 5}


def test_networks(cli: Cli) -> None:
    options = ("-p", "2222:22", "-p", "5353:53/udp", "--card", "e1000", "--isolated")
    [card] = planned(cli, *options, "--mac", "52:54:00:00:00:01")["networks"]
    assert (card["model"], card["isolated"], card["mac"]) == ("e1000", True, "52:54:00:00:00:01")
    assert [one["guestPort"] for one in card["forwards"]] == [22, 53]
    assert planned(cli, "--no-network")["networks"] == []
    both = cli("vm", "create", "plan", "--no-network", "-p", "80")
    assert (both.status, both.err) == (2, "error: --no-network leaves no card to set\n")


def test_what_the_guest_is_told_at_its_first_boot(cli: Cli, key: Path, tmp_path: Path) -> None:
    network = tmp_path / "network.yaml"
    network.write_text("version: 2\n")
    public = key.with_suffix(".pub")
    told = planned(
        cli,
        *("--hostname", "web", "--user", "ada", "--ssh-key", str(public)),
        *("--package", "nginx", "--package", "jq", "--run", "echo hi", "--run", "true"),
        *("--network-config", str(network)),
    )["cloudInit"]
    assert told == {
        "hostname": "web",
        "user": "ada",
        "sshKeys": [public.read_text().strip()],
        "packages": ["nginx", "jq"],
        "runcmd": ["echo hi", "true"],
        "networkConfig": "version: 2\n",
    }
    given = planned(cli, "--ssh-key", public.read_text().strip())["cloudInit"]
    assert given["sshKeys"] == told["sshKeys"]


def test_secrets_come_from_files(cli: Cli, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    data = tmp_path / "data"
    data.write_text("#cloud-config\n{}\n")
    done = cli(
        *("vm", "create", "plan", "--dry-run", "--user", "ada"),
        *("--password-file", str(secret), "--user-data", str(data)),
    )
    assert done.status == 0, done.err
    assert "First boot:  ada" in done.out
    data.write_text("nothing that cloud-init knows")
    refused = cli("vm", "create", "plan", "--dry-run", "--user-data", str(data))
    assert (refused.status, "userData" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ssh-key", "{key}"), "is the private key"),
        (("--ssh-key", "{folder}/none"), "No such file"),
        (("--file", "{key}"), "is no JSON"),
        (("--user-data", "-", "--password-file", "-"), "stdin can be only one"),
    ],
)
def test_wrong_files_are_explained(
    cli: Cli, key: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    filled = [one.format(key=key, folder=tmp_path) for one in options]
    done = cli("vm", "create", "plan", *filled)
    assert done.status == 2
    assert said in done.err


def test_a_file_has_all_the_fields_and_options_override_it(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "vm.json"
    body = {"name": "of-file", "memory": 256, "cpu": 2, "cloudInit": {"user": "ada"}}
    file.write_text(json.dumps(body))
    done = cli(
        *("vm", "create", "--file", str(file), "--dry-run", "--json"),
        *("--memory", "512", "--hostname", "web"),
    )
    vm = json.loads(done.out)
    assert (vm["name"], vm["memory"], vm["cpu"]) == ("of-file", 512, 2)
    assert vm["cloudInit"] == {"user": "ada", "hostname": "web"}


def test_made_started_and_waited_for(cli: Cli, api: Api) -> None:
    options = ("--memory", "128", "--disk", "1", "--wait-for", "running")
    done = cli("vm", "create", "awaited", *options)
    assert done.err.splitlines() == ["'awaited' made.", "Its console: voidvm console awaited"]
    assert api.ok("GET", "/vms/awaited")["status"] == "running"
    api.remove("awaited")
    late = cli("vm", "create", "awaited", *options[:-1], "console:/never/", "--timeout", "0")
    assert late.status == 1
    assert "console:/never/" in late.err
    assert api.ok("GET", "/vms/awaited")["status"] == "running", "it is made all the same"
    api.remove("awaited")


def test_set_changes_a_part_of_a_card_and_of_the_autostart(cli: Cli, api: Api, vm: str) -> None:
    mac = api.ok("GET", f"/vms/{vm}")["networks"][0]["mac"]
    assert cli("vm", "set", vm, "--isolated", "--autostart-delay", "9").status == 0
    assert cli("vm", "set", vm, "--no-autostart", "--memory", "1G").status == 0
    now = api.ok("GET", f"/vms/{vm}")
    assert (now["networks"][0]["mac"], now["networks"][0]["isolated"]) == (mac, True)
    assert now["autostart"] == {"enabled": False, "order": 0, "delay": 9}
    assert now["memory"] == 1024
    assert cli("vm", "set", vm, "--no-network").status == 0
    assert api.ok("GET", f"/vms/{vm}")["networks"] == []
