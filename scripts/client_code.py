"""The parts of the Python client that are made from the service's own definitions.

Types of answers and of bodies come from the structs that the endpoints name, error classes from
the registry of errors.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UnsetType

from voidvm.api import server
from voidvm.api.paging import PageQuery
from voidvm.api.routing import ENDPOINTS, Nothing
from voidvm.errors import registry

Kind = type[msgspec.Struct] | type[Enum]

FOLDER = Path("voidvm") / "client"
_MADE = "Made by `scripts/docs.py` from {source}; do not edit."
# What a dict has already: a field of this name could not be an attribute.
_TAKEN = frozenset(dir(dict))


def client_code() -> dict[Path, str]:
    """The text of each module, by its place in the repository."""
    if not server.NOUNS:
        raise RuntimeError("the endpoints are not there")
    texts = {"inputs.py": _inputs(), "errors.py": _errors()}
    texts |= {f"types/{name}.py": text for name, text in _types().items()}
    return {FOLDER / name: _formatted(text) for name, text in texts.items()}


def _formatted(text: str) -> str:
    """The text without the imports that it does not need, in the form of all our modules."""
    ruff = str(Path(sys.executable).with_name("ruff"))
    name = ["--quiet", "--stdin-filename", str(FOLDER / "made.py"), "-"]
    for command in (["check", "--fix-only", "--select", "I,F401"], ["format"]):
        done = subprocess.run(
            [ruff, *command, *name], input=text, capture_output=True, text=True, check=True
        )
        text = done.stdout
    return text


def _head(summary: str, source: str, *imports: str) -> str:
    lines = "\n".join(imports)
    made = _MADE.format(source=source)
    return f'"""{summary}\n\n{made}\n"""\n\nfrom __future__ import annotations\n\n{lines}\n\n'


# Answers


def _types() -> dict[str, str]:
    """A module for each module of the service's, and one that has all of their names."""
    structs = _closure(item for point in ENDPOINTS for item in _answers(point.returns))
    kinds: set[Kind] = {*structs, *(enum for kind in structs for enum in _enums(kind))}
    modules: dict[str, list[Kind]] = {}
    for kind in sorted(kinds, key=_order):
        modules.setdefault(_module(kind), []).append(kind)
    texts = {name: _module_text(name, own) for name, own in modules.items()}
    head = '"""What the service answers: dicts whose keys are also attributes."""\n\n'
    lines = [_import(f"voidvm.client.types.{name}", own) for name, own in modules.items()]
    return texts | {"__init__": head + "\n".join(lines) + _all(kind.__name__ for kind in kinds)}


def _order(kind: Kind) -> tuple[bool, int, str]:
    """Enums first; then each below what it is made from."""
    return not issubclass(kind, Enum), len(kind.__mro__), kind.__name__


def _module(kind: type) -> str:
    return kind.__module__.rpartition(".")[2]


def _all(names: Iterable[str]) -> str:
    return f"\n\n__all__ = {sorted(names)!r}\n"


def _import(module: str, kinds: list[Kind]) -> str:
    return f"from {module} import {', '.join(kind.__name__ for kind in kinds)}"


def _module_text(name: str, own: list[Kind]) -> str:
    text = "".join(_literal(one) if issubclass(one, Enum) else _record(one) for one in own)
    structs = [one for one in own if not issubclass(one, Enum)]
    imports = [
        "from datetime import datetime",
        "from typing import Any, ClassVar, Literal",
        "from voidvm.client.record import Record",
    ]
    others: dict[str, list[Kind]] = {}
    for one in structs:
        needed: list[Kind] = [*_direct(one), *_enums(one)]
        for other in needed:
            if _module(other) != name and other not in others.setdefault(_module(other), []):
                others[_module(other)].append(other)
    for module in sorted(others):
        names = ", ".join(sorted(kind.__name__ for kind in others[module]))
        imports.append(f"from voidvm.client.types.{module} import {names}")
    source = f"`{own[0].__module__}`"
    return _head("Answers, as `voidvm.client.types` has them.", source, *imports) + text


def _literal(kind: type[Enum]) -> str:
    values = ", ".join(f'"{member.value}"' for member in kind)
    return f'{kind.__name__} = Literal[{values}]\n"""{_first_line(kind)}"""\n\n'


def _answers(kind: object) -> Iterator[type[msgspec.Struct]]:
    """The structs that an answer is made of; of mere lists and their pages only the items."""
    if not isinstance(kind, type):
        return
    hints = get_type_hints(kind)
    held = {name: hint for name, hint in hints.items() if name != "pagination"}
    if len(held) == 1 and get_origin(only := next(iter(held.values()))) is list:
        yield from _structs_in(only)
        if "pagination" in hints:
            yield hints["pagination"]
    else:
        yield kind


def _record(kind: type[msgspec.Struct]) -> str:
    lines, renamed = [], {}
    hints = get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        if field.name in _TAKEN:
            raise ValueError(f"{kind.__name__}.{field.name} is a method of every dict")
        lines.append(f"    {field.name}: {_spelt(hints[field.name])}")
        if field.encode_name != _camel(field.name):
            renamed[field.name] = field.encode_name
    if renamed:
        lines.append("")
        lines.append(f"    _renamed: ClassVar[dict[str, str]] = {renamed!r}")
    body = "\n".join(lines)
    return f'class {kind.__name__}(Record):\n    """{_first_line(kind)}"""\n\n{body}\n\n\n'


