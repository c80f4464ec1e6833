"""Password hashes: salted, slow in the same way for everybody, never in the loop's way."""

from __future__ import annotations

import asyncio
import time

import pytest

from voidvm.security.passwords import Passwords


async def test_a_hash_fits_its_password_only() -> None:
    passwords = Passwords()
    known = await passwords.hash("geheim")
    assert known.startswith("$argon2id$")
    assert await passwords.verify(known, "geheim")
    assert not await passwords.verify(known, "Geheim")
    assert not await passwords.verify(known, "")
    assert await passwords.hash("geheim") != known


@pytest.mark.parametrize("known", ["", "x", "$argon2id$broken", "plain"])
async def test_a_broken_hash_fits_nothing(known: str) -> None:
    assert not await Passwords().verify(known, known)


async def test_an_unknown_user_takes_as_long_and_never_fits() -> None:
    passwords = Passwords()
    known = await passwords.hash("geheim")
    assert not await passwords.verify(None, "nobody's password")

    async def seconds(tried: str | None) -> float:
        begun = time.perf_counter()
        await passwords.verify(tried, "wrong")
        return time.perf_counter() - begun

    times = [(await seconds(known), await seconds(None)) for _ in range(3)]
    fastest_known, fastest_unknown = (min(column) for column in zip(*times, strict=True))
    assert fastest_unknown > fastest_known / 3


async def test_the_loop_goes_on_meanwhile() -> None:
    passwords = Passwords()
    hashing = asyncio.gather(*(passwords.hash("x") for _ in range(3)))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0.001)
        turns += 1
    await hashing
    assert turns > 5
