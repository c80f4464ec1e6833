"""Where downloads may go: redirects, addresses, credentials, certificates, checksum lists."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.downloading import BODY, CAP, SHA256, downloads, refused
from tests.support.webserver import Call, WebServer, breaking_after, web_server
from voidvm.domain.catalog import Checksum
from voidvm.errors import (
    DownloadFailed,
    DownloadRefused,
    UrlRefused,
)
from voidvm.services.places import shown


async def test_redirects_are_followed_and_the_last_place_is_resumed(
    web: WebServer, target: Path
) -> None:
    web.on("/mirror/disk", breaking_after(BODY, 2_000_000))
    url = web.on("/disk", lambda call: call.head(302, Location="mirror/disk", Content_Length=0))
    await downloads().fetch(url, target, cap_bytes=CAP, checksum=SHA256)
    assert [call.path for call in web.calls] == ["/disk", "/mirror/disk", "/mirror/disk"]


async def test_a_mirror_that_is_gone_sends_us_back_to_the_first_server(
    web: WebServer, target: Path
) -> None:
    def answer(call: Call) -> None:
        mirror = "/good" if len(web.calls) > 1 else "/bad"
        call.head(302, Location=mirror, Content_Length=0)

    def bad(call: Call) -> None:
        if call.start:
            call.head(403, Content_Length=0)
        else:
            breaking_after(BODY, 5000)(call)

    web.on("/bad", bad)
    web.file("/good", BODY)
    await downloads().fetch(web.on("/disk", answer), target, cap_bytes=CAP, checksum=SHA256)
    assert [call.path for call in web.calls] == ["/disk", "/bad", "/bad", "/disk", "/good"]


async def test_redirects_have_an_end(web: WebServer, target: Path) -> None:
    url = web.on("/disk", lambda call: call.head(302, Location="/disk", Content_Length=0))
    await refused(url, target, UrlRefused)
    assert len(web.calls) == 6


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://example.org/x",
        "http://169.254.169.254/latest",
        "http://[::1",
        "",
    ],
)
async def test_a_redirect_leads_nowhere_it_should_not(
    web: WebServer, target: Path, location: str
) -> None:
    url = web.on("/disk", lambda call: call.head(302, Location=location, Content_Length=0))
    await refused(url, target, UrlRefused)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/disk",
        "gopher://example.org/",
        "disk.qcow2",
        "",
        "http://",
        "http:///path",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[fe80::1%25lo]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
        "http://a\nb/",
        "http://example.org/" + "x" * 3000,
    ],
)
async def test_a_url_that_leads_inside_is_refused(url: str, target: Path) -> None:
    await refused(url, target, UrlRefused, allow_private=lambda: False)


async def test_a_name_with_one_private_address_is_refused_whole(target: Path) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    error = await refused(
        "http://images.example/", target, UrlRefused, allow_private=lambda: False, resolve=resolve
    )
    assert "10.0.0.1 (private)" in error.details
    assert "allow_private_urls" in (error.hint or "")


async def test_a_name_that_does_not_exist_is_said(target: Path) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    error = await refused("http://images.example/", target, DownloadFailed, resolve=resolve)
    assert "images.example" in str(error)


async def test_the_name_is_looked_up_once_and_sent_along(web: WebServer, target: Path) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    web.on("/disk", breaking_after(BODY, 2_000_000))
    url = web.url("/disk", host="images.example")
    await downloads(resolve=resolve).fetch(url, target, cap_bytes=CAP, checksum=SHA256)
    assert asked == ["images.example"]
    assert {call.headers["host"] for call in web.calls} == {f"images.example:{web.port}"}


async def test_the_next_address_is_tried_when_one_does_not_answer(
    web: WebServer, target: Path
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["::1", "127.0.0.1"]  # the server listens on the second alone

    web.file("/disk", BODY)
    url = web.url("/disk", host="images.example")
    await downloads(resolve=resolve).fetch(url, target, cap_bytes=CAP, checksum=SHA256)


async def test_credentials_go_to_their_own_server_alone(web: WebServer, target: Path) -> None:
    with web_server() as other:
        other.file("/disk", BODY)
        web.on("/b", lambda call: call.head(302, Location=other.url("/disk"), Content_Length=0))
        web.on("/a", lambda call: call.head(302, Location="/b", Content_Length=0))
        url = web.url("/a").replace("http://", "http://me:secret@")
        await downloads().fetch(url, target, cap_bytes=CAP, checksum=SHA256)
        assert [call.headers.get("authorization") for call in web.calls] == [
            "Basic bWU6c2VjcmV0"
        ] * 2
        assert "authorization" not in other.calls[0].headers


def test_a_url_is_shown_without_its_secrets() -> None:
    assert shown("https://me:secret@a.example:8443/x?token=abc#f") == "https://a.example:8443/x"
    assert shown("http://[::1") == "(no URL)"


async def test_proxies_of_the_environment_are_not_used(
    web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await downloads().fetch(web.file("/disk", BODY), target, cap_bytes=CAP, checksum=SHA256)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of images.example with its key."""
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=images.example", "-addext",
         "subjectAltName=DNS:images.example", "-keyout", f"{pem}.key", "-out", pem],
        check=True, capture_output=True, timeout=20,
    )  # fmt: skip
    pem.write_text(pem.read_text() + Path(f"{pem}.key").read_text())
    return pem


