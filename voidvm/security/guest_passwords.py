"""Passwords of guests' users: hashed before they are stored, in the form that guests know."""

from __future__ import annotations

from msgspec import structs
from passlib.hash import sha512_crypt

from voidvm.domain.cloudinit import CloudInit

# sha512-crypt, since cloud-init takes a hash it does not know ($y$, $2b$) for a clear password.
# 0.15 s here; a guest under TCG needs about a second at each login.
_ROUNDS = 100_000


def sealed(cloud_init: CloudInit) -> CloudInit:
    """The value as it may be stored: with the password's hash in its place.

    Takes a tenth of a second of a core when there is a password, so call it in a thread.
    """
    if cloud_init.password is None:
        return cloud_init
    digest: str = sha512_crypt.using(rounds=_ROUNDS).hash(cloud_init.password)
    return structs.replace(cloud_init, password=None, password_hash=digest)
