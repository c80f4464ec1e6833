"""Sizes, broad handlers and switched-off rules: what linters leave to a project's own habits."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.meta.sources import (
    functions,
    nodes,
    place,
    python_files,
    shell_scripts,
    typescript_files,
)

FILE_LINES = 400
FUNCTION_LINES = 60

# Loops that must survive, and the one fallback of each kind of request.
BROAD_HANDLERS = {
    "voidvm/api/dispatch.py": 1,
    "voidvm/api/live/control.py": 1,
    "voidvm/api/upgrade.py": 1,
    "voidvm/bus.py": 1,
    "voidvm/hypervisor/monitor.py": 1,
    "voidvm/operations/runner.py": 2,
    "voidvm/services/audit.py": 1,
    "voidvm/services/events.py": 2,
    "voidvm/services/health.py": 1,
    "voidvm/services/metrics.py": 1,
    "voidvm/services/restarts.py": 2,
    "voidvm/supervisor/heartbeat.py": 1,
    "voidvm/supervisor/metrics.py": 1,
    "voidvm/supervisor/state.py": 1,
}
LOG_CALLS = {"exception", "error", "warning"}

NOQA = re.compile(r"# noqa: (?P<codes>[A-Z]+\d+(, [A-Z]+\d+)*) - \S.*")
TYPE_IGNORE = re.compile(r"# type: ignore\[[a-z-]+(,[a-z-]+)*\]  # \S.*")


def test_no_file_is_too_long() -> None:
    files = (*python_files(), *shell_scripts(), *typescript_files())
    lengths = {place(path): len(path.read_text().splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    long = [
        place(path, node.lineno)
        for path in python_files()
        for node in functions(path)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_broad_handlers_stand_where_a_loop_must_survive_and_each_logs() -> None:
    found = Counter[str]()
    for path in python_files():
        if not place(path).startswith(("voidvm/", "images/")):
            continue
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises(node):
                found[place(path)] += 1
                assert _logs(node), f"{place(path, node.lineno)} is silent"
    assert dict(found) == BROAD_HANDLERS


def _is_broad(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
    return handler.type is None or bool(names & {"Exception", "BaseException"})


def _raises(handler: ast.ExceptHandler) -> bool:
    """Whether the handler only cleans up: its last word is to raise."""
    return isinstance(handler.body[-1], ast.Raise)


def _logs(handler: ast.ExceptHandler) -> bool:
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LOG_CALLS
        for node in ast.walk(handler)
    )


def test_cancellation_is_never_swallowed_by_a_bare_handler() -> None:
    bare = [
        place(path, node.lineno)
        for path in python_files()
        for node in nodes(path)
        if isinstance(node, ast.ExceptHandler) and node.type is None and not _raises(node)
    ]
    assert bare == []


def test_a_rule_is_switched_off_by_its_code_and_with_a_reason() -> None:
    naked = [
        f"{place(path, line)}: {comment}"
        for path in python_files()
        for line, comment in _comments(path)
        if ("noqa" in comment and not NOQA.search(comment))
        or ("type: ignore" in comment and not TYPE_IGNORE.search(comment))
    ]
    assert not naked, "\n".join(naked)


def _comments(path: Path) -> Iterator[tuple[int, str]]:
    """The comments of a file that switches a rule off."""
    text = path.read_bytes()
    # To read a file token by token takes long, and few switch anything off.
    if b"noqa" not in text and b"type: ignore" not in text:
        return
    for token in tokenize.tokenize(io.BytesIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_no_test_is_skipped_without_a_reason() -> None:
    silent = [
        place(path, node.lineno)
        for path in python_files()
        if place(path).startswith("tests/")
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"skip", "skipif", "xfail"}
        and not (node.func.attr == "skip" and node.args)
        and not any(keyword.arg == "reason" for keyword in node.keywords)
    ]
    assert silent == []
