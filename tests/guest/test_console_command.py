"""`voidvm console` in a real terminal, on a real guest, through a real crash of the service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.meta.tty import Tty
from tests.support import warm_guests
from tests.support.local import free_port
from tests.support.service import VOIDVM, Service

pytestmark = pytest.mark.guest

LINES = 40


def test_a_crash_of_the_service_costs_the_terminal_no_byte(guest: Path, tmp_path: Path) -> None:
    service = Service(VOIDVM_SERVER__PORT=str(free_port()), **warm_guests.settings(guest))
    try:
        service.add_guest(guest)
        service.start()
        api = service.api()
        api.create("demo")
        api.start("demo")
        assert api.token is not None
        environ = service.environ | {"VOIDVM_URL": service.url, "VOIDVM_TOKEN": api.token}
        with Tty([str(VOIDVM), "console", "demo"], env=environ, cwd=tmp_path) as tty:
            tty.until("Ctrl-] leaves.")
            tty.until("~# ")
            # Written so that its echo is not taken for its output.
            count = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo n''o $i.; sleep 0.05; done"
            tty.press(f"{count}; echo do''ne.\r")
            tty.until("no 5.")
            service.kill()
            tty.until("The connection broke")
            service.start()
            tty.until("Connected again.")
            tty.until("done.")
            assert re.findall(r"no (\d+)\.", tty.seen) == [str(n + 1) for n in range(LINES)]
            tty.press("\x1d")
            assert tty.wait() == 0
    finally:
        service.close()
