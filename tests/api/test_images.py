"""Images and the catalogue, as far as they can be read."""

from __future__ import annotations

import msgspec
import pytest

from tests.support.contract import Api
from tests.support.local import LocalService
from voidvm.errors import CommandFailed


def test_images_are_listed_by_kind(api: Api) -> None:
    assert [image["name"] for image in api.ok("GET", "/images")["images"]] == [
        "tiny",
        "tiny-initramfs",
        "tiny-vmlinuz",
    ]
    kernels = api.ok("GET", "/images", params={"kind": "kernel", "limit": 1})
    assert [image["name"] for image in kernels["images"]] == ["tiny-initramfs"]
    assert kernels["pagination"] == {"page": 1, "limit": 1, "total": 2, "pages": 2}
    assert api.ok("GET", "/images", params={"kind": "iso"})["images"] == []


def test_an_image_is_found_by_id_and_name(api: Api) -> None:
    image = api.ok("GET", "/images/tiny")
    assert api.ok("GET", f"/images/{image['id']}") == image
    assert (image["kind"], image["format"], image["os"]) == ("disk", "qcow2", "tiny")
    assert image["checksum"].startswith("sha256:")
    assert (image["public"], image["status"]) == (True, "ready")
    assert image["sizeBytes"] > 0


def test_an_image_that_is_not_there_is_404(api: Api) -> None:
    error = api.refused("GET", "/images/nowhere", "IMAGE_NOT_FOUND")
    assert error["message"] == "There is no image 'nowhere'."


def test_the_catalogue_says_what_is_here(api: Api) -> None:
    entries = {entry["os"]: entry for entry in api.ok("GET", "/images/catalog")["images"]}
    assert entries["tiny"]["present"] is True
    assert [name for name, entry in entries.items() if entry["present"]] == ["tiny"]
    assert entries["ubuntu20.04"]["minimumMemory"] >= 128
    assert "debian12" in entries


def test_an_image_that_is_built_here_is_not_fetched(api: Api) -> None:
    assert "tiny" in [image["name"] for image in api.ok("GET", "/images")["images"]]
    api.refused("POST", "/images", "NAME_TAKEN", {"os": "tiny"})


def test_an_image_that_goes_while_a_vm_is_made_is_told(
    local: LocalService, api: Api, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = local.services.images
    found = local.run(images.by_id(api.ok("GET", "/images/tiny")["id"]))
    base = msgspec.structs.replace(found, id="img-" + name, name=name, os=None, public=False)
    local.run(images._store.insert(base))

    async def make_files(*_: object) -> None:
        await images._store.delete(base.id)
        raise CommandFailed("no such file", tool="qemu-img")

    monkeypatch.setattr(local.services.creation, "_make_files", make_files)
    api.refused("POST", "/vms", "IMAGE_NOT_FOUND", {"name": name, "image": name})
