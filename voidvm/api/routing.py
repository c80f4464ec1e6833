"""Endpoints as records: handler, permission, body, query, answer and errors, in one place.

The router, the access check, the OpenAPI description and the tests read the same records, so
that none can say something else than what is served.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct
from sanic import Request

from voidvm.domain.account import Principal
from voidvm.domain.etag import ANY, Precondition
from voidvm.domain.operation import Operation, OperationRecord
from voidvm.domain.permission import Permission
from voidvm.domain.vm import Value
from voidvm.errors import VoidVMError
from voidvm.services.services import Services

B = TypeVar("B", bound=Struct)
Q = TypeVar("Q", bound=Struct)

EVENT_STREAM = "text/event-stream"
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

BASE = "/api/v1"
# What is no part of the API proper.
_OUTSIDE = ("/health", "/docs", "/metrics")
# What is served below the prefix and without it.
_EVERYWHERE = ("/ws",)


class Access(Enum):
    """Who may call an endpoint that needs no permission."""

    PUBLIC = "public"
    SIGNED_IN = "signed in"


class Nothing(Value, frozen=True, kw_only=True):
    """No body, no query."""


class Waits(Value, frozen=True, kw_only=True):
    """A query of an endpoint that waits for others, and no longer than its caller may ask it."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[B, Q]):
    """One request, checked and decoded."""

    services: Services
    principal: Principal
    path: dict[str, str]
    body: B
    query: Q
    precondition: Precondition = ANY
    address: str = ""
    # The same for each try under one idempotency key, for the id of what it makes.
    seed: bytes | None = None
    request: Request

    @property
    def vm(self) -> str:
        """The VM that the path names, by id or name."""
        return self.path["vm"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a handler returns: `data` for the envelope, and what else the response carries.

    The status is the endpoint's own unless another is given.
    """

    data: object
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    beside: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RawAnswer:
    """A response without the envelope."""

    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)


def accepted(record: OperationRecord) -> Answer:
    """The answer to what goes on as an operation."""
    address = f"{BASE}/operations/{record.id}"
    return Answer(data=record.show(), status=202, headers={"location": address})


Handler = Callable[[Any], Awaitable[Answer | RawAnswer]]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Everything that is known of one endpoint."""

    method: Method
    path: str
    handler: Handler
    access: Permission | Access
    summary: str
    done: tuple[str, str]
    body: type[Struct]
    query: type[Struct]
    returns: Any
    status: int
    also: dict[int, Any]
    errors: tuple[type[VoidVMError], ...]
    media_type: str | None
    streams: str | None
    messages: tuple[type[Struct], ...]
    is_socket: bool
    is_action: bool
    is_secret: bool
    is_limited: bool
    is_open_before_password_change: bool

    @property
    def name(self) -> str:
        """The handler's name: unique, used as the operation's id."""
        return self.handler.__name__

    @property
    def holds_connection(self) -> bool:
        """Whether its handler takes the connection for as long as both sides want."""
        return self.is_socket or self.media_type == EVENT_STREAM

    @property
    def methods(self) -> list[str]:
        """What it is asked with: where GET is, HEAD is too, and gives no body (RFC 9110, 9.3.2)."""
        has_head = self.method == "GET" and not self.holds_connection
        return ["GET", "HEAD"] if has_head else [self.method]

    @property
    def is_wait(self) -> bool:
        """Whether its handler waits for what others do."""
        return issubclass(self.query, Waits)

    @property
    def tag(self) -> str:
        """The handler's module, under which the description shows it."""
        return self.handler.__module__.rpartition(".")[2]

    @property
    def parameters(self) -> list[str]:
        """The names in the path's braces."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def is_outside(self) -> bool:
        """Whether it is served beside the versioned API."""
        return self.path.startswith(_OUTSIDE)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The whole paths at which it is served."""
        if self.is_outside:
            return (self.path,)
        return (BASE + self.path, *((self.path,) if self.path in _EVERYWHERE else ()))

    @property
    def routes(self) -> list[str]:
        """The addresses in the router's form."""
        return [re.sub(r"{(\w+)}", r"<\1:str>", address) for address in self.addresses]


ENDPOINTS: list[Endpoint] = []


def endpoint(
    method: Method,
    path: str,
    *,
    access: Permission | Access,
    returns: Any = None,
    done: tuple[str, str] = ("Done.", "完成。"),
    body: type[Struct] = Nothing,
    query: type[Struct] = Nothing,
    status: int = 200,
    also: dict[int, Any] | None = None,
    errors: tuple[type[VoidVMError], ...] = (),
    media_type: str | None = None,
    streams: str | None = None,
    messages: tuple[type[Struct], ...] = (),
    is_socket: bool = False,
    is_action: bool = False,
    is_secret: bool = False,
    is_limited: bool = True,
    is_open_before_password_change: bool = False,
) -> Callable[[H], H]:
    """Register a handler; its docstring is the summary, its module the tag.

    `access` has no default: an endpoint that does not say who may call it cannot be written.
    `also`: other good answers, by status. `is_action`: on a VM; with `Prefer: respond-async` it
    goes on as an operation. `streams`: the media type of a body of any length, which the handler
    reads itself. `messages`: what a socket speaks in. `is_secret`: its answer holds a secret, which
    must not be kept on disk.
    """
    if not isinstance(access, Permission | Access):
        raise TypeError(f"{method} {path} does not say who may call it")

    def register(handler: H) -> H:
        ENDPOINTS.append(
            Endpoint(
                method=method,
                path=path,
                handler=handler,
                access=access,
                summary=inspect.cleandoc(handler.__doc__ or ""),
                done=done,
                body=body,
                query=query,
                returns=returns,
                status=status,
                also={**(also or {}), **({202: Operation} if is_action else {})},
                errors=errors,
                media_type=media_type,
                streams=streams,
                messages=messages,
                is_socket=is_socket,
                is_action=is_action,
                is_secret=is_secret,
                is_limited=is_limited,
                is_open_before_password_change=is_open_before_password_change,
            )
        )
        return handler

    return register
