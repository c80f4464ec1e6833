"""Answers as dicts that are typed: `vm["createdAt"]` is what came, `vm.created_at` a datetime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    SupportsIndex,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")


def camel(name: str) -> str:
    """A name as JSON has it: `created_at` is `createdAt`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class Record(dict[str, Any]):
    """One object of the service: the keys are its own, the attributes their names in Python.

    Keys that this version of the client does not know are there all the same, as attributes too.
    """

    __slots__ = ("etag",)

    _renamed: ClassVar[dict[str, str]] = {}

    etag: str | None
    """The version that was answered, for `if_match`; None where the service gives none."""

    def __init__(self, data: Mapping[str, Any], *, etag: str | None = None) -> None:
        parts = _parts(type(self))
        super().__init__(
            {key: parts[key](value) if key in parts else value for key, value in data.items()}
        )
        self.etag = etag

    if not TYPE_CHECKING:  # else a misspelt attribute would be right

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the key holds
            key = self.key_of(name)
            if name.startswith("_") or key not in self:
                raise AttributeError(
                    f"the service sent no '{key}' in this {type(self).__name__}",
                    name=name,
                    obj=self,
                )
            value = self[key]
            return _moment(value) if key in _moments(type(self)) else value

    @classmethod
    def key_of(cls, name: str) -> str:
        """The key behind an attribute."""
        return cls._renamed.get(name) or camel(name)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *get_type_hints(type(self))]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), dict(self), self.etag)


def _again(kind: type[Record], data: dict[str, Any], etag: str | None) -> Record:
    return kind(data, etag=etag)


class Page(list[T], Generic[T]):
    """Items of a list, and how many there are: on this page (`page` of `pages`) or of all."""

    def __init__(
        self, items: Iterable[T], *, page: int, limit: int, total: int, pages: int
    ) -> None:
        super().__init__(items)
        self.page = page
        self.limit = limit
        self.total = total
        self.pages = pages

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        del protocol
        return list, (list(self),)


def _moment(value: object) -> object:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


@cache
def _hints(kind: type[Record]) -> dict[str, Any]:
    """The type of each key that this version knows."""
    hints = get_type_hints(kind)
    base = get_type_hints(Record)
    return {kind.key_of(name): hint for name, hint in hints.items() if name not in base}


@cache
def _moments(kind: type[Record]) -> frozenset[str]:
    """The keys whose text is a moment."""
    return frozenset(
        key for key, hint in _hints(kind).items() if datetime in {hint, *get_args(hint)}
    )


@cache
def _parts(kind: type[Record]) -> dict[str, Callable[[Any], Any]]:
    """What makes records of the objects below each key."""
    makers = {key: _maker(hint) for key, hint in _hints(kind).items()}
    return {key: maker for key, maker in makers.items() if maker is not None}


def _maker(hint: Any) -> Callable[[Any], Any] | None:  # noqa: ANN401 - any annotation
    """What makes records in a value of this type; None: it has none in it."""
    if isinstance(hint, type) and issubclass(hint, Record):
        return lambda value: hint(value) if isinstance(value, dict) else value
    make = next((found for one in get_args(hint) if (found := _maker(one))), None)
    if make is None:
        return None
    if get_origin(hint) is list:
        return lambda value: [make(one) for one in value] if isinstance(value, list) else value
    if get_origin(hint) is dict:
        return lambda value: (
            {key: make(one) for key, one in value.items()} if isinstance(value, dict) else value
        )
    return make
