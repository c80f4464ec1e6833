"""Images and the catalogue, as far as they can be read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from unittest import mock

import msgspec
import pytest

from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.people import person
from voidvm.domain.checksums import Digest
from voidvm.domain.image import Image
from voidvm.errors import CommandFailed
from voidvm.operations.progress import ProgressSink
from voidvm.services.admission import Admitted
from voidvm.services.imports import Target


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


def test_an_image_that_an_admins_vm_names_is_kept(local: LocalService, api: Api, name: str) -> None:
    ada, store = person(local, api), local.services.images._store
    found = local.run(store.get(api.ok("GET", "/images/tiny")["id"]))
    assert found is not None
    hers = msgspec.structs.replace(
        found, id="img-" + name, name=name, os=None, kind="iso", public=False, owner=ada.id
    )
    local.run(store.insert(hers))
    vm = api.create(name, os=None, iso=name)["id"]
    assert ada.api.refused("DELETE", f"/images/{name}", "IMAGE_IN_USE")["details"] == name
    # An image of the admin's own goes before hers.
    me = api.ok("GET", "/auth/me")["id"]
    local.run(store.insert(msgspec.structs.replace(hers, id=f"img-{name}-2", owner=me)))
    ada.api.ok("DELETE", f"/images/{name}")
    api.refused("DELETE", f"/images/{name}", "IMAGE_IN_USE")
    api.remove(vm)
    api.ok("DELETE", f"/images/{name}")


def test_an_import_that_is_cancelled_while_it_is_registered_leaves_nothing(
    local: LocalService, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports = local.services.imports
    store, draft = imports._store, imports._draft()
    (draft / "made").write_bytes(b"x")
    made = Admitted(file=draft / "made", kind="iso", format="iso", virtual_size_bytes=1)
    monkeypatch.setattr(imports._admission, "admit", mock.AsyncMock(return_value=made))
    insert, seen = store.insert, list[Image]()

    async def cut_off() -> None:
        begun, may_go_on = asyncio.Event(), asyncio.Event()

        async def slowly(image: Image, *, replace: bool = False) -> Image | None:
            seen.append(image)
            begun.set()
            await may_go_on.wait()
            return await insert(image, replace=replace)

        monkeypatch.setattr(store, "insert", slowly)
        work = imports.admit(
            made.file,
            Digest(algorithm="sha256", hex="0"),
            Target(name=name, owner_id=None, public=True),
            ProgressSink(lambda _: None),
            draft=draft,
        )
        task = asyncio.create_task(work)
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    local.run(cut_off())
    assert local.run(store.get(seen[0].id)) is None
    assert not (local.folder / "d" / "images" / seen[0].id).exists()
    draft.rmdir()
