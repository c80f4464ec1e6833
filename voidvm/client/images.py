"""Images, the catalogue, and bringing images in."""

from __future__ import annotations

import builtins
import hashlib
import os
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Unpack

from voidvm.client.errors import ApiError, Unreachable
from voidvm.client.flavours import Bound, F, call, flow, stream
from voidvm.client.inputs import (
    ImageCreateFields,
    ImagePatchFields,
    ImageQuery,
    UploadCreateFields,
)
from voidvm.client.operations import OnProgress, Operation, Started, look, tell
from voidvm.client.paging import iterated, listed
from voidvm.client.record import Page, Record
from voidvm.client.requests import Json, Many, One, Paged, Ref, Request, body_of, nothing, request
from voidvm.client.types import CatalogItem, Image, Progress, Upload

PIECE_BYTES: Final = 8 * 1024**2
STREAM: Final = "application/offset+octet-stream"
# A service that restarts is away for seconds.
TRIES: Final = 8
_PACKED: Final = (".gz", ".xz", ".zst")
_PASSING: Final = frozenset({409, 429, 503})


File = str | os.PathLike[str] | BinaryIO


class Images(Bound[F]):
    """What VMs can be made from; each is named by id, name or as answered."""

    @call
    def page(self, **query: Unpack[ImageQuery]) -> Request[Page[Image]]:
        """One page of them."""
        return request("GET", "/images", Paged("images", Image), query=query)

    @stream
    async def iterate(self, **query: Unpack[ImageQuery]) -> AsyncGenerator[Image, None]:
        """All that fit, page by page as they are needed."""
        async for image in iterated(self, Images.page.build, query):
            yield image

    @flow
    async def list(self, **query: Unpack[ImageQuery]) -> Page[Image]:
        """All that fit; with `page` or `limit` only that page."""
        return await listed(self, Images.page.build, query)

    @call
    def catalog(self) -> Request[builtins.list[CatalogItem]]:
        """The operating systems that a VM can be made from, and which are here already."""
        return request("GET", "/images/catalog", Many("images", CatalogItem))

    @call
    def create(
        self, body: Mapping[str, Json] | None = None, **fields: Unpack[ImageCreateFields]
    ) -> Request[Operation[F]]:
        """Have an image fetched: `os` of the catalogue, or `name` and `url`."""
        return request("POST", "/images", Started(), body=body_of(body, fields))

    @call
    def get(self, image: Ref) -> Request[Image]:
        """One image, by id or name."""
        return request("GET", "/images/{image}", One(Image), image)

    @call
    def update(
        self,
        image: Ref,
        body: Mapping[str, Json] | None = None,
        *,
        if_match: Record | str | None = None,
        **fields: Unpack[ImagePatchFields],
    ) -> Request[Image]:
        """Rename an image; admins also publish it."""
        patch = body_of(body, fields)
        path = "/images/{image}"
        return request("PATCH", path, One(Image), image, body=patch, if_match=if_match)

    @call
    def delete(self, image: Ref, *, if_match: Record | str | None = None) -> Request[None]:
        """Delete an image that no VM is made from."""
        return request("DELETE", "/images/{image}", nothing, image, if_match=if_match)

    @flow
    async def upload(
        self,
        file: File,
        *,
        name: str | None = None,
        public: bool = False,
        progress: OnProgress | None = None,
    ) -> Operation[F]:
        """Send an image, in pieces and with its checksum; what the service makes of it goes on.

        It is `Uploads.begin` and `Uploads.send`, for who has no need to go on later. A broken
        connection is resumed.
        """
        opened = await self.core.io.do(lambda: _opened(file))
        try:
            upload = await _begun(self, opened, name=name, public=public, progress=progress)
            operation = await _sent(self, upload, opened, progress)
        finally:
            if opened is not file:
                opened.close()
        return await self.core.send(look(operation, 0))


