"""Requests that wait for something end with their caller's access."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.people import Person, person
from voidvm.operations.progress import ProgressSink

WAITS = {"vm": "/vms/{vm}/wait?for=running&timeout=20", "operation": "/operations/{op}?wait=20"}


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    """A user."""
    return person(local, api)


@pytest.fixture
def endless(local: LocalService, ada: Person) -> str:
    """An operation of the user's that comes to no end."""

    async def work(_progress: ProgressSink) -> None:
        await asyncio.sleep(60)

    async def submit() -> str:
        principal = await local.services.accounts.authenticate(ada.api.token or "")
        operation = await local.services.jobs.submit(principal, "image-import", work, resources=[])
        return operation.id

    return local.run(submit())


def waits(ada: Person, pool: ThreadPoolExecutor, path: str) -> Future[httpx.Response]:
    waiting = pool.submit(ada.api.call, "GET", path)
    time.sleep(0.3)
    assert not waiting.done()
    return waiting


@pytest.mark.parametrize("what", WAITS)
def test_signing_out_ends_what_the_session_waits_for(
    ada: Person, endless: str, name: str, what: str
) -> None:
    path = WAITS[what].format(vm=ada.api.create(name)["id"], op=endless)
    with ThreadPoolExecutor(1) as pool:
        waiting = waits(ada, pool, path)
        ada.api.ok("POST", "/auth/logout")
        response = waiting.result(5)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "SESSION_ENDED"


def test_a_wait_goes_on_for_who_still_may(api: Api, ada: Person, name: str) -> None:
    vm = ada.api.create(name)["id"]
    other = person(ada.local, api)
    with ThreadPoolExecutor(1) as pool:
        waiting = waits(ada, pool, WAITS["vm"].format(vm=vm))
        other.api.ok("POST", "/auth/logout")
        api.ok("PATCH", f"/users/{ada.id}", {"permissions": ["vm:read", "vm:start"]})
        api.start(vm)
        assert waiting.result(10).status_code == 200
        waiting = waits(ada, pool, f"/vms/{vm}/wait?for=stopped&timeout=20")
        api.ok("PATCH", f"/users/{ada.id}", {"permissions": ["vm:start"]})
        assert waiting.result(5).json()["error"]["code"] == "FORBIDDEN"
