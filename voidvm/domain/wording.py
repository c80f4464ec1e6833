"""Says in the words of JSON what msgspec says in those of Python."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, Literal, get_args, get_origin

import msgspec

_NOUNS: Final = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "array": "an array",
    "object": "an object",
    "bytes": "text in base64",
    "datetime": "a time such as 2026-01-31T12:00:00Z",
    "date": "a date such as 2026-01-31",
    "time": "a time of day such as 12:00:00Z",
    "duration": "a duration such as PT1H30M",
    "uuid": "a UUID",
    "decimal": "a decimal number",
}
# What was found, where another word than that for what is wanted fits.
_FOUND: Final = {"float": "a decimal number", "bool": "true or false", "null": "null"}
_ENCODED: Final = {
    "RFC3339 encoded datetime": "datetime",
    "RFC3339 encoded date": "date",
    "RFC3339 encoded time": "time",
    "ISO8601 duration": "duration",
    "UUID": "uuid",
    "decimal string": "decimal",
    "base64 encoded string": "bytes",
}
_UNITS: Final = {
    "str": ("character", "characters"),
    "array": ("item", "items"),
    "object": ("entry", "entries"),
    "bytes": ("byte", "bytes"),
}
_BOUNDS: Final = {
    ">=": "of at least",
    "<=": "of at most",
    ">": "greater than",
    "<": "less than",
    "that's a multiple of": "that is a multiple of",
}
_AT_THE_END: Final = r"(?!\n)$"
_LENGTHS: Final = {">=": "at least ", "<=": "at most "}
# The text may hold a value that somebody else has chosen; it ends with a quotation mark then.
_PLACED: Final = re.compile(r"(?P<text>.*) - at `(?P<key>key` in `)?\$(?P<place>[^`]*)`", re.DOTALL)


def explain(
    error: msgspec.ValidationError, hint: object = None, *, is_text: bool = False
) -> tuple[str, str]:
    """Where in a value msgspec found the problem, such as `[0].name`, and what is wrong there.

    The second is the end of a sentence that begins with the field's name. `hint` is the type that
    the value should have: what may be chosen from is told by it. With `is_text`, as in a query,
    all that is given is text, and there is no null.
    """
    found = _PLACED.fullmatch(str(error))
    text, place = (found["text"], found["place"]) if found else (str(error), "")
    said = _plain(text, hint, is_text=is_text)
    return place, f"has a key that {said}" if found and found["key"] else said


def _plain(text: str, hint: object, *, is_text: bool) -> str:
    if text.startswith(("Invalid enum value ", "Invalid value ")):
        choices = list(dict.fromkeys(_choices(hint)))
        if not choices:
            return "is no value that is known"
        return f"must be {'one of ' if choices[1:] else ''}{', '.join(choices)}"
    for form, say in _FORMS:
        if found := form.fullmatch(text):
            return say(found, is_text=is_text) if say is _kind else say(found)
    return text[:1].lower() + text[1:].replace("`", "")


def _choices(hint: object) -> Iterator[str]:
    """The values of the enumerations in a type, as JSON would have them."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        yield from (_shown(member.value) for member in hint)
    elif get_origin(hint) is Literal:
        yield from (_shown(value) for value in get_args(hint) if value is not None)
    else:
        for argument in get_args(hint):
            yield from _choices(argument)


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else msgspec.json.encode(value).decode()


def _kind(found: re.Match[str], *, is_text: bool = False) -> str:
    wanted, given = found["wanted"].split(" | "), found["given"]
    if "float" in wanted and "int" in wanted:
        wanted.remove("int")
    if is_text and len(wanted) > 1 and "null" in wanted:
        wanted.remove("null")
    words: list[str] = []
    for one in wanted:
        words += ["true", "false"] if one == "bool" else [_NOUNS.get(one, one)]
    *others, last = words
    said = f"must be {', '.join(others)} or {last}" if others else f"must be {last}"
    if is_text or given is None:
        return said
    return f"{said}, not {_FOUND.get(given) or _NOUNS.get(given, given)}"


def _bound(found: re.Match[str]) -> str:
    number = found["number"].removesuffix(".0")
    return f"must be {_NOUNS[found['kind']]} {_BOUNDS[found['how']]} {number}"


def _length(found: re.Match[str]) -> str:
    return f"must be {_counted(found['kind'], _LENGTHS[found['how']], found['count'])}"


def _exact_length(found: re.Match[str]) -> str:
    counted = _counted("array", found["how"] or "", found["count"])
    return f"must be {counted}" + (f", not {found['given']}" if found["given"] else "")


def _counted(kind: str, how: str, count: str) -> str:
    one, many = _UNITS[kind]
    return f"{_NOUNS[kind]} of {how}{count} {one if count == '1' else many}"


def _pattern(found: re.Match[str]) -> str:
    pattern: str = literal_eval(found["pattern"])
    # What is behind the last letter is our own affair (domain/fields.py).
    return f"must be text that matches {pattern.replace(_AT_THE_END, '$')}"


def _zone(found: re.Match[str]) -> str:
    kind = _NOUNS[found["kind"]]
    if found["how"] == "a":
        return f"must be {kind}, with a time zone"
    return f"must be {kind.removesuffix('Z')}, without a time zone"


def _encoded(found: re.Match[str]) -> str:
    return f"must be {_NOUNS[_ENCODED[found['form']]]}"


_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[..., str]], ...]] = tuple(
    (re.compile(form, re.DOTALL), say)
    for form, say in (
        (r"Expected `(?P<wanted>[^`]+)`(, got `(?P<given>[^`]+)`)?", _kind),
        (rf"Expected `(?P<kind>int|float)` (?P<how>{'|'.join(_BOUNDS)}) (?P<number>.+)", _bound),
        (r"Expected `(?P<kind>\w+)` of length (?P<how>[<>]=) (?P<count>\d+)", _length),
        (
            (
                r"Expected `array` of (?P<how>at least |at most )?length "
                r"(?P<count>\d+( to \d+)?)(, got (?P<given>\d+))?"
            ),
            _exact_length,
        ),
        (r"Expected `str` matching regex (?P<pattern>.+)", _pattern),
        (r"Expected `(?P<kind>\w+)` with (?P<how>a|no) timezone component", _zone),
        (rf"Invalid (?P<form>{'|'.join(_ENCODED)})", _encoded),
        (r".* out of range ?", lambda _: "is out of range"),
        (r"Object missing required field `(.+)`", lambda found: f"must have '{found[1]}'"),
        (r"Object contains unknown field `(.+)`", lambda found: f"must not have '{found[1]}'"),
    )
)
