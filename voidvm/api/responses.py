"""The envelope around every answer, and errors in it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from sanic import Request
from sanic.response import HTTPResponse

from voidvm.api.routing import Answer, Endpoint, RawAnswer
from voidvm.errors import VoidVMError

JSON = "application/json"
_encoder = msgspec.json.Encoder()


def language(request: Request) -> str:
    """The language that the client wants: "zh" or "en", which is the default."""
    best, weight_of_best = "en", 0.0
    for part in request.headers.get("accept-language", "").split(","):
        tag, _, parameters = part.strip().partition(";")
        primary = tag.partition("-")[0].lower()
        try:
            weight = float(parameters.partition("q=")[2] or 1)
        except ValueError:
            continue
        if primary in {"en", "zh"} and weight > weight_of_best:
            best, weight_of_best = primary, weight
    return best


def success(request: Request, endpoint: Endpoint, answer: Answer | RawAnswer) -> HTTPResponse:
    """What a handler returned, as a response."""
    if isinstance(answer, RawAnswer):
        return HTTPResponse(answer.body, headers=answer.headers, content_type=answer.content_type)
    content = {
        "success": True,
        "data": answer.data,
        "message": endpoint.done[language(request) == "zh"],
        "timestamp": datetime.now(UTC),
        **answer.beside,
    }
    status = answer.status or endpoint.status
    return HTTPResponse(
        _encoder.encode(content), status=status, headers=answer.headers, content_type=JSON
    )


def failure(request: Request, error: VoidVMError) -> HTTPResponse:
    """An error, as a response."""
    content: dict[str, object] = {
        "code": error.code,
        "message": _text(error.message(language(request))),
        "details": _text(error.details),
        "requestId": request.ctx.request_id,
        "retryable": error.retryable,
    }
    if error.errors:
        content["errors"] = [
            {"field": _text(problem.field), "message": _text(problem.message)}
            for problem in error.errors
        ]
    if error.hint:
        content["hint"] = error.hint
    body = {"success": False, "error": content, "timestamp": datetime.now(UTC)}
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    return HTTPResponse(
        _encoder.encode(body), status=error.status, headers=headers, content_type=JSON
    )


def _text(text: str) -> str:
    """Text that UTF-8 can carry: headers that are none come to us as lone surrogates."""
    return text.encode(errors="replace").decode()
