"""The JavaScript SDK in a page of another origin, in a real browser."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.sdk.conftest import speaking_service
from tests.support.contract import Api, Json
from tests.support.javascript import BUILD_TIMEOUT_S, SDK
from tests.support.service import Service

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PAGE_TIMEOUT_S = 60
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # it may be root here, and sees only our own page
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
)

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here"),
    pytest.mark.timeout(BUILD_TIMEOUT_S + 120),
]


class Pages(SimpleHTTPRequestHandler):
    """Serves the SDK's folder and takes what a page has to say."""

    results: queue.Queue[Json] = queue.Queue()

    def do_POST(self) -> None:
        """A page tells its result."""
        self.results.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing is logged."""


@pytest.fixture(scope="module")
def pages(sdk: Path) -> Iterator[str]:
    """Where pages are served, elsewhere than the service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(sdk))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def service(pages: str) -> Iterator[Service]:
    """A service that lets these pages in."""
    with speaking_service(VOIDVM_SERVER__ALLOWED_ORIGINS=json.dumps([pages])) as service:
        yield service


@contextmanager
def browser(url: str, profile: Path) -> Iterator[None]:
    """A browser with a page, for as long as the block lasts."""
    assert BROWSER is not None
    process = subprocess.Popen(
        [BROWSER, *OPTIONS, f"--user-data-dir={profile}", url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_page_lists_vms_reads_a_console_and_hears_events(
    pages: str, service: Service, api: Api, ticking: str, tmp_path: Path
) -> None:
    assert not (SDK / "dist" / "index.js").read_text().count("node:")
    query = urlencode({"url": service.url, "token": api.token})
    with browser(f"{pages}/test/page.html?{query}", tmp_path):
        result = Pages.results.get(timeout=PAGE_TIMEOUT_S)
    assert result == {
        "name": "ticking",
        "line": "AAAB",
        "told": "vm.updated",
        "status": "running",
        "isClass": True,
    }
