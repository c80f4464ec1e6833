from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.service import PASSWORD
from tests.unit.cli.conftest import Cli
from voidvm.cli.contexts import default_path


def _saved() -> dict[str, dict[str, str]]:
    content: dict[str, dict[str, str]] = json.loads(default_path().read_text())["contexts"]
    return content


def test_a_login_is_kept_for_its_owner_only(signed_in: Cli, local: LocalService) -> None:
    assert default_path().stat().st_mode & 0o777 == 0o600
    assert default_path().parent.stat().st_mode & 0o777 == 0o700
    assert signed_in("vm", "ls").status == 0
    assert list(_saved()) == [f"{local.url}/api/v1"]


def test_a_token_that_has_run_out_is_renewed(signed_in: Cli) -> None:
    content = json.loads(default_path().read_text())
    [context] = content["contexts"].values()
    context["expiresAt"] = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    default_path().write_text(json.dumps(content))
    assert signed_in("vm", "ls").status == 0
    [renewed] = _saved().values()
    assert renewed["refreshToken"] != context["refreshToken"]
    assert datetime.fromisoformat(renewed["expiresAt"]) > datetime.now(UTC)


def test_logout_ends_the_session_and_forgets_it(signed_in: Cli) -> None:
    assert signed_in("logout").err.startswith("Signed out at ")
    assert signed_in("vm", "ls").status == 4
    assert signed_in("logout").err.startswith("Nobody is signed in")


def test_without_a_login_the_hint_says_how(
    run: Cli, local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOIDVM_URL", local.url)
    done = run("vm", "ls")
    assert done.status == 4
    assert done.err.endswith(f"hint: voidvm login --url {local.url}/api/v1\n")


def test_who_has_never_signed_in_is_left_no_folder(
    run: Cli, local: LocalService, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOIDVM_URL", local.url)
    assert run("vm", "ls").status == 4
    assert run("logout").err.startswith("Nobody is signed in")
    assert run("context", "use", "nobody").status == 3
    assert run("context", "rm", "nobody").status == 3
    session = api.ok("POST", "/auth/login", {"username": "admin", "password": PASSWORD})
    monkeypatch.setenv("VOIDVM_TOKEN", session["token"])
    assert run("logout").err.startswith("Signed out")
    assert not default_path().parent.exists()


def test_a_wrong_password_is_refused(
    run: Cli, local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOIDVM_PASSWORD", "wrong")
    assert run("login", "--url", local.url).status == 4
    assert not default_path().exists()


def test_a_spoilt_file_of_logins_is_named(signed_in: Cli) -> None:
    default_path().write_text("{")
    done = signed_in("vm", "ls")
    assert done.status == 1
    assert str(default_path()) in done.err


def test_the_default_password_is_warned_about(
    run: Cli, local: LocalService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOIDVM_PASSWORD", "admin123")
    assert "has the default password" in run("login", "--url", local.url).err
