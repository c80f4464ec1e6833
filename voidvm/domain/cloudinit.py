"""What a guest configures itself with at its first boot, in cloud-init's terms."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Final

from msgspec import Meta, Struct, structs

from voidvm.errors import FieldProblem

# In Python `$` also stands before a last newline, in JSON Schema it does not: hence (?!\n).
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
Hostname = Annotated[
    str,
    Meta(
        max_length=253,
        pattern=rf"^{_LABEL}(\.{_LABEL})*(?!\n)$",
        description="With dots it is taken as the full name, its first part as the host name.",
        examples=["web1"],
    ),
]
UserName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z_][a-z0-9_.-]{0,31}(?!\n)$",
        description="The image's default user gets this name; it may use sudo.",
        examples=["alice"],
    ),
]
Password = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x1f\x7f]+(?!\n)$",
        description="Of that user. Only its hash is kept, and never shown. Without `sshKeys` it is "
        "good for SSH, too, otherwise only as far as the image allows.",
    ),
]
PasswordHash = Annotated[
    str,
    Meta(
        # The two kinds that each cloud-init tells from a clear password.
        pattern=r"^\$[56]\$(rounds=[0-9]{4,9}\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{43,86}(?!\n)$",
        description="In place of `password`: its sha512-crypt or sha256-crypt, as "
        "`openssl passwd -6` makes it. Never shown.",
    ),
]
SshKey = Annotated[
    str,
    Meta(
        max_length=16_384,
        pattern=r"^(ssh-(rsa|ed25519)|ecdsa-sha2-nistp(256|384|521)"
        r"|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
        # The newline at the end of a key's file is forgiven.
        r" [A-Za-z0-9+/]+={0,2}([ \t][^\x00-\x1f\x7f]*)?(\r?\n)?(?!\n)$",
        description="A public key as in a `.pub` file of OpenSSH.",
    ),
]
Package = Annotated[
    str,
    Meta(
        max_length=256,
        # No leading '-': it would be an option of the package manager.
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+:_=~/-]*(?!\n)$",
        examples=["nginx"],
    ),
]
# Without a pattern: one in a union with a list or an object makes msgspec 0.22 read a wrong slot
# of the type and crash. That no NUL is in them is for `problems` to see.
Line = Annotated[str, Meta(min_length=1, max_length=65_536)]
Words = Annotated[list[Line], Meta(min_length=1, max_length=1024)]
Document = Annotated[str, Meta(min_length=1, max_length=262_144)]

# How cloud-init tells one kind of user data from another; all else it ignores, with a warning
# that nobody sees (cloudinit/handlers/__init__.py, INCLUSION_TYPES_MAP).
USER_DATA_BEGINNINGS: Final = (
    "#cloud-config",
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "## template: jinja",
    "Content-Type:",
    "MIME-Version:",
)


# Not a voidvm.domain.vm.Value, because that module has this struct in its own.
class CloudInit(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename="camel",
):
    """What the guest is told by cloud-init; every field may be left out.

    `userData` is handed over word for word. The other fields are then defaults beneath it (vendor
    data): where both name the same key of cloud-config, `userData` wins; keys and host name also
    stand in the meta-data and count in any case.
    """

    hostname: Annotated[
        Hostname | None, Meta(description="Left out: the VM's name, as far as it can be one.")
    ] = None
    user: UserName | None = None
    password: Password | None = None
    password_hash: PasswordHash | None = None
    ssh_keys: Annotated[list[SshKey], Meta(max_length=64)] = []
    packages: Annotated[list[Package], Meta(max_length=256)] = []
    runcmd: Annotated[
        list[Line | Words],
        Meta(
            max_length=256,
            description="Run once, as root, at the end of the first boot: a string by the shell, "
            "a list as a program and its arguments.",
        ),
    ] = []
    user_data: Annotated[
        Document | None,
        Meta(
            description="cloud-init's own form, beginning with `#cloud-config`, `#!` or another "
            "of its headers. May hold secrets, so no answer shows it.",
            examples=["#cloud-config\ntimezone: Asia/Shanghai\n"],
        ),
    ] = None
    network_config: Annotated[
        Document | dict[str, object] | None,
        Meta(
            description="cloud-init's network configuration, version 1 or 2, as an object or as "
            "YAML text. Left out: DHCP on every card."
        ),
    ] = None


def problems(cloud_init: CloudInit, *, field: str = "cloudInit") -> list[FieldProblem]:
    """What is wrong beyond the types; `field` is the path of the value in the body."""
    return [FieldProblem(f"{field}.{place}", message) for place, message in _problems(cloud_init)]


def _problems(cloud_init: CloudInit) -> Iterator[tuple[str, str]]:
    if cloud_init.password is not None and cloud_init.password_hash is not None:
        yield "passwordHash", "must not stand beside 'password'"
    for number, key in enumerate(cloud_init.ssh_keys):
        if not _is_whole(key):
            yield f"sshKeys[{number}]", "is damaged: it does not hold its type"
    for number, command in enumerate(cloud_init.runcmd):
        if "\0" in "".join(command):
            yield f"runcmd[{number}]", "must not hold a NUL"
    yield from _user_data_problems(cloud_init.user_data)
    yield from _network_problems(cloud_init.network_config)


def _user_data_problems(text: str | None) -> Iterator[tuple[str, str]]:
    if text is None:
        return
    if "\0" in text:
        yield "userData", "must not hold a NUL"
    if not text.startswith(USER_DATA_BEGINNINGS):
        known = ", ".join(f"'{beginning}'" for beginning in USER_DATA_BEGINNINGS)
        yield "userData", f"must begin with one of {known}: cloud-init ignores all else"


def _network_problems(network: str | dict[str, object] | None) -> Iterator[tuple[str, str]]:
    if isinstance(network, str) and "\0" in network:
        yield "networkConfig", "must not hold a NUL"
    if isinstance(network, dict):
        inner = network.get("network", network)
        version = inner.get("version") if isinstance(inner, dict) else None
        # True == 1 in Python, and a boolean is no version.
        if version not in (1, 2) or isinstance(version, bool):
            yield "networkConfig", "must have 'version' 1 or 2"


def shown(cloud_init: CloudInit) -> CloudInit:
    """The value as clients may see it: without passwords, and without text that may hold some."""
    return structs.replace(cloud_init, password=None, password_hash=None, user_data=None)


def _is_whole(key: str) -> bool:
    """Whether the key's body holds the type that stands before it (RFC 4253, 6.6)."""
    kind, body = key.split()[:2]
    try:
        blob = base64.b64decode(body, validate=True)
    except binascii.Error:
        return False
    name = kind.encode()
    return blob.startswith(len(name).to_bytes(4, "big") + name) and len(blob) > len(name) + 4
