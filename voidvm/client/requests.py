"""A request as a value: what is asked, and what its answer is read as."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import quote

from voidvm.client.failures import NoName, Unreachable
from voidvm.client.record import Page, Record, camel

if TYPE_CHECKING:
    import httpx

    from voidvm.client.core import Core

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R", bound=Record)

Json = Any
Ref = str | Mapping[str, Json]
"""An object of the service: by id, by name where it has one, or as it was answered."""
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Read = Callable[["httpx.Response", "Core"], T]

_OUTSIDE = ("/health", "/metrics", "/docs")


@dataclass(frozen=True, kw_only=True)
class Request(Generic[T_co]):
    """One request; `template` is the path as the API describes it, `path` the filled one."""

    method: str
    template: str
    path: str
    read: Callable[[httpx.Response, Core], T_co]
    query: Mapping[str, object] = field(default_factory=dict)
    body: Mapping[str, Json] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_s: float = 0
    """How much longer than others the answer may take."""
    timeout_s: float | None = None
    """Instead of the client's own."""
    is_open: bool = False
    """Whether it needs no credential."""
    is_repeatable: bool | None = None
    """Whether it does no harm when it arrives twice; None: as its method says."""

    @property
    def is_outside(self) -> bool:
        """Whether it is served beside the versioned API."""
        return self.template.startswith(_OUTSIDE)


def request(
    method: Method,
    template: str,
    read: Read[T],
    *refs: Ref,
    query: Mapping[str, object] | None = None,
    body: Mapping[str, Json] | None = None,
    if_match: Record | str | None = None,
    **more: Any,  # noqa: ANN401 - the fields of a request
) -> Request[T]:
    """A request of the API; `refs` fill the braces of the template."""
    left = list(refs)
    path = re.sub(r"{\w+}", lambda _: quote(ref(left.pop(0)), safe=""), template)
    version = if_match.etag if isinstance(if_match, Record) else if_match
    return Request(
        method=method,
        template=template,
        path=path,
        read=read,
        query={key: value for key, value in (query or {}).items() if value is not None},
        body=body,
        headers={**({"if-match": version} if version else {}), **more.pop("headers", {})},
        **more,
    )


def ref(thing: Ref) -> str:
    """An object as a path names it. Raises `NoName` for what cannot be part of one."""
    found = thing if isinstance(thing, str) else str(thing.get("id") or thing.get("uploadId") or "")
    if not found or found in {".", ".."}:
        raise NoName(f"'{found}' names no object")
    return found


def body_of(given: Mapping[str, Json] | None, keywords: Mapping[str, Json]) -> dict[str, Json]:
    """A body from a dict as JSON has it, and keywords as Python has them."""
    return {**(given or {}), **{camel(name): value for name, value in keywords.items()}}


def plain(value: object) -> Json:
    """What JSON has no form for, as the service writes it: for `json.dumps(default=…)`."""
    if isinstance(value, datetime):
        # A moment without a time zone is one of this host, as Python takes it.
        return value.astimezone().isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


def text(value: object) -> str:
    """A value in a query."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(plain(value)) if isinstance(value, datetime | Enum) else str(value)


# What answers are read as


def data_of(response: httpx.Response) -> Json:
    """The `data` of an envelope. Raises `Unreachable` where it is none."""
    try:
        return response.json()["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(
            f"{response.url} does not answer as VoidVM does (HTTP status {response.status_code})",
            hint="is another service on that port?",
        ) from error


@dataclass(frozen=True)
class One(Generic[R]):
    """An answer that is one object."""

    kind: type[R]

    def __call__(self, response: httpx.Response, _core: Core) -> R:
        """Read it."""
        return self.kind(data_of(response), etag=response.headers.get("etag"))


@dataclass(frozen=True)
class Many(Generic[R]):
    """An answer that is a list under `key`, whole."""

    key: str
    kind: type[R]

    def __call__(self, response: httpx.Response, _core: Core) -> list[R]:
        """Read it."""
        return [self.kind(one) for one in data_of(response)[self.key]]


@dataclass(frozen=True)
class Paged(Generic[R]):
    """An answer that is one page of a list under `key`."""

    key: str
    kind: type[R]

    def made(self, data: Json, _core: Core) -> R:
        """One item."""
        return self.kind(data)

    def __call__(self, response: httpx.Response, core: Core) -> Page[R]:
        """Read it."""
        data = data_of(response)
        place = data["pagination"]
        return Page(
            (self.made(one, core) for one in data[self.key]),
            page=place["page"],
            limit=place["limit"],
            total=place["total"],
            pages=place["pages"],
        )


def nothing(_response: httpx.Response, _core: Core) -> None:
    """Read an answer that only says that it is done."""


def whole(response: httpx.Response, _core: Core) -> httpx.Response:
    """Read an answer as it came."""
    return response
