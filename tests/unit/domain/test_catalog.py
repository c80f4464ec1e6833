"""The image catalogue: the real file is sound, mistakes are refused, near names are found."""

from pathlib import Path

import msgspec
import pytest

from voidvm.domain.catalog import CatalogEntry, CatalogError, find, nearest, parse_catalog

CATALOG = Path(__file__).parents[3] / "images" / "catalog.toml"
TINY = """
[[image]]
id = "tiny"
title = "Tiny"
aliases = ["small"]
recipe = "tiny"
min_memory_mib = 128
min_disk_gib = 1
"""
REMOTE = """
[[image]]
id = "debian12"
title = "Debian 12"
url = "https://images.example/debian-12.qcow2"
min_memory_mib = 256
min_disk_gib = 2
[image.checksum]
algorithm = "sha512"
url = "https://images.example/SHA512SUMS"
format = "gnu"
"""


@pytest.fixture
def real() -> dict[str, CatalogEntry]:
    return parse_catalog(CATALOG.read_text(encoding="utf-8"))


def test_the_shipped_catalogue_has_what_the_api_promises(real: dict[str, CatalogEntry]) -> None:
    assert next(iter(real)) == "tiny"
    assert {"debian12", "debian13", "ubuntu20.04", "ubuntu22.04", "ubuntu24.04"} <= set(real)
    assert real["tiny"].recipe == "tiny"
    assert (CATALOG.parent / "tiny" / "build.py").is_file()


def test_every_download_in_the_shipped_catalogue_can_be_verified(
    real: dict[str, CatalogEntry],
) -> None:
    downloads = [entry for entry in real.values() if entry.url is not None]
    assert len(downloads) >= 14
    for entry in downloads:
        assert entry.checksum is not None
        assert entry.checksum.digest or entry.checksum.format
        for url in (entry.url, entry.checksum.url):
            assert url is None or url.startswith("https://")


def test_entries_are_camel_case_in_json_and_keep_the_order_of_the_file() -> None:
    catalog = parse_catalog(TINY + REMOTE)
    assert list(catalog) == ["tiny", "debian12"]
    assert msgspec.to_builtins(catalog["tiny"])["minMemoryMib"] == 128


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TINY + TINY, "'tiny' twice"),
        (TINY + REMOTE.replace("debian12", "small"), "'small' twice: in 'tiny' and in 'small'"),
        (TINY.replace('["small"]', '["tiny"]'), "'tiny' twice"),
        (TINY + 'colour = "red"\n', "colour"),
        (TINY.replace('id = "tiny"\n', ""), "id"),
        (TINY.replace('"tiny"', '"../tiny"', 1), "image"),
        (TINY.replace("128", "0"), "minMemoryMib"),
        (TINY.replace('recipe = "tiny"', ""), "either a recipe or a url"),
        (REMOTE.replace("https://images", "ftp://images", 1), "url"),
        (REMOTE.partition("[image.checksum]")[0], "checksum exactly when"),
        (REMOTE.replace('format = "gnu"', ""), "format exactly when"),
        (REMOTE.replace("https://images.example/SHA", "https://x/S") + 'digest = "a"', "either"),
        (TINY + 'firmware = ["bios", "bios"]', "firmware"),
        ("[[image", "not valid"),
        ("", "image"),
    ],
)
def test_a_catalogue_with_a_mistake_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(text)
    assert reason in str(caught.value)


def test_a_pinned_digest_must_have_the_length_of_its_algorithm() -> None:
    pinned = REMOTE.replace('format = "gnu"', "").replace(
        'url = "https://images.example/SHA512SUMS"', f'digest = "{"a" * 64}"'
    )
    with pytest.raises(CatalogError, match="128 small hexadecimal digits"):
        parse_catalog(pinned)
    catalog = parse_catalog(pinned.replace("sha512", "sha256"))
    checksum = catalog["debian12"].checksum
    assert checksum is not None
    assert checksum.digest == "a" * 64


def test_an_entry_is_found_by_id_and_alias_in_any_case(real: dict[str, CatalogEntry]) -> None:
    assert find("tiny", real) is real["tiny"]
    assert find("Bookworm", real) is real["debian12"]
    assert find("nothing-like-this", real) is None


@pytest.mark.parametrize(
    ("name", "first"),
    [("ubunut24.04", "ubuntu24.04"), ("Debain12", "debian12"), ("tinny", "tiny"),
     ("bookwrm", "debian12")],
)  # fmt: skip
def test_a_misspelt_name_gets_the_nearest_ids(
    name: str, first: str, real: dict[str, CatalogEntry]
) -> None:
    answer = nearest(name, real)
    assert answer[0] == first
    assert len(answer) == len(set(answer)) <= 3
    assert set(answer) <= set(real)


def test_a_name_like_nothing_gets_no_suggestion(real: dict[str, CatalogEntry]) -> None:
    assert nearest("zzzzzzzz", real) == []
    assert nearest("nonsense", real) == []
