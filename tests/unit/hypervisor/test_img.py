"""Foreign images through the real qemu-img: inspected, measured, converted, cancelled, killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.service import eventually
from voidvm.errors import CommandFailed, ImageInvalid, ImageTooLarge, NoSpace
from voidvm.hypervisor import formats
from voidvm.hypervisor.formats import DiskFormat
from voidvm.hypervisor.identity import resolve_identity
from voidvm.hypervisor.img import ImageInfo, QemuImg, _other_files, _Percent, partial

MIB = 1024**2
LIMIT = 1024**4
IMG = QemuImg("qemu-img", identity=resolve_identity(""))


def qemu_img(*arguments: object) -> bytes:
    command = ["qemu-img", *(str(each) for each in arguments)]
    return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


def raw(folder: Path, mib: int = 4) -> Path:
    """A disk of which the half is data, in a folder that is closed to others."""
    folder.chmod(0o700)
    path = folder / "raw"
    path.write_bytes(os.urandom(mib * MIB // 2) + bytes(mib * MIB // 2))
    path.chmod(0o600)
    return path


def disk(folder: Path, kind: str, options: str = "") -> Path:
    path = folder / f"disk.{kind}"
    chosen = ["-o", options] if options else []
    qemu_img("convert", "-f", "raw", "-O", kind, *chosen, raw(folder), path)
    path.chmod(0o600)
    return path


async def inspect(path: Path, found: DiskFormat = "qcow2", limit: int = LIMIT) -> ImageInfo:
    return await IMG.inspect(path, found=found, max_virtual_bytes=limit)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("qcow2", ""), ("qcow2", "compat=0.10"), ("qcow2", "compression_type=zstd"), ("raw", ""),
     ("vdi", ""), ("vhdx", ""), ("vmdk", ""), ("vmdk", "subformat=streamOptimized")],
)  # fmt: skip
async def test_a_disk_of_each_format_becomes_a_fresh_qcow2_with_the_same_contents(
    tmp_path: Path, kind: DiskFormat, options: str
) -> None:
    source = disk(tmp_path, kind, options)
    before = source.stat()
    assert formats.find(source).format == kind
    info = await inspect(source, kind)
    assert info == ImageInfo(format=kind, virtual_size_bytes=4 * MIB, has_backing=False)
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "target"
    size = await IMG.convert(
        source,
        source_format=kind,
        target=target,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert size == target.stat().st_size
    assert seen == sorted(seen, key=lambda step: step[0])
    assert seen[-1][0] == seen[-1][1]
    qemu_img("compare", "-f", "raw", "-F", "qcow2", tmp_path / "raw", target)
    assert json.loads(qemu_img("info", "--output=json", target))["format"] == "qcow2"
    after = target.stat()
    assert (stat.S_IMODE(after.st_mode), after.st_uid) == (0o600, os.geteuid())
    assert (source.stat().st_uid, source.stat().st_mode) == (before.st_uid, before.st_mode)
    assert not partial(target).exists()


async def test_a_disk_is_measured(tmp_path: Path) -> None:
    sparse = raw(tmp_path)
    os.truncate(sparse, 2 * MIB)
    os.truncate(sparse, 4 * MIB)
    measure = await IMG.measure(sparse, source_format="raw")
    assert 2 * MIB < measure.required_bytes < 3 * MIB
    assert 4 * MIB < measure.full_bytes < 5 * MIB


async def test_a_raw_disk_whose_guest_wrote_a_qcow2_header_stays_raw(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100_000)
    trap = tmp_path / "trap"
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", trap)
    with pytest.raises(ImageInvalid, match="backing file"):
        await inspect(trap)
    target = tmp_path / "target"
    with trap.open("r+b") as file:
        file.truncate(MIB)
    await IMG.convert(trap, source_format="raw", target=target)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", trap, target)


@pytest.mark.parametrize("limit", [4 * MIB - 1, 1])
@pytest.mark.parametrize("kind", ["qcow2", "vdi"])
async def test_a_disk_above_the_limit_is_refused(
    tmp_path: Path, kind: DiskFormat, limit: int
) -> None:
    with pytest.raises(ImageTooLarge):
        await inspect(disk(tmp_path, kind), kind, limit)


async def test_what_qemu_img_cannot_read_is_refused_without_our_paths(tmp_path: Path) -> None:
    broken = disk(tmp_path, "vdi")
    with broken.open("r+b") as file:
        file.seek(0x44)
        file.write(b"\xff" * 4)
    with pytest.raises(ImageInvalid) as caught:
        await inspect(broken, "vdi")
    assert caught.value.details.startswith("qemu-img: Could not open 'the image': unsupported VDI")


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(disk(tmp_path, "qcow2"))
    with pytest.raises(ImageInvalid):
        await inspect(tmp_path / "link")


def test_every_other_file_that_info_names_is_found() -> None:
    own = "/proc/self/fd/7"
    answer = {
        "filename": own,
        "backing-filename": "/etc/shadow",
        "children": [{"info": {"filename": own}}, {"info": {"filename": "nbd://host"}}],
        "format-specific": {"data": {"data-file": "/dev/sda", "extents": [{"filename": "x"}]}},
    }
    assert _other_files(answer, own) == ["/etc/shadow", "nbd://host", "/dev/sda", "x"]


def test_progress_is_read_wherever_the_output_is_cut() -> None:
    seen: list[tuple[int, int | None]] = []
    percent = _Percent(1000, lambda done, total: seen.append((done, total)))
    for chunk in (b"    (0.00/100%)\r    (12.", b"50/10", b"0%)\r", b"  (100.00/100%)\r\n"):
        percent.take(chunk)
    assert seen == [(0, 1000), (125, 1000), (1000, 1000)]


async def test_a_vast_disk_without_data_fits(tmp_path: Path) -> None:
    vast = tmp_path / "vast"
    qemu_img("create", "-q", "-f", "qcow2", vast, "64T")
    await IMG.convert(vast, source_format="qcow2", target=tmp_path / "target")


async def test_what_cannot_fit_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = raw(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1 * MIB))
    with pytest.raises(NoSpace, match="are needed"):
        await IMG.convert(source, source_format="raw", target=tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def converting() -> int | None:
    """The pid of our qemu-img that copies, once it does."""
    for pid in children_of(os.getpid()):
        with suppress(FileNotFoundError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if Path(f"/proc/{pid}/comm").read_text() == "qemu-img\n" and b"convert" in line:
                return pid
    return None


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that takes a while to copy: packed clusters, many of them."""
    folder = tmp_path_factory.mktemp("large")
    source = folder / "raw"
    source.write_bytes((os.urandom(MIB // 4) + bytes(MIB * 3 // 4)) * 200)
    path = folder / "large"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", source, path)
    return path


async def test_cancelling_ends_qemu_img_and_leaves_nothing(large: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    task = asyncio.ensure_future(IMG.convert(large, source_format="qcow2", target=target))
    async with asyncio.timeout(20):
        pid = await asyncio.to_thread(eventually, converting)
        os.kill(pid, signal.SIGSTOP)  # so that it cannot be too quick for the test
        assert partial(target).exists()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not Path(f"/proc/{pid}").exists()
    assert list(tmp_path.iterdir()) == []


async def test_a_qemu_img_killed_at_any_moment_leaves_a_whole_image_or_none(
    large: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    killed = 0
    for delay_s in (0, 0.02, 0.05, 0.1, 0.2):
        task = asyncio.ensure_future(IMG.convert(large, source_format="qcow2", target=target))
        pid = await asyncio.to_thread(eventually, converting)
        await asyncio.sleep(delay_s)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        try:
            await task
        except CommandFailed as error:
            assert "killed by signal 9" in error.details  # noqa: PT017 - it may have been quicker
            assert list(tmp_path.iterdir()) == []
            killed += 1
        else:
            qemu_img("compare", "-f", "qcow2", "-F", "qcow2", large, target)
            target.unlink()
    assert killed


async def test_a_stopped_qemu_img_has_its_deadline(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.hypervisor.img._CONVERT_WALL_BASE_S", 1.5)
    monkeypatch.setattr("voidvm.hypervisor.img._CONVERT_WALL_BYTES_PER_S", 1 << 40)
    target = tmp_path / "target"

    async def stopped() -> bool:
        task = asyncio.ensure_future(IMG.convert(large, source_format="qcow2", target=target))
        os.kill(await asyncio.to_thread(eventually, converting), signal.SIGSTOP)
        began = time.monotonic()
        try:
            await task
        except CommandFailed as error:
            assert "no end after" in str(error)  # noqa: PT017 - it may have been done already
            return time.monotonic() - began < 10
        target.unlink()
        return False

    # A quick one may have ended before it could be stopped.
    assert await stopped() or await stopped() or await stopped()
    assert list(tmp_path.iterdir()) == []
