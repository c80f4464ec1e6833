"""The same request under the same key is done once, and answered again for a day."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Struct

from voidvm.domain.idempotency import Remembered, StoredAnswer
from voidvm.errors import FieldProblem, IdempotencyConflict, ValidationFailed
from voidvm.store.idempotency import KEPT, IdempotencyStore

KEY_MAX: Final = 255
SECRETS_KEPT_MAX: Final = 1000

# Given a seed that is the same whenever the same request is tried under the same key.
Work = Callable[[bytes], Awaitable[StoredAnswer]]
_Place = tuple[str, str]


class _Secret(Struct, frozen=True, kw_only=True):
    request_hash: str
    answer: StoredAnswer
    until: float


class Idempotency:
    """Answers are kept on disk; those that hold a secret only in memory.

    What is kept of a request is keyed with `key`: a body may hold a password, whose bare hash
    would let it be guessed from the database alone.
    """

    def __init__(self, store: IdempotencyStore, *, key: bytes) -> None:
        self._store = store
        self._key = key
        self._under_way: dict[_Place, asyncio.Task[StoredAnswer]] = {}
        self._secret: OrderedDict[_Place, _Secret] = OrderedDict()

    async def once(
        self, caller: str, key: str, *, request_hash: bytes, is_secret: bool, work: Work
    ) -> StoredAnswer:
        """The answer of `work`, or the one that was given under this key before.

        `caller` is a user's id; of anybody else answers are kept only if `is_secret`.
        Raises `IdempotencyConflict` when the key was used for another request.
        """
        if not 0 < len(key) <= KEY_MAX or not key.isprintable():
            message = f"must have 1 to {KEY_MAX} printable characters"
            raise ValidationFailed(
                f"Idempotency-Key {message}", errors=[FieldProblem("Idempotency-Key", message)]
            )
        place = (caller, key)
        keyed = hmac.new(self._key, request_hash, hashlib.sha256).hexdigest()
        # The same request twice at once: the second waits for the first one's end.
        while (task := self._under_way.get(place)) is not None:
            await asyncio.wait([task])
        task = asyncio.create_task(
            self._find_or_do(place, keyed, is_secret=is_secret, work=work),
            name="idempotent-request",
        )
        self._under_way[place] = task
        task.add_done_callback(lambda done: self._forget(place, done))
        # A caller who hangs up must find the answer when it asks again.
        return await asyncio.shield(task)

    async def settled(self, *, timeout_s: float) -> None:
        """Wait for what is under way, so that its answers are there after a restart."""
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=timeout_s)

    def _forget(self, place: _Place, task: asyncio.Task[StoredAnswer]) -> None:
        del self._under_way[place]
        if not task.cancelled():
            task.exception()  # seen, even where the caller has gone away

    async def _find_or_do(
        self, place: _Place, request_hash: str, *, is_secret: bool, work: Work
    ) -> StoredAnswer:
        found = self._of_memory(place)
        known = found or await self._store.get(*place)
        if known is not None:
            if known.request_hash != request_hash:
                raise IdempotencyConflict
            if known.answer is None:
                raise IdempotencyConflict("the first answer held a secret, which is not kept")
            return msgspec.structs.replace(known.answer, is_replayed=True)
        answer = await work(self._seed(place, request_hash))
        if answer.is_final:
            await self._store.save(
                *place, request_hash=request_hash, answer=None if is_secret else answer
            )
            if is_secret:
                self._remember(place, request_hash, answer)
        return answer

    def _seed(self, place: _Place, request_hash: str) -> bytes:
        """For ids: a try that the end of a service cut off after its work is known by them."""
        message = "\0".join(("seed", *place, request_hash)).encode()
        return hmac.new(self._key, message, hashlib.sha256).digest()

    def _of_memory(self, place: _Place) -> Remembered | None:
        while self._secret and next(iter(self._secret.values())).until < time.monotonic():
            self._secret.popitem(last=False)
        found = self._secret.get(place)
        if found is None:
            return None
        return Remembered(request_hash=found.request_hash, answer=found.answer)

    def _remember(self, place: _Place, request_hash: str, answer: StoredAnswer) -> None:
        until = time.monotonic() + KEPT.total_seconds()
        self._secret[place] = _Secret(request_hash=request_hash, answer=answer, until=until)
        while len(self._secret) > SECRETS_KEPT_MAX:
            self._secret.popitem(last=False)
