"""Images: the disks, CDs and kernels that VMs are made from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from voidvm.domain.fields import Name, OsName
from voidvm.domain.vm import Value

Digest = Annotated[
    str,
    Meta(
        pattern=r"^(sha256:[0-9a-fA-F]{64}|sha512:[0-9a-fA-F]{128})$",
        description="sha256:<hex> or sha512:<hex>, of the file as it is sent.",
    ),
]
ImageKind = Literal["disk", "iso", "kernel"]


class Image(Value, frozen=True, kw_only=True):
    """An image as it is stored and shown."""

    id: str
    name: str
    kind: ImageKind
    format: Literal["qcow2", "raw", "iso"]
    size_bytes: int
    virtual_size_bytes: int
    checksum: str
    os: str | None
    owner: str | None
    public: bool
    status: Literal["ready"] = "ready"
    created_at: datetime
    updated_at: datetime | None = None


class ImagePatch(Value, frozen=True, kw_only=True):
    """What shall change; a field left out stays."""

    name: Name | UnsetType = UNSET
    public: bool | UnsetType = UNSET


class ImageCreate(Value, frozen=True, kw_only=True):
    """Where an image is to come from: an address, or an entry of the catalogue."""

    name: Name | None = None
    url: (
        Annotated[str, Meta(max_length=2048, pattern=r"^https?://[^\s/?#@]+([/?#]\S*)?$")] | None
    ) = None
    checksum: Digest | None = None
    os: OsName | None = None
    public: bool = False


class UploadCreate(Value, frozen=True, kw_only=True):
    """An image that will be sent in pieces."""

    name: Name
    size_bytes: Annotated[int, Meta(ge=1)]
    checksum: Digest | None = None
    public: bool = False


class Upload(Value, frozen=True, kw_only=True):
    """An upload that is not complete, or has just become so."""

    upload_id: str
    name: str
    size_bytes: int
    offset: Annotated[int, Meta(description="Bytes that have arrived.")]
    operation_id: Annotated[
        str | None, Meta(description="When all bytes are here: the operation that goes on.")
    ] = None


class UploadRecord(Struct, frozen=True, kw_only=True):
    """An upload as it is stored; its offset is the length of its file."""

    id: str
    owner_id: str
    owner: str
    name: str
    size_bytes: int
    checksum: str | None
    public: bool
    created_at: datetime


class CatalogItem(Value, frozen=True, kw_only=True):
    """A name that `os` accepts."""

    os: str
    title: str
    aliases: list[str] = []
    present: bool
    default_user: str | None = None
    minimum_memory: int | None = None
    minimum_disk: int | None = None
