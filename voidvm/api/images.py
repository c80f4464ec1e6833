"""Images, the catalogue, and bringing images in."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sanic import Request

from voidvm import errors
from voidvm.api.paging import Page, PageQuery, page_of
from voidvm.api.routing import Answer, Call, Nothing, accepted, endpoint
from voidvm.domain.etag import etag
from voidvm.domain.image import (
    CatalogItem,
    Image,
    ImageCreate,
    ImageKind,
    ImagePatch,
    Upload,
    UploadCreate,
)
from voidvm.domain.operation import Operation
from voidvm.domain.permission import Permission
from voidvm.domain.vm import Value
from voidvm.services.uploads import parse_offset

OFFSET_STREAM = "application/offset+octet-stream"


class ImageList(Value, frozen=True, kw_only=True):
    """A page of images."""

    images: list[Image]
    pagination: Page


class ImageQuery(PageQuery, frozen=True, kw_only=True):
    """Filters of the list of images."""

    kind: ImageKind | None = None


class Catalog(Value, frozen=True, kw_only=True):
    """The names that `os` accepts."""

    images: list[CatalogItem]


@endpoint("GET", "/images", access=Permission.IMAGE_READ, query=ImageQuery, returns=ImageList)
async def list_images(call: Call[Nothing, ImageQuery]) -> Answer:
    """List the images that the caller may use."""
    query = call.query
    images, total = await call.services.images.page(
        call.principal, kind=query.kind, page=query.page, limit=query.limit
    )
    return Answer(data=ImageList(images=images, pagination=page_of(query, total)))


@endpoint("GET", "/images/catalog", access=Permission.IMAGE_READ, returns=Catalog)
async def list_catalog(call: Call[Nothing, Nothing]) -> Answer:
    """The operating systems that a VM can be made from, and which are here already."""
    return Answer(data=Catalog(images=await call.services.images.catalog()))


@endpoint(
    "POST",
    "/images",
    access=Permission.IMAGE_WRITE,
    body=ImageCreate,
    returns=Operation,
    status=202,
    done=("Accepted: the image is fetched.", "已接受：正在获取镜像。"),
    errors=(errors.UnknownOs, errors.ImageNotReady, errors.NameTaken, errors.NoSpace),
)
async def create_image(call: Call[ImageCreate, Nothing]) -> Answer:
    """Fetch an image from an address or from the catalogue; goes on as an operation."""
    return accepted(await call.services.imports.create(call.principal, call.body))


@endpoint(
    "GET",
    "/images/{image}",
    access=Permission.IMAGE_READ,
    returns=Image,
    errors=(errors.ImageNotFound,),
)
async def get_image(call: Call[Nothing, Nothing]) -> Answer:
    """One image, by id or name."""
    return Answer(data=await call.services.images.get(call.principal, call.path["image"]))


@endpoint(
    "PATCH",
    "/images/{image}",
    access=Permission.IMAGE_WRITE,
    body=ImagePatch,
    returns=Image,
    done=("Image changed.", "镜像已修改。"),
    errors=(
        errors.ImageNotFound,
        errors.NameTaken,
        errors.ImageInUse,
        errors.PreconditionFailed,
    ),
)
async def change_image(call: Call[ImagePatch, Nothing]) -> Answer:
    """Rename an image; admins also publish it."""
    image = await call.services.images.change(
        call.principal, call.path["image"], call.body, precondition=call.precondition
    )
    return Answer(data=image)


@endpoint(
    "DELETE",
    "/images/{image}",
    access=Permission.IMAGE_WRITE,
    done=("Image deleted.", "镜像已删除。"),
    errors=(errors.ImageNotFound, errors.ImageInUse, errors.PreconditionFailed),
)
async def delete_image(call: Call[Nothing, Nothing]) -> Answer:
    """Delete an image that no VM is made from."""
    await call.services.images.delete(
        call.principal, call.path["image"], precondition=call.precondition
    )
    return Answer(data=None)


@endpoint(
    "POST",
    "/images/uploads",
    access=Permission.IMAGE_WRITE,
    body=UploadCreate,
    returns=Upload,
    status=201,
    done=("Upload begun: send its bytes.", "上传已开始：请发送数据。"),
    errors=(errors.NameTaken, errors.NoSpace),
)
async def create_upload(call: Call[UploadCreate, Nothing]) -> Answer:
    """Begin to send an image in pieces."""
    upload = await call.services.uploads.create(call.principal, call.body)
    call.request.ctx.target = upload.upload_id
    headers = {
        "location": f"/api/v1/images/uploads/{upload.upload_id}",
        **_offset_headers(upload),
    }
    return Answer(data=upload, headers=headers)


@endpoint(
    "GET",
    "/images/uploads/{upload}",
    access=Permission.IMAGE_WRITE,
    returns=Upload,
    errors=(errors.UploadNotFound,),
)
async def get_upload(call: Call[Nothing, Nothing]) -> Answer:
    """How many bytes of an upload have arrived; also in `Upload-Offset`."""
    upload = await call.services.uploads.get(call.principal, call.path["upload"])
    return Answer(data=upload, headers=_offset_headers(upload))


@endpoint(
    "PATCH",
    "/images/uploads/{upload}",
    access=Permission.IMAGE_WRITE,
    returns=Upload,
    done=("Bytes received.", "数据已接收。"),
    errors=(
        errors.UploadNotFound,
        errors.UploadOffsetConflict,
        errors.NoSpace,
        errors.PreconditionFailed,
    ),
    streams=OFFSET_STREAM,
)
async def append_upload(call: Call[Nothing, Nothing]) -> Answer:
    """Send the next bytes, from `Upload-Offset` on, as `application/offset+octet-stream`."""
    offset = parse_offset(call.request.headers.get("upload-offset"))
    upload = await call.services.uploads.append(
        call.principal,
        call.path["upload"],
        offset=offset,
        body=_pieces(call.request),
        precondition=call.precondition,
    )
    return Answer(data=upload, headers=_offset_headers(upload))


@endpoint(
    "DELETE",
    "/images/uploads/{upload}",
    access=Permission.IMAGE_WRITE,
    done=("Upload given up.", "上传已放弃。"),
    errors=(errors.UploadNotFound, errors.PreconditionFailed),
)
async def delete_upload(call: Call[Nothing, Nothing]) -> Answer:
    """Give an upload up; its bytes are gone."""
    await call.services.uploads.delete(
        call.principal, call.path["upload"], precondition=call.precondition
    )
    return Answer(data=None)


def _offset_headers(upload: Upload) -> dict[str, str]:
    return {
        "upload-offset": str(upload.offset),
        "upload-length": str(upload.size_bytes),
        "etag": etag(upload.upload_id, upload.offset),
        "tus-resumable": "1.0.0",
    }


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    while (piece := await request.stream.read()) is not None:
        if piece:
            yield piece