@pytest.fixture
def secure(certificate: Path) -> Iterator[WebServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with web_server(context) as server:
        yield server


async def _loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


async def test_the_certificate_is_that_of_the_name(
    secure: WebServer, certificate: Path, target: Path
) -> None:
    secure.file("/disk", BODY)
    tls = ssl.create_default_context(cafile=str(certificate))
    fetching = downloads(tls=tls, resolve=_loopback)
    url = secure.url("/disk", host="images.example")
    await fetching.fetch(url, target, cap_bytes=CAP, checksum=SHA256)
    target.unlink()
    for host in ("other.example", "127.0.0.1"):
        url = secure.url("/disk", host=host)
        error = await refused(url, target, DownloadRefused, tls=tls, resolve=_loopback)
        assert "certificate" in error.details


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    secure: WebServer, target: Path
) -> None:
    url = secure.url("/disk", host="images.example")
    await refused(url, target, DownloadRefused, resolve=_loopback)


async def test_https_does_not_lead_to_http(
    web: WebServer, secure: WebServer, certificate: Path, target: Path
) -> None:
    web.file("/disk", BODY)
    secure.on("/disk", lambda call: call.head(302, Location=web.url("/disk"), Content_Length=0))
    url = secure.url("/disk", host="images.example")
    tls = ssl.create_default_context(cafile=str(certificate))
    error = await refused(url, target, UrlRefused, tls=tls, resolve=_loopback)
    assert "from https to http" in error.details
    assert web.calls == []


async def test_a_checksum_comes_from_the_published_list(
    secure: WebServer, certificate: Path
) -> None:
    secure.file("/SHA256SUMS", f"{'1' * 64}  other\n{SHA256.hex} *disk.qcow2\n".encode())
    checksum = Checksum(
        algorithm="sha256", url=secure.url("/SHA256SUMS", host="images.example"), format="gnu"
    )
    fetching = downloads(tls=ssl.create_default_context(cafile=str(certificate)), resolve=_loopback)
    file_url = secure.url("/some/disk.qcow2", host="images.example")
    assert await fetching.published(checksum, file_url=file_url) == SHA256
    with pytest.raises(DownloadRefused, match="does not name"):
        await fetching.published(checksum, file_url=file_url + "2")


async def test_a_pinned_checksum_needs_no_network() -> None:
    checksum = Checksum(algorithm="sha256", digest="a" * 64)
    found = await downloads().published(checksum, file_url="https://a.example/x")
    assert str(found) == "sha256:" + "a" * 64
