"""Signing in, and sessions that renew themselves."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.local import LocalService
from tests.support.service import PASSWORD
from voidvm import AsyncVoidVMClient, VoidVMClient
from voidvm.client import errors
from voidvm.client.credentials import Session


def session_of(client: VoidVMClient | AsyncVoidVMClient) -> Session:
    session = client.core.credentials
    assert isinstance(session, Session)
    return session


def age(client: VoidVMClient | AsyncVoidVMClient) -> str | None:
    """Let the access token be over; it, as it was."""
    session = session_of(client)
    session._ends_at = time.monotonic() - 1
    return session._token


def test_name_and_password_are_enough(local: LocalService) -> None:
    with VoidVMClient(local.url, username="admin", password=PASSWORD) as client:
        assert client.auth.me().username == "admin"
        before = age(client)
        assert client.auth.me().username == "admin"
        assert session_of(client)._token != before
        client.auth.logout()
        with pytest.raises(errors.Unauthorized):
            client.auth.me()
    with (
        VoidVMClient(local.url, username="admin", password="wrong") as client,
        pytest.raises(errors.InvalidCredentials),
    ):
        client.vms.list()


def test_threads_that_share_a_client_renew_its_session_once(local: LocalService) -> None:
    with VoidVMClient(local.url, username="admin", password=PASSWORD) as client:
        client.auth.me()
        # Without it a session that was renewed twice would just be begun anew.
        session_of(client)._login = None
        for _ in range(3):
            age(client)
            together = threading.Barrier(8)

            def call(_number: int, together: threading.Barrier = together) -> str:
                together.wait(10)
                return client.auth.me().username

            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(call, range(8))) == {"admin"}


async def test_tasks_that_share_a_client_renew_its_session_once(local: LocalService) -> None:
    async with AsyncVoidVMClient(local.url, username="admin", password=PASSWORD) as client:
        await client.auth.me()
        session_of(client)._login = None
        for _ in range(3):
            age(client)
            found = await asyncio.gather(*(client.auth.me() for _ in range(8)))
            assert {me.username for me in found} == {"admin"}


async def test_a_renewal_whose_answer_was_lost_is_repeated(local: LocalService) -> None:
    async with AsyncVoidVMClient(local.url, username="admin", password=PASSWORD) as client:
        await client.auth.me()
        session = session_of(client)
        session._login = None
        age(client)
        send, lost = client.core.io.send, []

        async def lose(request: object) -> object:
            answer = await send(request)  # type: ignore[arg-type]  # whatever is sent
            lost.append(answer)
            raise asyncio.CancelledError

        client.core.io.send = lose  # type: ignore[method-assign,assignment]  # a fault
        with pytest.raises(asyncio.CancelledError):
            await client.auth.me()
        client.core.io.send = send  # type: ignore[method-assign]  # no fault any more
        assert len(lost) == 1
        assert (await client.auth.me()).username == "admin"


def test_a_refresh_token_renews_what_the_token_is_too_old_for(local: LocalService) -> None:
    with VoidVMClient(local.url) as stranger:
        login = stranger.auth.open_session("admin", PASSWORD)
        assert login.expires_at > login.user.created_at
    with VoidVMClient(local.url, "spoilt", refresh_token=login.refresh_token) as client:
        assert client.auth.me().username == "admin"
    with pytest.raises(errors.SessionEnded), VoidVMClient(local.url) as stranger:
        stranger.auth.refresh(login.refresh_token)


def test_a_session_that_was_ended_is_begun_anew_by_who_knows_the_password(
    local: LocalService,
) -> None:
    with VoidVMClient(local.url, username="admin", password=PASSWORD) as client:
        client.auth.me()
        client.request("POST", "/auth/logout", body={})
        assert client.auth.me().username == "admin"


def test_somebody_signs_in_later(local: LocalService) -> None:
    with VoidVMClient(local.url) as client:
        with pytest.raises(errors.Unauthorized):
            client.vms.list()
        assert client.auth.login("admin", PASSWORD).user.username == "admin"
        client.vms.list()
