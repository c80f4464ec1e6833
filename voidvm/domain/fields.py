"""The limits of each field, defined once: bodies, stored values and OpenAPI use these types."""

from __future__ import annotations

import secrets
import unicodedata
from typing import Annotated, Final

from msgspec import Meta

VM_ID_PREFIX: Final = "vm-"
NAME_MAX_LENGTH: Final = 63

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_MAX_LENGTH,
        description="Letters and digits of any script, '.', '_', '-'; unique per owner; "
        "does not begin with 'vm-'.",
        examples=["test-vm"],
    ),
]
Cpus = Annotated[int, Meta(ge=1, le=255, description="Virtual CPUs.")]
MemoryMib = Annotated[int, Meta(ge=16, le=4_194_304, description="Memory in MiB.")]
DiskGib = Annotated[int, Meta(ge=1, le=65_536, description="Size of the first disk in GiB.")]
Description = Annotated[str, Meta(max_length=4096)]
Tag = Annotated[str, Meta(min_length=1, max_length=63)]
Tags = Annotated[list[Tag], Meta(max_length=64)]
ImageRef = Annotated[str, Meta(min_length=1, max_length=128, description="Id or name of an image.")]
OsName = Annotated[
    str,
    Meta(min_length=1, max_length=63, description="An entry of GET /images/catalog."),
]
# In Python `$` also stands before a last newline, in JSON Schema it does not: hence (?!\n).
KernelCmdline = Annotated[str, Meta(max_length=2048, pattern=r"^[^\x00-\x1f\x7f]*(?!\n)$")]
MacAddress = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}(?!\n)$",
        description="A unicast address, like 52:54:00:12:34:56.",
    ),
]
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
Ipv4Address = Annotated[
    str,
    Meta(pattern=rf"^{_BYTE}(\.{_BYTE}){{3}}(?!\n)$", description="An IPv4 address."),
]
Port = Annotated[int, Meta(ge=1, le=65535)]
HostPort = Annotated[
    int, Meta(ge=0, le=65535, description="0: a free port is chosen when the VM starts.")
]
TimeoutS = Annotated[
    float, Meta(ge=0, le=3600, description="Seconds before the VM is ended without its consent.")
]
Delay = Annotated[int, Meta(ge=0, le=86_400, description="Seconds.")]


def new_vm_id(seed: bytes | None = None) -> str:
    """An id for a new VM; opaque to clients but for its prefix. The same `seed` gives the same."""
    return VM_ID_PREFIX + (secrets.token_bytes(6) if seed is None else seed[:6]).hex()


def normal_name(name: str) -> str:
    """`name` in the one form in which names are stored and compared (Unicode NFC)."""
    return unicodedata.normalize("NFC", name)


def name_problem(name: str) -> str | None:
    """What is wrong with a name, in one sentence, or None."""
    for character in name:
        if character in "._-":
            continue
        # L letters, M the marks that many scripts spell letters with, Nd digits.
        category = unicodedata.category(character)
        if category[0] not in "LM" and category != "Nd":
            shown = character if character.isprintable() else f"U+{ord(character):04X}"
            return f"must be letters, digits, '.', '_' or '-', not {shown!r}"
    if name.startswith(VM_ID_PREFIX):
        return f"must not begin with '{VM_ID_PREFIX}', as ids do"
    if not name.strip("."):
        return "must not be dots alone"
    if unicodedata.category(name[0])[0] == "M":
        return "must not begin with a combining mark"
    return None
