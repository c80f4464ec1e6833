"""Users, tokens, one's own profile, the audit log, and where commands go."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest

from tests.support.contract import Api
from tests.support.local import LocalService
from tests.unit.cli.conftest import Cli
from voidvm.cli.contexts import default_path, short_name

SECRET = "correct horse"


@pytest.fixture
def ada(cli: Cli, api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user, made by the command line."""
    monkeypatch.setenv("VOIDVM_NEW_PASSWORD", SECRET)
    made = cli("user", "create", "ada", "--email", "ada@example.org")
    assert made.status == 0, made.err
    monkeypatch.delenv("VOIDVM_NEW_PASSWORD")
    yield "ada"
    api.call("DELETE", "/users/ada")


def test_a_user_is_made_and_may_sign_in(
    run: Cli, local: LocalService, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\n"))
    done = run("login", "--username", ada, "--password-stdin", "--url", local.url)
    assert done.status == 0, done.err
    monkeypatch.delenv("VOIDVM_TOKEN")
    assert run("me", "show").out.startswith("Name:       ada\n")
    assert json.loads(run("whoami", "--json").out)["plan"] == "free"


def test_users_are_listed_changed_and_deleted(cli: Cli, api: Api, ada: str) -> None:
    listed = cli("user", "ls", "--role", "user").out.splitlines()
    assert listed[1].split()[:5] == ["ada", "user", "free", "active", "ada@example.org"]
    changed = cli(
        *("user", "set", ada, "--status", "disabled", "--permission", "vm:read"),
        *("--plan", "unlimited", "--email", ""),
    )
    assert changed.err == "'ada' is changed.\n"
    user = json.loads(cli("user", "show", ada, "--json").out)
    assert (user["status"], user["permissions"], user["plan"], user["email"]) == (
        *("disabled", ["vm:read"], "unlimited", None),
    )
    assert cli("user", "rm", ada).status == 2, "nobody is there to say yes"
    assert cli("user", "rm", ada, "--yes").err == "'ada' is deleted.\n"
    assert cli("user", "show", ada).status == 3
    assert cli("user", "set", ada).status == 2


def test_what_a_user_owns_goes_to_another(
    cli: Cli, api: Api, local: LocalService, ada: str
) -> None:
    own = local.api(username=ada, password=SECRET)
    own.ok("POST", "/vms", {"name": "of-ada", "disk": 1, "memory": 128})
    asked = cli("user", "rm", ada, "--transfer-to", "admin").err
    assert asked.endswith(f"voidvm user rm --yes --transfer-to admin {ada}\n")
    assert cli("user", "rm", ada, "--yes").status == 5
    assert cli("user", "rm", ada, "--yes", "--transfer-to", "admin").status == 0
    assert api.ok("GET", "/vms/of-ada")["owner"] == "admin"
    api.remove("of-ada")


def test_a_token_is_printed_alone_works_and_ends(
    cli: Cli, run: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cli("token", "create", "ci", "--permission", "vm:read", "--expires", "30d")
    secret = made.out.strip()
    assert secret.startswith("vvm_")
    assert "shown only now" in made.err
    [listed] = json.loads(cli("token", "ls", "--json").out)
    assert (listed["name"], listed["permissions"]) == ("ci", ["vm:read"])
    assert listed["expiresAt"] is not None
    admin = cli("token", "ls").out
    assert secret not in admin
    assert run("vm", "ls", "--token", secret).status == 0
    assert run("vm", "create", "x", "--token", secret).status == 4
    assert cli("token", "rm", "ci").status == 2
    assert cli("token", "rm", "ci", "--yes").status == 0
    assert run("vm", "ls", "--token", secret).status == 4
    assert cli("token", "rm", "ci", "--yes").status == 3


def test_a_new_password_comes_in_two_lines(
    run: Cli, local: LocalService, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = local.api(username=ada, password=SECRET)
    assert api.token is not None
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\nbattery staple\n"))
    done = run("me", "password", "--password-stdin", "--token", api.token)
    assert done.status == 0, done.err
    assert local.api(username=ada, password="battery staple").ok("GET", "/auth/me")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\nanything\n"))
    assert run("me", "password", "--password-stdin", "--token", api.token).status == 4


def test_a_profile_is_changed(cli: Cli, api: Api) -> None:
    assert cli("me", "set", "--email", "a@example.org", "--language", "en").status == 0
    me = api.ok("GET", "/auth/me")
    assert (me["email"], me["language"]) == ("a@example.org", "en")
    assert cli("me", "set").status == 2


def test_the_audit_log_says_who_did_what(cli: Cli, vm: str) -> None:
    assert cli("vm", "rm", vm, "--yes").status == 0
    lines = cli("audit", "--since", "1h", "-n", "1").out.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[1:] == ["admin", "127.0.0.1", "delete_vm", vm, "200"]
    assert cli("audit", "--until", "2020-01-01").err == "Nothing was done in that time.\n"
    assert cli("audit", "--since", "long").status == 2


def test_contexts_are_listed_used_and_forgotten(signed_in: Cli, local: LocalService) -> None:
    other = "http://10.1.2.3:3000/api/v1"
    content = json.loads(default_path().read_text())
    content["contexts"][other] = {"url": other, "username": "ada"}
    default_path().write_text(json.dumps(content))
    here = short_name(f"{local.url}/api/v1")
    listed = signed_in("context", "ls").out.splitlines()[1:]
    assert [line.split() for line in listed] == [
        ["*", here, "admin", "yes"],
        ["10.1.2.3:3000", "ada", "no"],
    ]
    assert signed_in("context", "use", "10.1.2.3:3000").status == 0
    current = {
        one["name"]: one["isCurrent"]
        for one in json.loads(signed_in("context", "ls", "--json").out)
    }
    assert current == {here: False, "10.1.2.3:3000": True}
    assert signed_in("context", "use", local.url).status == 0
    assert signed_in("vm", "ls").status == 0
    assert signed_in("context", "rm", "10.1.2.3:3000").status == 0
    assert signed_in("context", "use", "10.1.2.3:3000").status == 3
    assert default_path().stat().st_mode & 0o777 == 0o600
