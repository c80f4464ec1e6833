"""Downloads from a real server on loopback: resumed, restarted, bounded, verified."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.downloading import BODY, CAP, HASTY, SHA256, SILENT, downloads, refused
from tests.support.webserver import Call, WebServer, breaking_after, dripping
from voidvm.domain.checksums import Digest
from voidvm.errors import (
    ChecksumMismatch,
    DownloadFailed,
    DownloadRefused,
    ImageTooLarge,
    NoSpace,
)
from voidvm.services.downloads import Download
from voidvm.services.transfer import Patience


async def test_a_file_arrives_whole_with_its_checksum_and_progress(
    web: WebServer, target: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    got = await downloads().fetch(
        web.file("/disk", BODY),
        target,
        cap_bytes=len(BODY),
        checksum=SHA256,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert got == Download(size_bytes=len(BODY), digest=SHA256)
    assert target.read_bytes() == BODY
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["image"]
    assert seen == sorted(seen)
    assert seen[-1] == (len(BODY), len(BODY))
    assert len(seen) >= 3


async def test_a_sha512_is_computed_when_it_is_asked_for(web: WebServer, target: Path) -> None:
    wanted = Digest(algorithm="sha512", hex=hashlib.sha512(BODY).hexdigest())
    got = await downloads().fetch(web.file("/disk", BODY), target, cap_bytes=CAP, checksum=wanted)
    assert got.digest == wanted


async def test_another_checksum_leaves_no_file(web: WebServer, target: Path) -> None:
    wanted = Digest(algorithm="sha256", hex="0" * 64)
    with pytest.raises(ChecksumMismatch, match="Expected sha256:0000"):
        await downloads().fetch(web.file("/disk", BODY), target, cap_bytes=CAP, checksum=wanted)
    assert list(target.parent.iterdir()) == []


async def test_a_broken_connection_is_resumed_where_it_broke(web: WebServer, target: Path) -> None:
    url = web.on("/disk", breaking_after(BODY, 700_000))
    got = await downloads().fetch(url, target, cap_bytes=CAP, checksum=SHA256)
    assert got.size_bytes == len(BODY)
    assert target.read_bytes() == BODY
    starts = [call.start for call in web.calls]
    assert starts == [0, 700_000, 1_400_000, 2_100_000, 2_800_000]
    assert {call.headers.get("if-range") for call in web.calls[1:]} == {'"v1"'}


async def test_a_file_that_changed_meanwhile_is_fetched_anew(web: WebServer, target: Path) -> None:
    def answer(call: Call) -> None:
        if len(web.calls) == 1:
            call.head(200, Content_Length=5000, ETag='"old"')
            call.send(b"o" * 2000)
        else:
            assert call.headers["if-range"] == '"old"'
            call.head(200, Content_Length=len(BODY), ETag='"v1"')
            call.send(BODY)

    await downloads().fetch(web.on("/disk", answer), target, cap_bytes=CAP, checksum=SHA256)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
async def test_without_a_strong_validator_the_file_is_fetched_anew(
    web: WebServer, target: Path, etag: str | None
) -> None:
    def answer(call: Call) -> None:
        fields: dict[str, object] = {"Content_Length": len(BODY)} | ({"ETag": etag} if etag else {})
        call.head(200, **fields)
        call.send(BODY if len(web.calls) > 1 else BODY[:5000])

    await downloads().fetch(web.on("/disk", answer), target, cap_bytes=CAP, checksum=SHA256)
    assert "range" not in web.calls[1].headers


async def test_last_modified_serves_as_validator(web: WebServer, target: Path) -> None:
    day = "Mon, 01 Jun 2026 10:00:00 GMT"

    def answer(call: Call) -> None:
        call.head(
            206 if call.start else 200,
            Content_Length=len(BODY) - call.start,
            Last_Modified=day,
            Content_Range=f"bytes {call.start}-{len(BODY) - 1}/{len(BODY)}",
        )
        call.send(BODY[call.start :] if call.start else BODY[:5000])

    await downloads().fetch(web.on("/disk", answer), target, cap_bytes=CAP, checksum=SHA256)
    assert web.calls[1].headers["if-range"] == day


@pytest.mark.parametrize(
    "content_range", ["bytes 0-99/3000000", "bytes 5000-2999999/77", "rubbish", None]
)
async def test_a_part_that_does_not_join_on_is_not_used(
    web: WebServer, target: Path, content_range: str | None
) -> None:
    def answer(call: Call) -> None:
        if call.start:
            part = {"Content_Range": content_range} if content_range else {}
            call.head(206, Content_Length=100, **part)
            call.send(b"x" * 100)
        else:
            call.head(200, Content_Length=len(BODY), ETag='"v1"')
            call.send(BODY if len(web.calls) > 1 else BODY[:5000])

    await downloads().fetch(web.on("/disk", answer), target, cap_bytes=CAP, checksum=SHA256)
    assert target.read_bytes() == BODY


async def test_a_server_that_always_breaks_off_is_given_up(web: WebServer, target: Path) -> None:
    error = await refused(web.on("/disk", breaking_after(BODY, 0)), target, DownloadFailed)
    assert error.retryable
    assert len(web.calls) == HASTY.tries


async def test_a_server_that_breaks_off_and_never_resumes_is_given_up(
    web: WebServer, target: Path
) -> None:
    # It gains 2,000 bytes each time, but always the same ones.
    url = web.on("/disk", breaking_after(BODY, 2000, etag=None))
    await refused(url, target, DownloadFailed)
    assert len(web.calls) <= HASTY.tries + 1


async def test_pauses_grow_up_to_their_limit() -> None:
    assert [Patience().pause_s(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


async def test_silence_has_a_deadline(web: WebServer, target: Path) -> None:
    def answer(call: Call) -> None:
        call.head(200, Content_Length=1000)
        web.stopped.wait(20)

    began = time.monotonic()
    error = await refused(web.on("/disk", answer), target, DownloadFailed, patience=SILENT)
    assert "silent" in error.details
    assert time.monotonic() - began < 8


async def test_headers_that_drip_have_a_deadline(web: WebServer, target: Path) -> None:
    def answer(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\n")
        while not web.stopped.wait(0.2):
            call.send(b"X: y\r\n")

    began = time.monotonic()
    await refused(web.on("/disk", answer), target, DownloadFailed, patience=SILENT)
    assert time.monotonic() - began < 8


async def test_a_body_that_drips_counts_as_broken(web: WebServer, target: Path) -> None:
    patience = Patience(
        connect_s=1, silence_s=2, tries=2, first_pause_s=0.01, slow_s=0.4, slow_bytes=1000
    )
    error = await refused(
        web.on("/disk", dripping(0.05)), target, DownloadFailed, patience=patience
    )
    assert "bytes in" in error.details


async def test_a_busy_server_is_asked_again(web: WebServer, target: Path) -> None:
    def answer(call: Call) -> None:
        if len(web.calls) < 3:
            call.head(503, Retry_After=0)
        else:
            call.head(200, Content_Length=len(BODY))
            call.send(BODY)

    await downloads().fetch(web.on("/disk", answer), target, cap_bytes=CAP, checksum=SHA256)
    assert len(web.calls) == 3


@pytest.mark.parametrize("status", [204, 206, 401, 403, 404, 410, 416])
async def test_an_answer_that_is_not_the_file_is_final(
    web: WebServer, target: Path, status: int
) -> None:
    url = web.on("/disk", lambda call: call.head(status, Content_Length=0))
    error = await refused(url, target, DownloadRefused)
    assert str(status) in error.details
    assert len(web.calls) == 1


async def test_a_file_is_too_large_by_its_length_before_a_byte_is_taken(
    web: WebServer, target: Path
) -> None:
    error = await refused(web.file("/disk", BODY), target, ImageTooLarge, cap_bytes=len(BODY) - 1)
    assert error.fields["limit"] == len(BODY) - 1


async def test_a_file_without_a_length_is_cut_at_the_cap(web: WebServer, target: Path) -> None:
    sent = 0

    def answer(call: Call) -> None:
        nonlocal sent
        call.head(200, Transfer_Encoding="chunked")
        while not web.stopped.is_set():
            call.send(b"10000\r\n" + bytes(65536) + b"\r\n")
            sent += 65536

    await refused(web.on("/disk", answer), target, ImageTooLarge, cap_bytes=1_000_000)
    assert sent < 40_000_000


async def test_chunks_without_their_end_are_no_file(web: WebServer, target: Path) -> None:
    def answer(call: Call) -> None:
        call.head(200, Transfer_Encoding="chunked")
        call.send(b"5\r\nhello\r\n")

    await refused(web.on("/disk", answer), target, DownloadFailed)


async def test_what_cannot_fit_is_refused_before_it_is_fetched(
    web: WebServer, target: Path
) -> None:
    huge = shutil.disk_usage(target.parent).total * 2
    url = web.on("/disk", lambda call: call.head(200, Content_Length=huge))
    await refused(url, target, NoSpace, cap_bytes=huge)


async def test_cancelling_leaves_no_file(web: WebServer, target: Path) -> None:
    begun = asyncio.Event()

    def answer(call: Call) -> None:
        call.head(200, Content_Length=len(BODY))
        call.send(BODY[:2_000_000])
        web.stopped.wait(10)

    patience = Patience(silence_s=20)
    task = asyncio.ensure_future(
        downloads(patience=patience).fetch(
            web.on("/disk", answer),
            target,
            cap_bytes=CAP,
            on_progress=lambda done, _: begun.set() if done else None,
        )
    )
    async with asyncio.timeout(5):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert list(target.parent.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not possible here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_disk_that_fills_up_is_told_as_such(web: WebServer, small_disk: Path) -> None:
    def answer(call: Call) -> None:
        call.head(200, Transfer_Encoding="chunked")
        call.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))

    await refused(web.on("/disk", answer), small_disk / "image", NoSpace)
