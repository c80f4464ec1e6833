"""What the shell's Tab key offers, asked as bash asks it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from tests.support.contract import Api
from tests.support.service import VOIDVM
from tests.unit.cli.conftest import Cli
from voidvm.cli import app
from voidvm.cli.contexts import Context, Contexts

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Complete:
    """The words for a line that is begun, in this process: a start of Python takes longer."""
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    monkeypatch.setenv("_VOIDVM_COMPLETE", "complete_bash")

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        capsys.readouterr()
        with pytest.raises(SystemExit):
            command.main([], prog_name="voidvm")
        said = capsys.readouterr()
        assert said.err == ""
        return said.out.split()

    return complete


def test_names_of_vms(complete: Complete, api: Api, vm: str) -> None:
    assert vm in complete("voidvm vm show ")
    assert vm in complete(f"voidvm console {vm[:3]}")
    assert vm in complete(f"voidvm vm start other {vm[:3]}"), "several VMs, each completes"
    assert vm not in complete("voidvm vm show nothing-like-it")
    assert vm in complete("voidvm stats ")
    assert vm in complete("voidvm operation ls --vm ")


def test_commands_and_choices(complete: Complete) -> None:
    assert complete("voidvm vm sta") == ["start"]
    assert complete("voidvm whoa") == [], "it is hidden"
    assert complete("voidvm to") == ["top", "token"]
    assert complete("voidvm vm create x --firmware ") == ["bios", "uefi"]
    assert complete("voidvm vm create x --boot c") == ["cdrom"]
    assert complete("voidvm vm wait x tc") == ["tcp:22"]
    assert complete("voidvm image build t") == ["tiny"]


def test_other_names(complete: Complete, api: Api, vm: str) -> None:
    assert complete("voidvm user show adm") == ["admin"]
    assert complete(f"voidvm disk rm {vm} ") == ["disk0"]
    assert "debian12" in complete("voidvm vm create x --os deb")
    assert "vm:start" in complete("voidvm token create x --permission vm")
    assert "limits.loginAttempts" in complete("voidvm config set limits.lo")
    assert complete("voidvm user create x --plan unl") == ["unlimited"]
    api.ok("POST", "/auth/tokens", {"name": "completed"})
    assert complete("voidvm token rm comp") == ["completed"]
    assert "/vms/{vm}/wait" in complete("voidvm api GET /vms")
    assert complete("voidvm api PA") == ["PATCH"]


def test_contexts(complete: Complete) -> None:
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "voidvm"
    contexts = Contexts(folder / "contexts.json")
    with contexts.locked():
        contexts.save(Context(url="http://10.0.0.1:3000/api/v1"))
    assert complete("voidvm context use ") == ["10.0.0.1:3000"]


def test_a_whole_process_answers_too(environ: dict[str, str], vm: str) -> None:
    bash = {"_VOIDVM_COMPLETE": "complete_bash", "COMP_WORDS": "voidvm vm show ", "COMP_CWORD": "3"}
    done = subprocess.run(
        [VOIDVM], env=environ | bash, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert vm in done.stdout.split()


def test_silence_without_a_service(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOIDVM_URL", "http://127.0.0.1:1")
    assert complete("voidvm vm show ") == []
    assert complete("voidvm api GET /") == []
    monkeypatch.setenv("VOIDVM_URL", "nonsense")
    assert complete("voidvm image show ") == []
