"""What the tests of downloads have in common: a file, a server, little patience."""

from __future__ import annotations

import hashlib
import random
import ssl
from pathlib import Path

import pytest
from msgspec import structs

from voidvm.domain.checksums import Digest
from voidvm.errors import VoidVMError
from voidvm.services.downloads import Downloads
from voidvm.services.transfer import Patience

HASTY = Patience(
    connect_s=20, silence_s=20, tries=3, step_bytes=1000, first_pause_s=0.01, max_pause_s=0.02
)
# For servers that say nothing: on a busy machine an answer may take longer than this, too.
SILENT = structs.replace(HASTY, silence_s=0.5)
# Three million bytes that are nowhere alike; every process of tests makes them.
BODY = random.Random(1).randbytes(3_000_000)  # noqa: S311 - no secret
SHA256 = Digest(algorithm="sha256", hex=hashlib.sha256(BODY).hexdigest())
CAP = 10_000_000
# Reading the host's certificates takes a tenth of a second.
TLS = ssl.create_default_context()


def downloads(**settings: object) -> Downloads:
    return Downloads(**{"allow_private": lambda: True, "patience": HASTY, "tls": TLS} | settings)  # type: ignore[arg-type]  # settings of a test


async def refused(
    url: str, target: Path, kind: type[VoidVMError], *, cap_bytes: int = CAP, **settings: object
) -> VoidVMError:
    """The error of a download; nothing is left of it."""
    with pytest.raises(kind) as caught:
        await downloads(**settings).fetch(url, target, cap_bytes=cap_bytes)
    assert list(target.parent.iterdir()) == []
    return caught.value
