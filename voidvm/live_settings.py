"""The settings that may change while the service runs, and what they are now.

Who uses one asks for it each time, so that there is no second place that holds it. A key is live
where `config` says so; what `GET` and `PUT /config` look like is made from that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from voidvm.config import LIVE, PREFIX, Key, Section, Settings, Sources
from voidvm.domain.quota import UNLIMITED
from voidvm.domain.validation import refuse
from voidvm.domain.vm import Value
from voidvm.errors import FieldProblem

Stored = dict[str, Any]
"""What was changed at run time, as in a body of `PUT /config`, without its nulls."""

Source = Literal["default", "file", "environment", "stored"]

# What `upload_bytes = 0` and `body_bytes = 0` mean: beyond every file system.
NO_CAP_BYTES: Final = 1 << 62

_PlanName = Annotated[str, Meta(min_length=1, max_length=63)]


# Types are read once: nine tenths of an answer to `GET /config` went into reading them.
@cache
def _live_hints(kind: type[Section]) -> Mapping[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if LIVE in get_args(hint)}


@cache
def _sections() -> tuple[tuple[str, type[Section], bool], ...]:
    """Each section with live keys; True: there are many of the kind, by name."""
    found = []
    for name, hint in get_type_hints(Settings).items():
        has_names = get_origin(hint) is dict
        kind = get_args(hint)[1] if has_names else hint
        if _live_hints(kind):
            found.append((name, kind, has_names))
    return tuple(found)


def _struct(name: str, doc: str, hints: Mapping[str, Any], *, is_patch: bool) -> type[Struct]:
    given = [
        (key, hint | None | UnsetType, UNSET) if is_patch else (key, hint)
        for key, hint in hints.items()
    ]
    return msgspec.defstruct(
        name,
        given,
        bases=(Value,),
        namespace={"__doc__": doc},
        module=__name__,
        frozen=True,
        kw_only=True,
    )


def _view(*, is_patch: bool) -> type[Struct]:
    end = "Patch" if is_patch else ""
    hints: dict[str, Any] = {}
    for name, kind, has_names in _sections():
        doc = (kind.__doc__ or "").strip()
        made: Any = _struct(
            f"Config{kind.__name__}{end}", doc, _live_hints(kind), is_patch=is_patch
        )
        if has_names:
            made = dict[_PlanName, made | None] if is_patch else dict[str, made]
        hints[name] = made
    doc = (
        "What shall change; null takes a changed value back, what is left out stays."
        if is_patch
        else "The settings that may change at run time, as they are now."
    )
    return _struct(f"ConfigValues{end}", doc, hints, is_patch=is_patch)


ConfigValues: Final = _view(is_patch=False)
ConfigPatch: Final = _view(is_patch=True)
Config: Final = msgspec.defstruct(
    "Config",
    [
        ("config", ConfigValues),
        (
            "sources",
            Annotated[dict[str, Source], Meta(description="Where each value comes from, by key.")],
        ),
        (
            "fixed",
            Annotated[list[str], Meta(description="Keys of the environment, which always wins.")],
        ),
        ("updated_at", datetime | None),
    ],
    bases=(Value,),
    namespace={"__doc__": "The settings that may change at run time, and where they come from."},
    module=__name__,
    frozen=True,
    kw_only=True,
)


def shown(key: Key) -> str:
    """A key as clients write it: `limits.requestsPerMinute`."""
    *sections, name = key
    first, *rest = name.split("_")
    return ".".join([*sections, first + "".join(word.capitalize() for word in rest)])


def variable_of(key: Key) -> str:
    """The variable of the environment that sets a key."""
    return PREFIX + "__".join(key).upper()


def check(patch: Struct) -> Stored:
    """A decoded body of `PUT /config` as plain values, with its nulls.

    Raises `ValidationFailed`.
    """
    values: Stored = msgspec.to_builtins(patch)
    if UNLIMITED in (values.get("plans") or {}):
        refuse([FieldProblem(f"plans.{UNLIMITED}", "is built in and has no limits")])
    return values


def merged(stored: Stored, patch: Stored) -> Stored:
    """What is stored after a change: null takes a value away (RFC 7396)."""
    result = dict(stored)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            before = result.get(name)
            result[name] = merged(before if isinstance(before, dict) else {}, value)
        else:
            result[name] = value
    return result


def touched(values: Stored, above: str = "") -> Iterator[str]:
    """What a change is about, for people: its keys, and whole sections that it takes back."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from touched(value, f"{above}{name}.")
        else:
            yield above + name


