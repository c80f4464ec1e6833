"""What imports what, and what an import costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.meta.sources import ROOT

# The figure is 50 ms; the smallest of a few tries is free of what else the host does.
IMPORT_LIMIT_S = 0.05
_IMPORT = """
import sys, time
start = time.perf_counter()
import voidvm
print(time.perf_counter() - start)
print(*sorted({name.partition('.')[0] for name in sys.modules}))
"""


def import_voidvm() -> tuple[float, set[str]]:
    """Seconds that the import took in a fresh interpreter, and all modules there afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, modules = done.stdout.splitlines()
    return float(seconds), set(modules.split())


def test_imports_go_down_only() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_importing_voidvm_brings_in_no_server_and_takes_no_time() -> None:
    tries = [import_voidvm() for _ in range(5)]
    heavy = {"sanic", "msgspec", "qemu", "aiosqlite", "httpx", "typer", "rich", "websockets"}
    assert tries[0][1] & heavy == set()
    assert min(seconds for seconds, _ in tries) < IMPORT_LIMIT_S


def test_the_command_line_answers_without_loading_the_server() -> None:
    code = "import sys, voidvm.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {"sanic", "aiosqlite", "uvloop"} & set(done.stdout.split()) == set()