class Uploads(Bound[F]):
    """Images on their way to the service, in pieces."""

    @call
    def create(
        self, body: Mapping[str, Json] | None = None, **fields: Unpack[UploadCreateFields]
    ) -> Request[Upload]:
        """Begin to send an image of `size_bytes`."""
        return request("POST", "/images/uploads", One(Upload), body=body_of(body, fields))

    @call
    def get(self, upload: Ref) -> Request[Upload]:
        """How many bytes have arrived."""
        return request("GET", "/images/uploads/{upload}", One(Upload), upload)

    @call
    def append(
        self,
        upload: Ref,
        data: bytes,
        *,
        offset: int,
        if_match: Record | str | None = None,
    ) -> Request[Upload]:
        """Send the next bytes; `offset` is how many have arrived."""
        return request(
            "PATCH",
            "/images/uploads/{upload}",
            One(Upload),
            upload,
            content=data,
            headers={"content-type": STREAM, "upload-offset": str(offset)},
            if_match=if_match,
        )

    @call
    def delete(self, upload: Ref, *, if_match: Record | str | None = None) -> Request[None]:
        """Give an upload up; its bytes are gone."""
        return request("DELETE", "/images/uploads/{upload}", nothing, upload, if_match=if_match)

    @flow
    async def begin(
        self,
        file: File,
        *,
        name: str | None = None,
        public: bool = False,
        progress: OnProgress | None = None,
    ) -> Upload:
        """Begin to send a file; `name` is by default the file's.

        `progress` is called with the stage, `checksum` here and `upload` in `send`, and its bytes.
        """
        opened = await self.core.io.do(lambda: _opened(file))
        try:
            return await _begun(self, opened, name=name, public=public, progress=progress)
        finally:
            if opened is not file:
                opened.close()

    @flow
    async def send(
        self,
        upload: Ref,
        file: File,
        *,
        progress: OnProgress | None = None,
    ) -> Operation[F]:
        """Send what is missing of an upload; the operation that goes on with the image."""
        opened = await self.core.io.do(lambda: _opened(file))
        try:
            begun = await Uploads.get.of(self, upload)
            operation = await _sent(self, begun, opened, progress)
        finally:
            if opened is not file:
                opened.close()
        return await self.core.send(look(operation, 0))


async def _begun(
    owner: Bound[Any],
    file: BinaryIO,
    *,
    name: str | None,
    public: bool,
    progress: OnProgress | None,
) -> Upload:
    size = await owner.core.io.do(lambda: file.seek(0, os.SEEK_END))
    wanted = {
        "name": name or name_of(str(getattr(file, "name", ""))),
        "sizeBytes": size,
        "checksum": f"sha256:{await _digest(owner, file, size, progress)}",
        "public": public,
    }
    return await Uploads.create.of(owner, wanted)


async def _sent(
    owner: Bound[Any], upload: Upload, file: BinaryIO, progress: OnProgress | None
) -> str:
    """Send what is missing; the id of the operation that goes on with it."""
    io, failures, pause_s = owner.core.io, 0, 0.5
    while upload.operation_id is None:
        at = upload.offset
        await tell(progress, _stage("upload", at, upload.size_bytes))
        piece = await io.do(partial(_piece, file, at))
        try:
            upload = await Uploads.append.of(owner, upload, piece, offset=at)
            failures, pause_s = 0, 0.5
        except (Unreachable, ApiError) as error:
            failures += 1
            is_lasting = isinstance(error, ApiError) and error.status not in _PASSING
            if is_lasting or failures > TRIES:
                raise
            await io.sleep(pause_s)
            pause_s = min(2 * pause_s, 8)
            upload = await _stand(owner, upload)
    await tell(progress, _stage("upload", upload.size_bytes, upload.size_bytes))
    return upload.operation_id


async def _stand(owner: Bound[Any], upload: Upload) -> Upload:
    """How far the upload is; as far as it was while the service does not answer."""
    try:
        return await Uploads.get.of(owner, upload)
    except Unreachable:
        return upload


async def _digest(owner: Bound[Any], file: BinaryIO, size: int, progress: OnProgress | None) -> str:
    digest, at = hashlib.sha256(), 0

    def take() -> int:
        piece = _piece(file, at)
        digest.update(piece)
        return len(piece)

    while length := await owner.core.io.do(take):
        at += length
        await tell(progress, _stage("checksum", at, size))
    return digest.hexdigest()


def _piece(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(PIECE_BYTES)


def _stage(stage: str, done: int, total: int) -> Progress:
    percent = 100 * done / total if total else None
    return Progress({"stage": stage, "percent": percent, "bytesDone": done, "bytesTotal": total})


def _opened(file: File) -> BinaryIO:
    return Path(file).open("rb") if isinstance(file, str | os.PathLike) else file


def name_of(path: str) -> str:
    """A file's name without what says how it is packed and stored; "" if nothing is left."""
    found = Path(path)
    if found.suffix in _PACKED:
        found = found.with_suffix("")
    return found.stem or found.name
