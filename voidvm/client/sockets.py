"""What the two kinds of WebSockets of `websockets` have in common: their errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from voidvm.client.io import OPEN_TIMEOUT_S, Refused, SocketClosed

SEND_TIMEOUT_S: Final = 30.0


@contextmanager
def dialling() -> Iterator[None]:
    """Raise `Refused` and `SocketClosed` for what may go wrong while connecting."""
    try:
        yield
    except InvalidStatus as error:
        answer = error.response
        response = httpx.Response(
            answer.status_code, headers=list(answer.headers.raw_items()), content=bytes(answer.body)
        )
        raise Refused(response) from error
    except TimeoutError as error:
        raise SocketClosed(1006, f"no answer within {OPEN_TIMEOUT_S:g} s") from error
    except (OSError, InvalidHandshake, InvalidURI, EOFError) as error:
        raise SocketClosed(1006, str(error)) from error


@contextmanager
def talking() -> Iterator[None]:
    """Raise `SocketClosed` where the connection is no more."""
    try:
        yield
    except ConnectionClosed as error:
        frame = error.rcvd
        raise SocketClosed(frame.code if frame else 1006, frame.reason if frame else "") from error
