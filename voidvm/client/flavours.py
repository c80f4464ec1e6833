"""One definition of each call for two clients: one whose calls block, one whose calls are awaited.

What has to wait is written once, as coroutines over `voidvm.client.io`. The blocking client runs
the same coroutines to their end: its I/O blocks where the other's suspends, so that they never do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from types import MethodType, TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from voidvm.client.requests import Request

if TYPE_CHECKING:
    from voidvm.client.core import Core

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """The flavour whose calls return when they are done."""


class Awaiting:
    """The flavour whose calls are awaited."""


F = TypeVar("F", Blocking, Awaiting)
S = TypeVar("S", bound="Closing[Any]")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over blocking I/O, which never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("a blocking call has suspended")


class Bound(Generic[F]):
    """A part of a client of either flavour."""

    def __init__(self, core: Core) -> None:
        self.core = core


class Flow(Generic[P, T]):
    """A call of any number of steps; `of` is the call as a step of a longer one."""

    def __init__(
        self,
        function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
        *,
        shown: Callable[..., object] | None = None,
    ) -> None:
        self.of = function
        # Whose name, signature and docstring it has for people.
        self.shown = shown or function
        self.__doc__ = self.shown.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: Bound[Blocking], kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, owner: Bound[Awaiting], kind: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, owner: Bound[Any] | None, kind: type) -> Any:
        if owner is None:
            return self

        shown = MethodType(self.shown, owner)

        @wraps(shown)
        async def awaiting(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.of(owner, *args, **kwargs)

        if not owner.core.io.is_blocking:
            return awaiting

        @wraps(shown)
        def blocking(*args: P.args, **kwargs: P.kwargs) -> T:
            return run(awaiting(*args, **kwargs))

        return blocking


class Call(Flow[P, T]):
    """A call that is one request: `build` only says which."""

    def __init__(self, build: Callable[Concatenate[Any, P], Request[T]]) -> None:
        async def sent(owner: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            result: T = await owner.core.send(build(owner, *args, **kwargs))
            return result

        super().__init__(sent, shown=build)
        self.build = build


class Stream(Generic[P, T]):
    """A call whose results come one after the other: a generator, of either kind."""

    def __init__(self, function: Callable[Concatenate[Any, P], AsyncGenerator[T, None]]) -> None:
        self.of = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Stream[P, T]: ...
    @overload
    def __get__(self, owner: Bound[Blocking], kind: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, owner: Bound[Awaiting], kind: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, owner: Bound[Any] | None, kind: type) -> Any:
        if owner is None:
            return self
        if not owner.core.io.is_blocking:
            return MethodType(self.of, owner)

        @wraps(MethodType(self.of, owner))
        def stream(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            return iterated(self.of(owner, *args, **kwargs))

        return stream


def call(build: Callable[Concatenate[Any, P], Request[T]]) -> Call[P, T]:
    """A method that builds a request, as the call that sends it."""
    return Call(build)


def flow(function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Flow[P, T]:
    """A coroutine function as a call of both flavours."""
    return Flow(function)


def stream(function: Callable[Concatenate[Any, P], AsyncGenerator[T, None]]) -> Stream[P, T]:
    """An asynchronous generator as an iterator of both flavours."""
    return Stream(function)


def iterated(source: AsyncGenerator[T, None]) -> Iterator[T]:
    """What a generator over blocking I/O, which never suspends, gives."""
    try:
        while True:
            try:
                item = run(_next(source))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(source.aclose())


async def _next(source: AsyncGenerator[T, None]) -> T:
    return await anext(source)


class Closing(Bound[F]):
    """Something that is closed at the end of a `with`, or `async with`, block."""

    async def _close(self) -> None:
        raise NotImplementedError

    @flow
    async def close(self) -> None:
        """Let go of its connections; it can be done twice."""
        await self._close()

    def __enter__(self: S) -> S:
        if not self.core.io.is_blocking:
            raise TypeError(f"an asynchronous {type(self).__name__} wants: async with")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        run(self._close())

    async def __aenter__(self: S) -> S:
        if self.core.io.is_blocking:
            raise TypeError(f"a blocking {type(self).__name__} wants: with")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self._close()
