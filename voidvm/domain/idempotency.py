"""Answers as they went out, to be given again under the same idempotency key."""

from __future__ import annotations

from msgspec import Struct


class StoredAnswer(Struct, frozen=True, kw_only=True):
    """An answer; `is_final` False: a later try may well end otherwise, so it is not kept."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_final: bool = True
    is_replayed: bool = False


class Remembered(Struct, frozen=True, kw_only=True):
    """What is known of a key; `answer` None: it held a secret, which is not kept."""

    request_hash: str
    answer: StoredAnswer | None
