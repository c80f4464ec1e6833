"""From JSON and query texts to values, with every problem named."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from voidvm.domain.fields import Name, name_problem, new_vm_id, normal_name
from voidvm.domain.validation import decode
from voidvm.domain.vm import Value
from voidvm.errors import ValidationFailed


class Part(Value, frozen=True, kw_only=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    note: str = ""


class Whole(Value, frozen=True, kw_only=True):
    first_part: Part
    more_parts: list[Part] = msgspec.field(default_factory=list)
    maybe: Part | None = None
    flag: bool = False
    ratio: float = 1.0
    count: int | None = None


def problems(value: object, *, is_text: bool = False) -> list[tuple[str, str]]:
    with pytest.raises(ValidationFailed) as caught:
        decode(Whole, value, is_text=is_text)
    return [(problem.field, problem.message) for problem in caught.value.errors]


def test_what_fits_is_decoded() -> None:
    value = {"firstPart": {"size": 1}, "moreParts": [{"size": 2, "note": "x"}], "maybe": None}
    assert decode(Whole, value) == Whole(
        first_part=Part(size=1), more_parts=[Part(size=2, note="x")]
    )


def test_problems_at_every_depth_are_named() -> None:
    value = {
        "firstPart": {"size": 0, "nope": 1},
        "moreParts": [{"size": 1}, {}, {"size": "x"}],
        "maybe": {"size": None},
        "flag": "yes",
        "firstpart": 1,
    }
    assert sorted(problems(value)) == [
        ("firstPart.nope", "is unknown; did you mean 'note'?"),
        ("firstPart.size", "must be an integer of at least 1"),
        ("firstpart", "is unknown; did you mean 'firstPart'?"),
        ("flag", "must be true or false, not text"),
        ("maybe.size", "must be an integer, not null"),
        ("moreParts[1].size", "is required"),
        ("moreParts[2].size", "must be an integer, not text"),
    ]


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_what_is_no_object_is_refused(value: object) -> None:
    assert problems(value) == [("body", "must be an object")]


def test_texts_stand_for_numbers_only_in_a_query() -> None:
    query = {"firstPart": {"size": "3"}, "flag": "true", "ratio": "2.5", "count": "7"}
    assert decode(Whole, query, is_text=True) == Whole(
        first_part=Part(size=3), flag=True, ratio=2.5, count=7
    )
    assert {field for field, _ in problems(query)} == {"firstPart.size", "flag", "ratio", "count"}


@pytest.mark.parametrize("text", ["NaN", "nan", "inf", "-Infinity"])
def test_numbers_of_a_query_are_finite_where_they_have_bounds(text: str) -> None:
    class Wait(Value, frozen=True, kw_only=True):
        timeout: Annotated[float, msgspec.Meta(ge=0, le=10)]

    with pytest.raises(ValidationFailed):
        decode(Wait, {"timeout": text}, is_text=True)


def test_a_name_is_brought_into_its_one_form() -> None:
    class Named(Value, frozen=True, kw_only=True):
        name: Name

    assert decode(Named, {"name": "e\u0301"}).name == "\u00e9" == normal_name("e\u0301")


def test_what_a_name_is_says_the_type_of_the_field() -> None:
    class Named(Value, frozen=True, kw_only=True):
        name: str
        new_name: Name | None = None

    assert decode(Named, {"name": "a b", "newName": None}).name == "a b"
    with pytest.raises(ValidationFailed) as caught:
        decode(Named, {"name": "a b", "newName": "a b"})
    [problem] = caught.value.errors
    assert problem.field == "newName"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a", None),
        ("虚拟机.1_x-y", None),
        ("..a", None),
        ("...", "must not be dots alone"),
        ("vm-a", "must not begin with 'vm-', as ids do"),
        ("a/b", "must be letters, digits, '.', '_' or '-', not '/'"),
        ("a\tb", "must be letters, digits, '.', '_' or '-', not 'U+0009'"),
        ("\u0300a", "must not begin with a combining mark"),
        ("\u00b2", "must be letters, digits, '.', '_' or '-', not '\u00b2'"),
    ],
)
def test_names_are_judged(name: str, problem: str | None) -> None:
    assert name_problem(name) == problem


def test_ids_are_no_names() -> None:
    ids = {new_vm_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(name_problem(vm_id) for vm_id in ids)
