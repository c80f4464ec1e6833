"""Password hashes: argon2id in threads, so that a sign-in does not hold up anybody's console."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION
from argon2.profiles import RFC_9106_LOW_MEMORY


class Passwords:
    """At most two hashes at once: each takes 64 MiB and a core for some tens of milliseconds."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._places = asyncio.Semaphore(2)
        self._decoy = _hash_of_nothing(self._hasher)

    async def hash(self, password: str) -> str:
        """A new hash, with its parameters in it."""
        async with self._places:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, known: str | None, password: str) -> bool:
        """Whether the password fits.

        For an unknown user (`known` None) a hash of nothing is tried, so that the answer takes
        as long and tells nothing.
        """
        async with self._places:
            fits = await asyncio.to_thread(self._verify, known or self._decoy, password)
        return fits and known is not None

    def _verify(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, password)
        except (VerificationError, InvalidHashError):
            return False


def _hash_of_nothing(hasher: PasswordHasher) -> str:
    """A hash that no password has, of random bytes in the form of a real one."""
    salt, tag = (
        b64encode(os.urandom(size)).decode().rstrip("=")
        for size in (hasher.salt_len, hasher.hash_len)
    )
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${costs}${salt}${tag}"
