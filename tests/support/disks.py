"""Small disks and CDs in every format, and web answers that wait until they are told to go on."""

from __future__ import annotations

import random
import threading
import time
from io import BytesIO
from pathlib import Path

import pycdlib

from tests.support.operations import qemu_img
from tests.support.webserver import Answer, Call

MIB = 1024**2


def content(size: int = 4 * MIB, *, seed: int = 1) -> bytes:
    """Bytes that no packer makes smaller, the same each time."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - the same bytes each time


def qcow2(folder: Path, *, seed: int = 1, size: int = 4 * MIB, name: str = "disk") -> bytes:
    """A qcow2 file with such content."""
    raw, made = folder / f"{name}.raw", folder / f"{name}.qcow2"
    raw.write_bytes(content(size, seed=seed))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, made)
    return made.read_bytes()


def iso(*files: tuple[str, bytes]) -> bytes:
    """A CD with these files."""
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, rock_ridge="1.09", vol_ident="TESTCD")
    for name, data in files:
        plain = name.upper().replace(".", "_")
        disc.add_fp(BytesIO(data), len(data), f"/{plain}.;1", rr_name=name)
    out = BytesIO()
    disc.write_fp(out)
    disc.close()
    return out.getvalue()


class Held:
    """An answer that sends a part of a file and waits with the rest until `go` is set."""

    def __init__(self, body: bytes, *, after: int | None = None) -> None:
        self.body = body
        self.after = len(body) // 2 if after is None else after
        self.go = threading.Event()
        self.calls = 0

    def __call__(self, call: Call) -> None:
        self.calls += 1
        call.head(200, Content_Length=len(self.body))
        call.send(self.body[: self.after])
        self.go.wait(60)
        call.send(self.body[self.after :])


def trickling(body: bytes, *, seconds: float) -> Answer:
    """An answer that takes its time, evenly."""

    def answer(call: Call) -> None:
        call.head(200, Content_Length=len(body))
        step = max(1, len(body) // 50)
        for start in range(0, len(body), step):
            call.send(body[start : start + step])
            time.sleep(seconds / 50)

    return answer