class LiveSettings:
    """The settings as they are now: the environment wins, then what was stored, then the file."""

    def __init__(self, base: Settings, sources: Sources | None = None) -> None:
        self._base = base
        self._sources = sources or Sources()
        self._stored: Stored = {}
        self._now = base

    @property
    def now(self) -> Settings:
        """Every setting; to be asked for at each use."""
        return self._now

    @property
    def stored(self) -> Stored:
        """What was changed at run time."""
        return self._stored

    @property
    def upload_cap_bytes(self) -> int:
        """How large an image may be."""
        return self._now.limits.upload_bytes or NO_CAP_BYTES

    def use(self, stored: Stored) -> None:
        """Have these changes from now on, and no others; they have been through `check`."""
        changed = {
            name: self._overlaid(name, kind, stored.get(name) or {}, has_names=has_names)
            for name, kind, has_names in _sections()
        }
        self._now = msgspec.structs.replace(self._base, **changed)
        self._stored = stored

    def fixed(self, values: Stored) -> list[Key]:
        """The keys that these values would change although the environment has them."""
        return [key for key in _given(values) if key in self._sources.environment]

    def lost_plans(self, stored: Stored) -> set[str]:
        """The plans that would be no more if these changes were in force."""
        return self._now.plans.keys() - self._base.plans.keys() - (stored.get("plans") or {}).keys()

    def show(self, *, updated_at: datetime | None) -> Struct:
        """The values with their sources, for clients."""
        values = {
            name: {one: _builtins(found) for one, found in getattr(self._now, name).items()}
            if has_names
            else _builtins(getattr(self._now, name))
            for name, _, has_names in _sections()
        }
        keys = list(_given(values))
        stored = set(_given(self._stored))
        return Config(
            config=msgspec.convert(values, ConfigValues),
            sources={shown(key): self._source(key, stored) for key in keys},
            fixed=[shown(key) for key in keys if key in self._sources.environment],
            updated_at=updated_at,
        )

    def _source(self, key: Key, stored: Collection[Key]) -> Source:
        if key in self._sources.environment:
            return "environment"
        if key in stored:
            return "stored"
        return "file" if key in self._sources.file else "default"

    def _overlaid(
        self, name: str, kind: type[Section], given: Stored, *, has_names: bool
    ) -> object:
        base = getattr(self._base, name)
        if not has_names:
            return self._section(base, kind, given, above=(name,))
        return base | {
            one: self._section(base.get(one) or kind(), kind, keys, above=(name, one))
            for one, keys in given.items()
        }

    def _section(self, base: Section, kind: type[Section], given: Stored, *, above: Key) -> Section:
        environment = self._sources.environment
        names = {shown((name,)): name for name in _live_hints(kind)}
        own = {names[one]: value for one, value in given.items()}
        free = {name: value for name, value in own.items() if (*above, name) not in environment}
        return msgspec.convert(msgspec.to_builtins(base) | free, kind)


def _builtins(section: Section) -> Stored:
    """The live keys of a section, as clients write them."""
    return {shown((name,)): getattr(section, name) for name in _live_hints(type(section))}


def _given(values: Stored) -> Iterator[Key]:
    """The keys that values as in a body have, nulls not counted."""
    for name, kind, has_names in _sections():
        keys = {shown((key,)): key for key in _live_hints(kind)}
        given = values.get(name) or {}
        parts = [((name, one), found) for one, found in given.items()] if has_names else None
        for above, found in parts if parts is not None else [((name,), given)]:
            for one, value in (found or {}).items():
                if value is not None:
                    yield (*above, keys[one])
