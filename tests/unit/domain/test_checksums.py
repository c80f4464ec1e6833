"""Checksums as clients write them, and publishers' lists in their three forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voidvm.domain.catalog import ChecksumAlgorithm, ChecksumFormat
from voidvm.domain.checksums import ChecksumError, file_name_of, find_digest, parse_digest

A, B, LONG = "a" * 64, "b" * 64, "c" * 128
NAME = "disk.qcow2"
CLEARSIGNED = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# {NAME}: 123 bytes
SHA256 ({NAME}) = {A}
- SHA256 (-odd) = {B}
-----BEGIN PGP SIGNATURE-----

{B}  {NAME}
-----END PGP SIGNATURE-----
"""


def find(
    text: str, form: ChecksumFormat = "gnu", algorithm: ChecksumAlgorithm = "sha256",
    name: str = NAME,
) -> str:  # fmt: skip
    return find_digest(text, algorithm=algorithm, form=form, file_name=name).hex


@pytest.mark.parametrize(
    "text",
    [
        f"{A}  {NAME}\n{B}  other\n",
        f"{B} *other\r\n{A} *{NAME}\r\n",
        f"\ufeff{A.upper()}\t./{NAME}\n{B}  other",
        f"{B}  other\n{A}  images/x86_64/{NAME}\n",
        f"d41d8cd98f00b204e9800998ecf8427e  {NAME}\n{A}  {NAME}\n{B}  other",
        f"# a comment\n\n{A}  {NAME}\n{A}  {NAME}\n{B}  other",
        f"{A}  a-dated-name-of-it.qcow2\n",
    ],
)
def test_a_gnu_list_is_read(text: str) -> None:
    assert find(text) == A


def test_a_bsd_list_is_read() -> None:
    text = f"SHA512 ({NAME}) = {LONG}\nSHA256 ({NAME}) = {A}\nSHA256 (other) = {B}\n"
    assert find(text, "bsd") == A
    assert find(text, "bsd", "sha512") == LONG


def test_a_clear_signed_list_is_read_and_only_what_is_signed() -> None:
    assert find(CLEARSIGNED, "bsd") == A
    assert find(CLEARSIGNED, "bsd", name="-odd") == B
    assert find(f"{B}  {NAME}\n{CLEARSIGNED}", "bsd") == A
    with pytest.raises(ChecksumError, match="cut off"):
        find(CLEARSIGNED.partition("-----BEGIN PGP SIGNATURE")[0], "bsd")


def test_a_list_may_be_of_the_other_form_than_expected() -> None:
    assert find(f"SHA256 ({NAME}) = {A}", "gnu") == A
    assert find(f"{A}  {NAME}", "bsd") == A


@pytest.mark.parametrize("text", [A, f"{A}\n", f"{A}  whatever\n"])
def test_a_bare_checksum_is_read(text: str) -> None:
    assert find(text, "bare") == A


@pytest.mark.parametrize(
    ("text", "form", "reason"),
    [
        ("", "gnu", "no sha256"),
        ("<html>404</html>", "gnu", "no sha256"),
        (f"{LONG}  {NAME}", "gnu", "no sha256"),
        (f"{A}  x\n{B}  y\n", "gnu", "does not name 'disk.qcow2'"),
        (f"{A}  {NAME}.sig\n{B}  x{NAME}\n", "gnu", "does not name"),
        (f"{A}  {NAME}\n{B}  {NAME}\n", "gnu", "two checksums"),
        (f"{A}\n{B}\n", "bare", "does not name"),
        (A[:-1], "bare", "no sha256"),
    ],
)
def test_a_list_without_the_file_says_so(text: str, form: ChecksumFormat, reason: str) -> None:
    with pytest.raises(ChecksumError, match=reason):
        find(text, form)


def test_a_digest_is_read_in_any_case() -> None:
    assert str(parse_digest(f" SHA256:{A.upper()} ")) == f"sha256:{A}"
    assert parse_digest(f"sha512:{LONG}").algorithm == "sha512"


@pytest.mark.parametrize("text", ["", A, "md5:abc", f"sha256:{A}0", f"sha512:{A}", "sha256:zz"])
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ChecksumError):
        parse_digest(text)


def test_the_name_of_a_file_is_the_end_of_its_path() -> None:
    assert file_name_of("https://a.example/b/c%20d.img?x=/y#/z") == "c d.img"


@given(st.text(max_size=300), st.sampled_from(["gnu", "bsd", "bare"]))
def test_any_text_gets_an_answer(text: str, form: ChecksumFormat) -> None:
    try:
        find(f"{text}\n{A}  {NAME}", form)
    except ChecksumError:
        return
