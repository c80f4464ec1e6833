"""Operations, images and uploads in few words."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.support.contract import Api, Json
from tests.support.service import Service, eventually

STREAM = "application/offset+octet-stream"
OPEN = {"pending", "running"}


def operation_of(response: httpx.Response) -> str:
    """The id of the operation that a 202 names."""
    assert response.status_code == 202, response.text
    operation: str = response.json()["data"]["id"]
    assert response.headers["location"] == f"/api/v1/operations/{operation}"
    return operation


def ended(api: Api, operation: str, *, timeout_s: float = 40) -> Json:
    """An operation that has ended, or ends within the time."""
    return eventually(
        lambda: _if_ended(api.ok("GET", f"/operations/{operation}", params={"wait": 5})),
        timeout_s=timeout_s,
    )


def _if_ended(operation: Json) -> Json | None:
    return operation if operation["status"] not in OPEN else None


def succeeded(api: Api, operation: str) -> Json:
    """An operation that ends well."""
    found = ended(api, operation)
    assert found["status"] == "succeeded", found["error"]
    return found


def failed(api: Api, operation: str, code: str) -> Json:
    """The error of an operation that ends with this code."""
    found = ended(api, operation)
    assert found["status"] == "failed", found
    assert found["error"]["code"] == code, found["error"]
    return found["error"]


def import_url(api: Api, url: str, name: str, **more: Json) -> str:
    """Begin to fetch an image; the operation's id."""
    return operation_of(api.call("POST", "/images", json={"name": name, "url": url, **more}))


def upload(api: Api, data: bytes, name: str, **more: Json) -> str:
    """Send an image in one piece; the id of the operation that goes on with it."""
    begun = api.ok("POST", "/images/uploads", {"name": name, "sizeBytes": len(data), **more})
    operation_id: str = append(api, begun["uploadId"], 0, data)["operationId"]
    return operation_id


def append(api: Api, upload_id: str, offset: int, data: bytes) -> Json:
    """Send a piece of an upload."""
    response = api.call(
        "PATCH",
        f"/images/uploads/{upload_id}",
        content=data,
        headers={"upload-offset": str(offset), "content-type": STREAM},
    )
    assert response.status_code == 200, response.text
    return response.json()["data"]


def image_file(service: Service, image: Json) -> Path:
    """The file behind an image."""
    file: Path
    (file,) = (service.data / "images" / image["id"]).iterdir()
    return file


def leftovers(service: Service, api: Api) -> list[str]:
    """What lies in the folders of images and uploads without belonging to an image."""
    known = {image["id"] for image in api.ok("GET", "/images", params={"limit": 200})["images"]}
    found = [path.name for path in (service.data / "images").iterdir() if path.name not in known]
    uploads = service.data / "uploads"
    return sorted([*found, *(path.name for path in uploads.glob("*"))])


def check_images(service: Service, api: Api) -> int:
    """Fail unless every image that is listed is whole; how many there are."""
    images = api.ok("GET", "/images", params={"limit": 200})["images"]
    for image in images:
        file = image_file(service, image)
        assert file.stat().st_size == image["sizeBytes"], image
        if image["format"] == "qcow2":
            qemu_img("check", "-f", "qcow2", file)
            assert virtual_size(file) == image["virtualSizeBytes"], image
    return len(images)


def qemu_img(*arguments: object) -> str:
    """What qemu-img says; fails unless it succeeds."""
    command = ["qemu-img", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout


def virtual_size(file: Path) -> int:
    """The size of the disk in a qcow2 file, from its header."""
    return int.from_bytes(file.read_bytes()[24:32], "big")


def sha256(data: bytes) -> str:
    """A checksum as the API takes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def once(look: Callable[[], Json], *, timeout_s: float = 20) -> Json:
    """The first true thing that a look at the API answers, asked ten times a second."""
    return eventually(look, timeout_s=timeout_s)
