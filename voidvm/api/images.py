"""Images and the catalogue."""

from __future__ import annotations

from voidvm import errors
from voidvm.api.paging import Page, PageQuery, page_of
from voidvm.api.routing import Answer, Call, Nothing, endpoint
from voidvm.domain.image import CatalogItem, Image, ImageKind
from voidvm.domain.permission import Permission
from voidvm.domain.vm import Value


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
    "GET",
    "/images/{image}",
    access=Permission.IMAGE_READ,
    returns=Image,
    errors=(errors.ImageNotFound,),
)
async def get_image(call: Call[Nothing, Nothing]) -> Answer:
    """One image, by id or name."""
    return Answer(data=await call.services.images.get(call.principal, call.path["image"]))
