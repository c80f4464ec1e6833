"""The description of the API, for programs and for people."""

from __future__ import annotations

import mimetypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import msgspec

from voidvm.api.openapi import describe
from voidvm.api.routing import ENDPOINTS, Access, Call, Nothing, RawAnswer, endpoint
from voidvm.errors import NotFound

# The assets come with the installation: the page works on hosts without the internet.
# Found without importing: of that package only its static files are wanted.
_SPEC = find_spec("swagger_ui")
_ASSETS = Path(_SPEC.origin if _SPEC and _SPEC.origin else ".").parent / "static"
_SERVED = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"})
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>VoidVM API</title>
<link rel="icon" href="/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#ui",
  docExpansion: "list",
  deepLinking: true,
  persistAuthorization: true,
});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)


@cache
def document() -> bytes:
    """The OpenAPI document as JSON."""
    return msgspec.json.format(msgspec.json.encode(describe(ENDPOINTS)), indent=1)


@endpoint("GET", "/docs/openapi.json", access=Access.PUBLIC, media_type="application/json")
async def get_openapi(call: Call[Nothing, Nothing]) -> RawAnswer:  # noqa: ARG001 - all handlers are alike
    """The description of the API, OpenAPI 3.1."""
    return RawAnswer(body=document(), content_type="application/json")


@endpoint("GET", "/docs", access=Access.PUBLIC, media_type="text/html")
async def get_docs(call: Call[Nothing, Nothing]) -> RawAnswer:  # noqa: ARG001 - all handlers are alike
    """The description as a page to read and to try."""
    return RawAnswer(
        body=_PAGE.encode(),
        content_type="text/html; charset=utf-8",
        headers={"content-security-policy": _POLICY},
    )


@endpoint(
    "GET",
    "/docs/assets/{file}",
    access=Access.PUBLIC,
    media_type="*/*",  # each file has its own
    errors=(NotFound,),
)
async def get_docs_asset(call: Call[Nothing, Nothing]) -> RawAnswer:
    """A file of the page."""
    name = call.path["file"]
    if name == "start.js":
        # Ours, and small: after an upgrade the page must not be begun by the old one.
        return RawAnswer(body=_START.encode(), content_type="text/javascript")
    if name not in _SERVED:
        raise NotFound(what="such file")
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"cache-control": "max-age=86400"}
    return RawAnswer(body=_asset(name), content_type=content_type, headers=headers)


@cache
def _asset(name: str) -> bytes:
    return (_ASSETS / name).read_bytes()
