"""Turns JSON values into domain values and names every field that does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from voidvm.domain.fields import Name, name_problem, normal_name
from voidvm.domain.wording import explain
from voidvm.errors import FieldProblem, ValidationFailed

T = TypeVar("T", bound=msgspec.Struct)


def decode(kind: type[T], value: object, *, is_text: bool = False) -> T:
    """`value` (parsed JSON) as a `kind`.

    With `is_text`, leaves may be strings in place of numbers and booleans, as in a query.
    Raises `ValidationFailed` with all the problems found, not only the first.
    """
    problems = _problems(kind, value, path="", is_text=is_text)
    refuse(problems)
    prepared: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {}
    for key in _names(kind) & prepared.keys():
        if isinstance(prepared[key], str):
            prepared[key] = normal_name(prepared[key])
    return msgspec.convert(prepared, kind, strict=not is_text)


def refuse(problems: list[FieldProblem]) -> None:
    """Raise `ValidationFailed` with all the problems, if there are any."""
    if problems:
        raise ValidationFailed(errors=problems, details=_summary(problems))


def _summary(problems: list[FieldProblem]) -> str:
    return "; ".join(f"{problem.field or 'body'}: {problem.message}" for problem in problems)


def _problems(kind: Any, value: object, *, path: str, is_text: bool) -> list[FieldProblem]:
    if not isinstance(value, Mapping):
        return [FieldProblem(path or "body", "must be an object")]
    found: list[FieldProblem] = []
    fields = _fields(kind)
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            message = f"is unknown; did you mean '{near[0]}'?" if near else "is unknown"
            found.append(FieldProblem(_join(path, str(key)), message))
    for key, field in fields.items():
        place = _join(path, key)
        if key in value:
            item = value[key]
            if key in _names(kind) and isinstance(item, str):
                # Measured in the form in which it is stored.
                item = normal_name(item)
                problem = name_problem(item) if item else None
                found += [FieldProblem(place, problem)] if problem else []
            found += _field_problems(field.hint, item, path=place, is_text=is_text)
        elif field.is_required:
            found.append(FieldProblem(place, "is required"))
    return found


def _field_problems(hint: Any, value: object, *, path: str, is_text: bool) -> list[FieldProblem]:
    struct, holder = _struct_inside(hint)
    items: list[tuple[str, object]] = []
    if struct is not None and holder is list and isinstance(value, list):
        items = [(f"{path}[{number}]", item) for number, item in enumerate(value)]
    elif struct is not None and holder is dict and isinstance(value, Mapping):
        items = [(_join(path, str(key)), item) for key, item in value.items() if item is not None]
    elif struct is not None and holder is None and isinstance(value, Mapping):
        return _problems(struct, value, path=path, is_text=is_text)
    nested = [
        problem
        for place, item in items
        for problem in _problems(struct, item, path=place, is_text=is_text)
    ]
    if nested:
        return nested
    try:
        msgspec.convert(value, hint, strict=not is_text)
    except msgspec.ValidationError as problem:
        inner, message = explain(problem, hint, is_text=is_text)
        return [FieldProblem(path + inner, message)]
    return []


class _Field(msgspec.Struct, frozen=True):
    hint: Any
    is_required: bool


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, _Field]:
    """The fields by their names in JSON; finding them out takes a good part of a millisecond."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.encode_name: _Field(hints[field.name], field.required)
        for field in msgspec.structs.fields(kind)
    }


@cache
def _names(kind: type[msgspec.Struct]) -> frozenset[str]:
    """The fields that hold a `Name`."""
    return frozenset(
        name for name, field in _fields(kind).items() if Name in {field.hint, *get_args(field.hint)}
    )


def _struct_inside(hint: Any) -> tuple[type[msgspec.Struct] | None, type | None]:
    """The struct that a field holds, and in what it holds many of them: list, dict or None."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint, None
    for argument in get_args(hint):
        struct, holder = _struct_inside(argument)
        if struct is not None:
            own = get_origin(hint)
            return struct, holder or (own if own in {list, dict} else None)
    return None, None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
