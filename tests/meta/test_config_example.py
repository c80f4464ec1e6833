"""config.example.toml has every setting, with its default, a reason, and nothing else."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from tests.meta.sources import ROOT
from voidvm import config
from voidvm.config import Settings

EXAMPLE = ROOT / "config.example.toml"


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The defaults for root, which are those that the file shows."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return config.load(None, environ={})


def test_it_loads_and_says_nothing_but_the_defaults(defaults: Settings) -> None:
    assert config.load(EXAMPLE, environ={}) == defaults


def test_it_has_every_key_in_the_order_of_the_code(defaults: Settings) -> None:
    example = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert _keys(example) == _keys(msgspec.to_builtins(defaults))


def _keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in values.items():
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found


def test_every_key_has_its_reason_above_it() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    bare = [
        line
        for before, line in pairwise(lines)
        if "=" in line and not line.startswith("#") and not before.startswith("#")
    ]
    assert bare == []


def test_a_misspelt_key_is_refused_with_the_nearest_one() -> None:
    text = EXAMPLE.read_text(encoding="utf-8").replace("history_bytes", "histroy_bytes")
    with pytest.raises(config.ConfigError, match="did you mean 'history_bytes'"):
        config._convert(tomllib.loads(text))
