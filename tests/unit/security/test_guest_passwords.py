"""The form in which guests' passwords are kept."""

from __future__ import annotations

import re

import msgspec
from passlib.hash import sha512_crypt

from voidvm.domain.cloudinit import CloudInit
from voidvm.domain.validation import decode
from voidvm.security.guest_passwords import sealed

# cloud-init's own test of whether a password is a hash (cc_set_passwords.py, 22.4).
CLOUD_INITS_HASH = re.compile(r"\$(1|2a|2y|5|6)(\$.+){2}")


def test_a_password_becomes_a_hash_that_guests_and_the_body_know() -> None:
    clear = CloudInit(user="alice", password="pässword $6$ 😀")
    kept = sealed(clear)
    assert kept.password is None
    assert kept.user == "alice"
    assert kept.password_hash is not None
    assert CLOUD_INITS_HASH.match(kept.password_hash)
    assert sha512_crypt.verify(clear.password, kept.password_hash)
    assert not sha512_crypt.verify("other", kept.password_hash)
    text = msgspec.json.encode(kept)
    assert "pässword".encode() not in text
    assert decode(CloudInit, msgspec.json.decode(text)) == kept


def test_the_same_password_never_has_the_same_hash() -> None:
    first, second = (sealed(CloudInit(password="a")).password_hash for _ in range(2))
    assert first != second


def test_what_has_no_clear_password_stays() -> None:
    once = sealed(CloudInit(password="a"))
    assert sealed(once) is once
    assert sealed(CloudInit()) == CloudInit()


def test_a_hash_of_the_specification_is_verified() -> None:
    # From "Unix crypt using SHA-256 and SHA-512" by Ulrich Drepper: so glibc in guests agrees.
    known = (
        "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp"
        "8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."
    )
    assert sha512_crypt.verify("Hello world!", known)
