"""Images sent in pieces: resumable at any byte, whatever breaks in between."""

from __future__ import annotations

import gzip
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.contract import Api, Json
from tests.support.disks import MIB, content, iso, qcow2
from tests.support.operations import (
    STREAM,
    append,
    check_images,
    ended,
    failed,
    image_file,
    leftovers,
    sha256,
    succeeded,
    upload,
)
from tests.support.service import Service, eventually

LIMIT = 256 * MIB


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A running service that takes uploads up to a limit."""
    service = Service(VOIDVM_LIMITS__UPLOAD_BYTES=str(LIMIT))
    try:
        service.start()
        yield service
        check_images(service, service.api())
    finally:
        service.close()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return qcow2(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def other(service: Service, api: Api) -> Api:
    password = "a long password 1"
    api.ok("POST", "/users", {"username": "other", "password": password})
    return service.api(username="other", password=password)


def begin(api: Api, data: bytes, name: str, **more: Json) -> str:
    body = {"name": name, "sizeBytes": len(data), "checksum": sha256(data), **more}
    begun = api.ok("POST", "/images/uploads", body)
    assert begun["offset"] == 0
    upload_id: str = begun["uploadId"]
    return upload_id


def offset(api: Api, upload_id: str) -> int:
    answer = api.call("GET", f"/images/uploads/{upload_id}")
    assert answer.headers["tus-resumable"] == "1.0.0"
    at: int = answer.json()["data"]["offset"]
    assert answer.headers["upload-offset"] == str(at)
    return at


def patch(api: Api, upload_id: str, at: object, data: bytes, **headers: str) -> httpx.Response:
    fields = {"content-type": STREAM, "upload-offset": str(at), **headers}
    return api.call("PATCH", f"/images/uploads/{upload_id}", content=data, headers=fields)


def cut_off(
    service: Service, api: Api, upload_id: str, at: int, data: bytes, promised: int
) -> None:
    """Promise so many bytes, send fewer, and hang up."""
    head = (
        f"PATCH /api/v1/images/uploads/{upload_id} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {api.token}\r\nContent-Type: {STREAM}\r\n"
        f"Upload-Offset: {at}\r\nContent-Length: {promised}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port)) as line:
        line.sendall(head.encode() + data)
        eventually(lambda: offset(api, upload_id) == at + len(data) or None)


def test_an_upload_arrives_in_pieces_of_any_size(service: Service, api: Api, disk: bytes) -> None:
    upload_id = begin(api, disk, "pieces")
    dice = random.Random(4)  # noqa: S311 - the same sizes each time
    at = 0
    found: Json = {}
    while at < len(disk):
        size = dice.choice((1, 2, 4095, 65_537, dice.randrange(1, 900_000)))
        found = append(api, upload_id, at, disk[at : at + size])
        at = min(at + size, len(disk))
        assert found["offset"] == at
        assert (found["operationId"] is None) is (at < len(disk))
    operation = succeeded(api, found["operationId"])
    assert operation["type"] == "image-upload"
    image = api.ok("GET", "/images/pieces")
    assert (image["kind"], image["checksum"]) == ("disk", sha256(disk))
    assert image["virtualSizeBytes"] == 4 * MIB
    # Who has missed the last answer still learns how it ended.
    again = api.ok("GET", f"/images/uploads/{upload_id}")
    assert (again["offset"], again["operationId"]) == (len(disk), found["operationId"])
    assert leftovers(service, api) == []


def test_a_connection_that_breaks_keeps_what_has_arrived(
    service: Service, api: Api, disk: bytes
) -> None:
    upload_id = begin(api, disk, "broken")
    at = 0
    for size in (1, 70_000, 1_234_567):
        cut_off(service, api, upload_id, at, disk[at : at + size], promised=len(disk) - at)
        at += size
        assert offset(api, upload_id) == at
    found = append(api, upload_id, at, disk[at:])
    succeeded(api, found["operationId"])
    assert api.ok("GET", "/images/broken")["checksum"] == sha256(disk)


def test_it_goes_on_after_a_restart_and_after_a_crash(
    service: Service, api: Api, disk: bytes
) -> None:
    upload_id = begin(api, disk, "restarts")
    third = len(disk) // 3
    append(api, upload_id, 0, disk[:third])
    service.kill()
    service.start()
    assert offset(api, upload_id) == third
    cut_off(service, api, upload_id, third, disk[third : third + 1000], promised=third)
    service.stop()
    service.start()
    at = offset(api, upload_id)
    assert at == third + 1000
    found = append(api, upload_id, at, disk[at:])
    succeeded(api, found["operationId"])
    assert api.ok("GET", "/images/restarts")["checksum"] == sha256(disk)


def test_a_crash_in_the_middle_of_a_piece_leaves_an_offset_to_go_on_from(
    service: Service, api: Api, disk: bytes
) -> None:
    upload_id = begin(api, disk, "mid-crash")
    with socket.create_connection(("127.0.0.1", service.port)) as line:
        line.sendall(
            f"PATCH /api/v1/images/uploads/{upload_id} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {api.token}\r\nContent-Type: {STREAM}\r\n"
            f"Upload-Offset: 0\r\nContent-Length: {len(disk)}\r\n\r\n".encode()
            + disk[:3_000_000]
        )
        eventually(lambda: offset(api, upload_id) > 100_000 or None)
        service.kill()
    service.start()
    at = offset(api, upload_id)
    assert 100_000 < at <= 3_000_000
    succeeded(api, append(api, upload_id, at, disk[at:])["operationId"])


def test_a_crash_after_the_last_byte_loses_nothing(service: Service, api: Api, disk: bytes) -> None:
    upload_id = begin(api, disk, "last-byte")
    first = append(api, upload_id, 0, disk)["operationId"]
    service.kill()
    service.start()
    if ended(api, first)["status"] == "interrupted":
        again = api.ok("GET", f"/images/uploads/{upload_id}")["operationId"]
        assert again != first
        succeeded(api, again)
    assert api.ok("GET", "/images/last-byte")["checksum"] == sha256(disk)
    assert leftovers(service, api) == []


def test_another_offset_is_refused_with_the_right_one(api: Api, disk: bytes) -> None:
    upload_id = begin(api, disk, "offsets")
    append(api, upload_id, 0, disk[:1000])
    for wrong in (0, 999, 1001, len(disk)):
        answer = patch(api, upload_id, wrong, disk[wrong : wrong + 3_000_000] or b"x")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["details"], error["retryable"]) == (
            409, "UPLOAD_OFFSET_CONFLICT", "1000", True,
        )  # fmt: skip
        assert offset(api, upload_id) == 1000
    for nonsense in ("", "-1", "1e3", "0x1", "1 000", "9" * 40):
        response = patch(api, upload_id, nonsense, b"x")
        assert response.status_code == 400, nonsense
        assert response.json()["error"]["errors"][0]["field"] == "Upload-Offset"
    api.ok("DELETE", f"/images/uploads/{upload_id}")


def test_more_bytes_than_promised_are_refused_and_those_before_stay(
    service: Service, api: Api, disk: bytes
) -> None:
    upload_id = begin(api, disk, "too-many")
    append(api, upload_id, 0, disk[:-10])
    answer = patch(api, upload_id, len(disk) - 10, disk[-10:] + b"more")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    at = offset(api, upload_id)
    assert at <= len(disk)
    api.ok("DELETE", f"/images/uploads/{upload_id}")
    assert leftovers(service, api) == []


def test_two_writers_at_once_do_not_mix(api: Api, disk: bytes) -> None:
    upload_id = begin(api, disk, "writers")
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: patch(api, upload_id, 0, disk[:2_000_000]), range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    assert offset(api, upload_id) == 2_000_000
    succeeded(api, append(api, upload_id, 2_000_000, disk[2_000_000:])["operationId"])


def test_a_wrong_checksum_fails_and_leaves_nothing(service: Service, api: Api, disk: bytes) -> None:
    operation = upload(api, disk, "wrong-sum", checksum="sha512:" + "0" * 128)
    error = failed(api, operation, "CHECKSUM_MISMATCH")
    assert "sha512:" in error["details"]
    api.refused("GET", "/images/wrong-sum", "IMAGE_NOT_FOUND")
    assert leftovers(service, api) == []


def test_an_upload_can_be_given_up_at_any_time(service: Service, api: Api, disk: bytes) -> None:
    early = begin(api, disk, "early")
    append(api, early, 0, disk[:5000])
    api.ok("DELETE", f"/images/uploads/{early}")
    api.refused("GET", f"/images/uploads/{early}", "UPLOAD_NOT_FOUND")
    late = begin(api, disk, "late")
    operation = append(api, late, 0, disk)["operationId"]
    api.ok("DELETE", f"/images/uploads/{late}")
    # Either it was quicker, or nothing of it is left.
    status = ended(api, operation)["status"]
    assert status in {"cancelled", "succeeded"}
    names = [image["name"] for image in api.ok("GET", "/images")["images"]]
    assert ("late" in names) is (status == "succeeded")
    assert leftovers(service, api) == []


def test_giving_up_while_bytes_come_in_ends_both(service: Service, api: Api, disk: bytes) -> None:
    upload_id = begin(api, disk, "midway")
    head = (
        f"PATCH /api/v1/images/uploads/{upload_id} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {api.token}\r\nContent-Type: {STREAM}\r\n"
        f"Upload-Offset: 0\r\nContent-Length: {len(disk)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        line.sendall(head + disk[:1000])
        eventually(lambda: offset(api, upload_id) or None)
        api.ok("DELETE", f"/images/uploads/{upload_id}")
        line.sendall(disk[1000:2000])
        assert line.recv(4096).startswith(b"HTTP/1.1 404")
    assert leftovers(service, api) == []


def test_an_upload_of_somebody_else_is_not_there(api: Api, other: Api, disk: bytes) -> None:
    mine = begin(api, disk, "mine")
    append(api, mine, 0, disk[:1000])
    other.refused("GET", f"/images/uploads/{mine}", "UPLOAD_NOT_FOUND")
    assert patch(other, mine, 1000, disk[1000:]).status_code == 404
    other.refused("DELETE", f"/images/uploads/{mine}", "UPLOAD_NOT_FOUND")
    assert patch(api.as_user(None), mine, 1000, b"x").status_code == 401
    assert offset(api, mine) == 1000
    api.ok("DELETE", f"/images/uploads/{mine}")
    operation = upload(other, disk, "theirs")
    succeeded(other, operation)
    assert other.ok("GET", "/images/theirs")["public"] is False
    other.refused("POST", "/images/uploads", "FORBIDDEN", {
        "name": "everybodys", "sizeBytes": 5, "public": True,
    })  # fmt: skip


def test_only_a_stream_of_bytes_is_taken(api: Api, disk: bytes) -> None:
    upload_id = begin(api, disk, "types")
    for kind in ("application/json", "multipart/form-data", "", "text/plain"):
        answer = patch(api, upload_id, 0, disk[:100], **{"content-type": kind})
        assert answer.status_code == 415, kind
        assert STREAM in answer.json()["error"]["hint"]
    assert offset(api, upload_id) == 0
    api.ok("DELETE", f"/images/uploads/{upload_id}")


def test_the_limit_holds_for_uploads_and_for_what_they_unpack_to(
    service: Service, api: Api, tmp_path: Path
) -> None:
    body = {"name": "big", "sizeBytes": LIMIT + 1}
    error = api.refused("POST", "/images/uploads", "PAYLOAD_TOO_LARGE", body)
    assert str(LIMIT) in error["details"]
    for size in (0, -1, 1.5, "x"):
        api.refused(
            "POST", "/images/uploads", "VALIDATION_ERROR", {"name": "big", "sizeBytes": size}
        )
    bomb = gzip.compress(bytes(LIMIT + MIB), 9)
    assert len(bomb) < MIB
    error = failed(api, upload(api, bomb, "bomb"), "IMAGE_TOO_LARGE")
    assert "larger than allowed" in error["details"]
    assert leftovers(service, api) == []


def test_the_limit_of_json_bodies_does_not_hold_for_uploads(api: Api) -> None:
    answer = api.call("POST", "/images/uploads", json={"name": "x" * 2 * MIB, "sizeBytes": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    disc = iso(("big.bin", content(3 * MIB)))
    succeeded(api, upload(api, disc, "large-cd"))
    assert api.ok("GET", "/images/large-cd")["sizeBytes"] == len(disc)


def test_a_name_that_is_taken_is_refused_first(api: Api, disk: bytes) -> None:
    disc = iso(("a", b"a"))
    succeeded(api, upload(api, disc, "taken"))
    api.refused("POST", "/images/uploads", "NAME_TAKEN", {"name": "taken", "sizeBytes": 9})
    # Two at once for one name: the second finds it taken at its end.
    first, second = (begin(api, disc, "raced") for _ in range(2))
    succeeded(api, append(api, first, 0, disc)["operationId"])
    failed(api, append(api, second, 0, disc)["operationId"], "NAME_TAKEN")


def test_memory_stays_flat_while_much_passes_through(service: Service, api: Api) -> None:
    piece = content(8 * MIB)
    begun = api.ok("POST", "/images/uploads", {"name": "flat", "sizeBytes": 25 * len(piece)})
    process = psutil.Process(service.pid)
    append(api, begun["uploadId"], 0, piece)
    before, most = process.memory_info().rss, 0
    at = len(piece)
    started = time.monotonic()
    head = (
        f"PATCH /api/v1/images/uploads/{begun['uploadId']} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {api.token}\r\nContent-Type: {STREAM}\r\n"
        f"Upload-Offset: {at}\r\nContent-Length: {24 * len(piece)}\r\n\r\n"
    ).encode()
    # All in one request, without the last byte: what it becomes is no matter here.
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as line:
        line.sendall(head)
        for number in range(24):
            line.sendall(piece[:-1] if number == 23 else piece)
            most = max(most, process.memory_info().rss)
        eventually(lambda: offset(api, begun["uploadId"]) == 25 * len(piece) - 1 or None)
        most = max(most, process.memory_info().rss)
    assert most - before < 16 * MIB, f"{(most - before) / MIB:.1f} MiB more"
    assert time.monotonic() - started < 40
    api.ok("DELETE", f"/images/uploads/{begun['uploadId']}")


def test_files_of_images_are_closed_to_others(service: Service, api: Api, disk: bytes) -> None:
    succeeded(api, upload(api, disk, "closed"))
    file = image_file(service, api.ok("GET", "/images/closed"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_uid == 0
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_refusal_reaches_a_client_that_is_still_sending(api: Api, disk: bytes) -> None:
    data = content(16 * MIB)
    for _ in range(5):
        assert patch(api, "up-000000000000000000000000", 0, data).status_code == 404
