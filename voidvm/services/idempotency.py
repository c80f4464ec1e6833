"""The same request under the same key is done once, and answered again for a day."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from voidvm.domain.idempotency import StoredAnswer
from voidvm.errors import FieldProblem, IdempotencyConflict, ValidationFailed
from voidvm.store.idempotency import IdempotencyStore

KEY_MAX: Final = 255
SECRETS_KEPT_MAX: Final = 1000

Work = Callable[[], Awaitable[StoredAnswer]]
_Place = tuple[str, str]


class Idempotency:
    """Answers are kept on disk; those that hold a secret only in memory."""

    def __init__(self, store: IdempotencyStore) -> None:
        self._store = store
        self._under_way: dict[_Place, asyncio.Task[StoredAnswer]] = {}
        self._secret: OrderedDict[_Place, StoredAnswer] = OrderedDict()

    async def once(
        self, user_id: str, key: str, *, request_hash: str, is_secret: bool, work: Work
    ) -> StoredAnswer:
        """The answer of `work`, or the one that was given under this key before.

        Raises `IdempotencyConflict` when the key was used for another request.
        """
        if not 0 < len(key) <= KEY_MAX or not key.isprintable():
            message = f"must have 1 to {KEY_MAX} printable characters"
            raise ValidationFailed(
                f"Idempotency-Key {message}", errors=[FieldProblem("Idempotency-Key", message)]
            )
        place = (user_id, key)
        # The same request twice at once: the second waits for the first one's end.
        while (task := self._under_way.get(place)) is not None:
            await asyncio.wait([task])
        task = asyncio.create_task(
            self._find_or_do(place, request_hash, is_secret=is_secret, work=work),
            name="idempotent-request",
        )
        self._under_way[place] = task
        task.add_done_callback(lambda done: self._forget(place, done))
        # A caller who hangs up must find the answer when it asks again.
        return await asyncio.shield(task)

    def _forget(self, place: _Place, task: asyncio.Task[StoredAnswer]) -> None:
        del self._under_way[place]
        if not task.cancelled():
            task.exception()  # seen, even where the caller has gone away

    async def _find_or_do(
        self, place: _Place, request_hash: str, *, is_secret: bool, work: Work
    ) -> StoredAnswer:
        known = await self._store.get(*place)
        if known is not None:
            if known.request_hash != request_hash:
                raise IdempotencyConflict
            stored = known.answer or self._secret.get(place)
            if stored is None:
                raise IdempotencyConflict("the first answer held a secret, which is not kept")
            return msgspec.structs.replace(stored, is_replayed=True)
        answer = await work()
        if answer.is_final:
            await self._store.save(
                *place, request_hash=request_hash, answer=None if is_secret else answer
            )
            if is_secret:
                self._secret[place] = answer
                while len(self._secret) > SECRETS_KEPT_MAX:
                    self._secret.popitem(last=False)
        return answer
