"""The service's log: one line an event, and the entries of the audit log as they are."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = r"""
import json, logging
from voidvm import logs
logs.configure()
logging.getLogger("voidvm.x").warning("one\ntwo\x1b[2J\u2028three")
logging.getLogger(logs.AUDIT).info("%s", json.dumps({"target": "a\nb\x1b\u2028"}))
logging.getLogger("aiosqlite").debug("a statement with its secrets")
logging.getLogger("sanic.access").info("GET /x?token=secret")
"""


def test_nobody_writes_a_line_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30
    )
    first, second = done.stderr.splitlines()
    assert first.endswith(r"WARNING voidvm.x: one\ntwo\x1b[2J\x2028three")
    assert json.loads(second) == {"target": "a\nb\x1b\u2028"}
    assert done.stdout == ""
