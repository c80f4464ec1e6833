"""What no struct may hold, since msgspec itself does not refuse it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import msgspec
from msgspec import inspect

import voidvm


def structs() -> list[type[msgspec.Struct]]:
    """All structs of the project."""
    for module in pkgutil.walk_packages(voidvm.__path__, "voidvm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[msgspec.Struct]] = []
    waiting = [msgspec.Struct]
    while waiting:
        below = waiting.pop().__subclasses__()
        waiting += below
        found += [one for one in below if one.__module__.startswith("voidvm")]
    return found


def unions(kind: inspect.Type) -> Iterator[inspect.UnionType]:
    """The unions in a type, as deep as lists and unions go; structs are looked at themselves."""
    if isinstance(kind, inspect.UnionType):
        yield kind
        for one in kind.types:
            yield from unions(one)
    if isinstance(kind, inspect.ListType):
        yield from unions(kind.item_type)
    if isinstance(kind, inspect.DictType):
        yield from unions(kind.value_type)
    if isinstance(kind, inspect.Metadata):
        yield from unions(kind.type)


def plain(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def crashes(union: inspect.UnionType) -> bool:
    kinds = [plain(one) for one in union.types]
    has_pattern = any(isinstance(one, inspect.StrType) and one.pattern for one in kinds)
    is_simple = all(
        isinstance(one, inspect.StrType | inspect.NoneType | inspect.CustomType) for one in kinds
    )
    return has_pattern and not is_simple


def test_no_text_with_a_pattern_stands_beside_a_list_or_an_object() -> None:
    """A value for such a union crashes the process or is not checked (msgspec 0.22)."""
    bad = []
    for struct in structs():
        info = inspect.type_info(struct)
        assert isinstance(info, inspect.StructType)
        bad += [
            f"{struct.__module__}.{struct.__name__}.{field.name}"
            for field in info.fields
            for union in unions(field.type)
            if crashes(union)
        ]
    assert len(structs()) > 30
    assert bad == []


def test_the_check_finds_such_a_union() -> None:
    # Put together by hand: msgspec crashes even when it is only asked about the real one.
    text, words = inspect.StrType(pattern="a"), inspect.ListType(inspect.StrType())
    assert crashes(inspect.UnionType((text, words)))
    assert not crashes(inspect.UnionType((text, inspect.NoneType())))
    assert not crashes(inspect.UnionType((inspect.StrType(max_length=9), words)))
