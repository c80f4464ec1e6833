"""The JavaScript SDK against a real service: its own tests, and what only Python can do to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sdk.conftest import RunNode
from tests.support.contract import Api
from tests.support.guests import log_of
from tests.support.javascript import BUILD_TIMEOUT_S, SDK, node
from tests.support.service import Service

# The first of these tests installs and builds.
pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S + 60)

SUITES = sorted(file.name.removesuffix(".test.ts") for file in SDK.glob("test/*.test.ts"))
# Those that open sockets, to be run with the platform's own WebSocket as well.
SOCKETS = ("console", "live")


@pytest.mark.parametrize("suite", SUITES)
def test_its_own_tests_pass(run_node: RunNode, suite: str) -> None:
    run_node("--test", f"build/{suite}.test.js")


@pytest.mark.parametrize("suite", SOCKETS)
def test_it_takes_the_platforms_websocket_where_there_is_one(run_node: RunNode, suite: str) -> None:
    flag = "--experimental-websocket"
    assert run_node(flag, "-p", "typeof WebSocket").stdout == "function\n"
    run_node(flag, "--test", f"build/{suite}.test.js")


@contextmanager
def program(file: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program of the SDK's tests, for as long as the block lasts."""
    with subprocess.Popen(
        [node(), f"build/{file}"],
        cwd=SDK,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_console_events_and_subscriptions_survive_the_death_of_the_service(
    sdk: Path, service: Service, api: Api, ticking: str, environ: dict[str, str]
) -> None:
    with program("survive.js", environ) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"
        for number in range(2):
            api.ok("PATCH", f"/vms/{ticking}", {"description": f"before {number}"})
            service.kill()
            service.start()
            api.ok("PATCH", f"/vms/{ticking}", {"description": f"after {number}"})
        out, _ = listener.communicate("\n", timeout=60)
    heard = json.loads(out)
    output = heard["output"].encode("latin-1")
    assert len(output) > 200
    assert output == log_of(api, ticking, since=heard["offset"])[: len(output)]
    query = {"after": heard["after"], "vm": ticking, "limit": 200}
    kept = [event["id"] for event in api.ok("GET", "/events", params=query)["events"]]
    assert len(kept) >= 4
    assert heard["told"] == heard["pushed"] == kept