# Bodies and filters


def _inputs() -> str:
    kinds = {point.body for point in ENDPOINTS if point.body is not Nothing}
    nested = _closure(kinds) - kinds
    lists = {point.query for point in ENDPOINTS if issubclass(point.query, PageQuery)}
    enums = sorted({one.__name__ for kind in kinds | nested | lists for one in _enums(kind)})
    text = _head(
        "What the service is sent: bodies and filters as keywords, objects in them as JSON.",
        "the bodies and queries of the endpoints",
        "from datetime import datetime",
        "from typing import Any, Literal, Required, TypedDict",
        *([f"from voidvm.client.types import {', '.join(enums)}"] if enums else []),
    )
    for kind in sorted(nested, key=lambda one: one.__name__):
        text += _typed_dict(kind, is_nested=True)
    for kind in sorted(kinds, key=lambda one: one.__name__):
        text += _typed_dict(kind, is_nested=False)
    for kind in sorted(lists, key=lambda one: one.__name__):
        text += _typed_dict(kind, is_nested=False, ending="")
    return text


def _typed_dict(kind: type[msgspec.Struct], *, is_nested: bool, ending: str | None = None) -> str:
    hints = get_type_hints(kind)
    lines = []
    for field in msgspec.structs.fields(kind):
        name = field.encode_name if is_nested else field.name
        hint = _spelt(hints[field.name], suffix="Json")
        lines.append(f"    {name}: {f'Required[{hint}]' if is_nested and field.required else hint}")
    body = "\n".join(lines)
    if ending is None:
        ending = "Json" if is_nested else "Fields"
    name = f"{kind.__name__}{ending}"
    return f'class {name}(TypedDict, total=False):\n    """{_first_line(kind)}"""\n\n{body}\n\n\n'


# Errors

_BASES = (
    *("ApiError", "ExpectTimeout", "FieldProblem", "NoAnswer", "NoName"),
    *("OperationFailed", "StillRunning", "Unreachable", "Untrusted", "VoidVMError"),
)


def _errors() -> str:
    text = _head(
        "Every error of the service as a class of its own, by its `code`.",
        "`voidvm/errors`",
        f"from voidvm.client.failures import {', '.join(_BASES)}",
    )
    kinds = sorted(registry(), key=lambda one: one.__name__)
    text += _all([*_BASES, *(kind.__name__ for kind in kinds)]) + "\n\n"
    for kind in kinds:
        doc = " ".join((kind.__doc__ or "").split())
        head = f'class {kind.__name__}(ApiError, code="{kind.code}", status={kind.status}):'
        text += f"{head}\n{_docstring(doc)}\n\n\n"
    return text


def _docstring(doc: str) -> str:
    line = f'    """{doc}"""'
    return line if len(line) <= 100 else f'    """{_wrapped(doc)}\n    """'


def _wrapped(doc: str) -> str:
    first, rest = re.split(r"(?<=[.;:,]) ", doc, maxsplit=1)
    return f"{first}\n\n    {rest}"


# Types as text


def _closure(roots: Iterable[type[msgspec.Struct]]) -> set[type[msgspec.Struct]]:
    found: set[type[msgspec.Struct]] = set()
    waiting = list(roots)
    while waiting:
        kind = waiting.pop()
        if kind in found:
            continue
        found.add(kind)
        waiting += _direct(kind)
    names = [kind.__name__ for kind in found]
    if len(names) != len(set(names)):
        raise ValueError(f"two structs have one name: {sorted(names)}")
    return found


def _direct(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    return [one for hint in get_type_hints(kind).values() for one in _structs_in(hint)]


def _structs_in(hint: object) -> list[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [kind for argument in get_args(hint) for kind in _structs_in(argument)]


def _enums(kind: type[msgspec.Struct]) -> Iterator[type[Enum]]:
    waiting = list(get_type_hints(kind).values())
    while waiting:
        hint = waiting.pop()
        if isinstance(hint, type) and issubclass(hint, Enum):
            yield hint
        waiting += get_args(hint)


def _spelt(hint: object, *, suffix: str = "") -> str:
    """A type as source; structs by their name and `suffix`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"Literal[{', '.join(repr(value) for value in arguments)}]"
    if origin in {Union, UnionType}:
        # `None` comes last, as people write it.
        parts = sorted(
            {*arguments} - {UnsetType}, key=lambda one: (one is NoneType, arguments.index(one))
        )
        return " | ".join(_spelt(one, suffix=suffix) for one in parts)
    if origin is not None:
        inner = ", ".join(_spelt(one, suffix=suffix) for one in arguments)
        return f"{origin.__name__}[{inner}]"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint.__name__ + suffix
    if hint is datetime and suffix:
        return "datetime | str"
    plain: dict[object, str] = {NoneType: "None", Any: "Any", object: "Any"}
    return plain.get(hint) or str(getattr(hint, "__name__", hint))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]
