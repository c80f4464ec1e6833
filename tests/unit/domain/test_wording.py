"""Every form of msgspec's messages, as users of JSON are told it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Annotated, Literal
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta

from voidvm.domain.wording import explain


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Part(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=1)]


def told(kind: object, value: object, *, is_text: bool = False) -> tuple[str, str]:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, type=kind, strict=not is_text)
    return explain(caught.value, kind, is_text=is_text)


_TIME = "a time such as 2026-01-31T12:00:00"


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (int, "2", "must be an integer, not text"),
        (int, 1.5, "must be an integer, not a decimal number"),
        (int, None, "must be an integer, not null"),
        (int, True, "must be an integer, not true or false"),
        (int, [], "must be an integer, not an array"),
        (int, {}, "must be an integer, not an object"),
        (float, "x", "must be a number, not text"),
        (str, 1, "must be text, not an integer"),
        (bool, "yes", "must be true or false, not text"),
        (list[int], "x", "must be an array, not text"),
        (dict[str, int], [], "must be an object, not an array"),
        (Part, "x", "must be an object, not text"),
        (None, 1, "must be null, not an integer"),
        (int | None, "x", "must be an integer or null, not text"),
        (bool | None, "x", "must be true, false or null, not text"),
        (int | str | None, [], "must be an integer, text or null, not an array"),
        (int | float | None, "x", "must be a number or null, not text"),
        (Annotated[int, Meta(ge=1)], 0, "must be an integer of at least 1"),
        (Annotated[int, Meta(le=255)], 256, "must be an integer of at most 255"),
        (Annotated[int, Meta(gt=1)], 1, "must be an integer of at least 2"),
        (Annotated[int, Meta(multiple_of=4)], 1, "must be an integer that is a multiple of 4"),
        (Annotated[float, Meta(ge=0)], -1, "must be a number of at least 0"),
        (Annotated[float, Meta(le=0.5)], 1, "must be a number of at most 0.5"),
        (Annotated[float, Meta(gt=0)], 0, "must be a number greater than 0"),
        (Annotated[float, Meta(lt=5)], 5, "must be a number less than 5"),
        (
            Annotated[float, Meta(multiple_of=0.5)],
            0.3,
            "must be a number that is a multiple of 0.5",
        ),
        (Annotated[str, Meta(min_length=1)], "", "must be text of at least 1 character"),
        (Annotated[str, Meta(max_length=64)], "x" * 65, "must be text of at most 64 characters"),
        (Annotated[list[int], Meta(min_length=1)], [], "must be an array of at least 1 item"),
        (Annotated[list[int], Meta(max_length=2)], [1] * 3, "must be an array of at most 2 items"),
        (
            Annotated[dict[str, int], Meta(max_length=1)],
            {"a": 1, "b": 2},
            "must be an object of at most 1 entry",
        ),
        (
            Annotated[bytes, Meta(max_length=2)],
            "aaaaaaaa",
            "must be text in base64 of at most 2 bytes",
        ),
        (tuple[int, int], [1], "must be an array of 2 items, not 1"),
        (Annotated[str, Meta(pattern=r"^a\d'`$")], "x", r"must be text that matches ^a\d'`$"),
        (Annotated[str, Meta(pattern=r"^a+(?!\n)$")], "x", "must be text that matches ^a+$"),
        (Colour, "green", "must be one of 'red', 'blue'"),
        (Colour | None, "green", "must be one of 'red', 'blue'"),
        (Level, 3, "must be one of 1, 2"),
        (Literal["a", 1], "b", "must be one of 'a', 1"),
        (Literal["a"] | None, "b - at `$.x`", "must be 'a'"),
        (dict[Colour, int], {"x": 1}, "has a key that must be one of 'red', 'blue'"),
        (dt.datetime, "x", f"must be {_TIME}Z"),
        (dt.datetime, 5, f"must be {_TIME}Z, not an integer"),
        (
            Annotated[dt.datetime, Meta(tz=True)],
            "2026-01-31T12:00:00",
            f"must be {_TIME}Z, with a time zone",
        ),
        (
            Annotated[dt.datetime, Meta(tz=False)],
            "2026-01-31T12:00:00Z",
            f"must be {_TIME}, without a time zone",
        ),
        (dt.date, "x", "must be a date such as 2026-01-31"),
        (dt.time, "x", "must be a time of day such as 12:00:00Z"),
        (dt.timedelta, "x", "must be a duration such as PT1H30M"),
        (bytes, "***", "must be text in base64"),
        (UUID, "x", "must be a UUID"),
        (Decimal, "x", "must be a decimal number"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_json(kind: object, value: object, said: str) -> None:
    assert told(kind, value) == ("", said)


@pytest.mark.parametrize(
    ("kind", "value", "place", "said"),
    [
        (list[Colour], ["red", "x"], "[1]", "must be one of 'red', 'blue'"),
        (list[Part], [{"size": 0}], "[0].size", "must be an integer of at least 1"),
        (dict[str, Part], {"a": {}}, "[...]", "must have 'size'"),
        (Part, {"size": 1, "more": 2}, "", "must not have 'more'"),
    ],
)
def test_the_place_is_told_apart(kind: object, value: object, place: str, said: str) -> None:
    assert told(kind, value) == (place, said)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (int, "x", "must be an integer"),
        (int | None, "x", "must be an integer"),
        (bool, "maybe", "must be true or false"),
        (Annotated[float, Meta(ge=0)], "nan", "must be a number of at least 0"),
        (dt.datetime, "1e300", "is out of range"),
    ],
)
def test_of_a_query_it_is_not_said_that_all_is_text(kind: object, value: object, said: str) -> None:
    assert told(kind, value, is_text=True) == ("", said)


def test_what_is_chosen_from_is_left_out_where_the_type_is_not_known() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert("x", Colour)
    assert explain(caught.value) == ("", "is no value that is known")


def test_words_of_our_own_stay() -> None:
    assert explain(msgspec.ValidationError("Names `a` twice")) == ("", "names a twice")
