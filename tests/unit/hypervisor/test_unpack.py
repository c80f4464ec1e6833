"""Packed files: unpacked within their cap, damaged ones refused, bombs cut short."""

from __future__ import annotations

import asyncio
import gzip
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from voidvm.errors import ImageInvalid, ImageTooLarge, VoidVMError
from voidvm.hypervisor import unpack as module
from voidvm.hypervisor.formats import Packing
from voidvm.hypervisor.identity import resolve_identity
from voidvm.hypervisor.img import Progress, partial
from voidvm.hypervisor.unpack import unpack

MIB = 1024**2
BODY = os.urandom(MIB) + bytes(MIB)


def zstd(body: bytes) -> bytes:
    command = ["zstd", "-q", "-1", "-c", "-"]
    return subprocess.run(command, input=body, capture_output=True, check=True).stdout


def xz(body: bytes) -> bytes:
    return lzma.compress(body, preset=0)


def gz(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1)


PACK: dict[Packing, Callable[[bytes], bytes]] = {
    "gzip": gz,
    "xz": xz,
    "zstd": zstd,
}
each = pytest.mark.parametrize("packing", PACK)


async def unpacked(
    packed: bytes,
    folder: Path,
    packing: Packing,
    *,
    cap_bytes: int = 100 * MIB,
    on_progress: Progress | None = None,
) -> bytes:
    """What comes out; fails unless nothing else is left."""
    source, target = folder / "source", folder / "target"
    source.write_bytes(packed)
    source.chmod(0o600)
    size = await unpack(
        source,
        packing=packing,
        target=target,
        cap_bytes=cap_bytes,
        identity=resolve_identity(""),
        on_progress=on_progress,
    )
    body = target.read_bytes()
    assert size == len(body)
    assert not partial(target).exists()
    return body


async def refused(
    packed: bytes,
    folder: Path,
    packing: Packing,
    kind: type[VoidVMError],
    *,
    cap_bytes: int = 100 * MIB,
) -> VoidVMError:
    with pytest.raises(kind) as caught:
        await unpacked(packed, folder, packing, cap_bytes=cap_bytes)
    assert [path.name for path in folder.iterdir()] == ["source"]
    return caught.value


@each
async def test_a_packed_file_comes_out_as_it_was(tmp_path: Path, packing: Packing) -> None:
    seen: list[tuple[int, int | None]] = []
    packed = PACK[packing](BODY)
    body = await unpacked(
        packed, tmp_path, packing, on_progress=lambda done, total: seen.append((done, total))
    )
    assert body == BODY
    assert seen[-1] == (len(packed), len(packed))
    assert seen == sorted(seen)


@each
async def test_several_members_are_one_file(tmp_path: Path, packing: Packing) -> None:
    pack = PACK[packing]
    assert await unpacked(pack(b"one") + pack(b"two"), tmp_path, packing) == b"onetwo"


@each
@pytest.mark.parametrize("kept", [0.999, 0.5])
async def test_a_file_that_is_cut_off_is_refused(
    tmp_path: Path, packing: Packing, kept: float
) -> None:
    packed = PACK[packing](BODY)
    await refused(packed[: int(len(packed) * kept)], tmp_path, packing, ImageInvalid)


@each
async def test_a_damaged_file_is_refused(tmp_path: Path, packing: Packing) -> None:
    packed = bytearray(PACK[packing](BODY))
    packed[len(packed) // 2] ^= 0xFF
    if packing == "zstd":
        packed[-1] ^= 0xFF  # a stored block is checked at the end alone
    error = await refused(bytes(packed), tmp_path, packing, ImageInvalid)
    assert "could not be unpacked" in error.details


@each
async def test_what_follows_the_end_is_refused(tmp_path: Path, packing: Packing) -> None:
    await refused(PACK[packing](BODY) + b"something else", tmp_path, packing, ImageInvalid)


@each
async def test_the_cap_is_kept_to_the_byte(tmp_path: Path, packing: Packing) -> None:
    packed = PACK[packing](BODY)
    assert await unpacked(packed, tmp_path, packing, cap_bytes=len(BODY)) == BODY
    (tmp_path / "target").unlink()
    error = await refused(packed, tmp_path, packing, ImageTooLarge, cap_bytes=len(BODY) - 1)
    assert error.fields["limit"] == len(BODY) - 1


@each
async def test_a_bomb_is_cut_short(
    tmp_path: Path, packing: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RATIO_FREE_BYTES", 5 * MIB)
    monkeypatch.setattr(module, "RATIO_MAX", 10)
    packed = PACK[packing](bytes(50 * MIB))
    error = await refused(packed, tmp_path, packing, ImageTooLarge, cap_bytes=1000 * MIB)
    assert "10 times" in error.details


def test_a_window_that_would_cost_much_memory_is_refused(tmp_path: Path) -> None:
    command = ["zstd", "-q", "-1", "--long=30", "-c", "-"]
    packed = subprocess.run(command, input=bytes(1), capture_output=True, check=True).stdout
    # The frame's header: no size, a window of 2^30 bytes.
    huge = packed[:4] + bytes([packed[4] & 0b0001_1111, (30 - 10) << 3]) + packed[6:]
    with asyncio.Runner() as runner:
        runner.run(refused(huge, tmp_path, "zstd", ImageInvalid))


@each
async def test_cancelling_leaves_nothing(tmp_path: Path, packing: Packing) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    # Quickly packed, slowly unpacked.
    source.write_bytes(PACK[packing](bytes(20 * MIB)) * 40)
    begun = asyncio.Event()
    task = asyncio.ensure_future(
        unpack(
            source,
            packing=packing,
            target=target,
            cap_bytes=1024 * MIB,
            identity=resolve_identity(""),
            on_progress=lambda *_: begun.set(),
        )
    )
    async with asyncio.timeout(10):
        await begun.wait()
        assert partial(target).exists()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
