"""The envelope around every answer, and errors in it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from sanic import Request
from sanic.response import HTTPResponse

from voidvm.api.routing import Answer, Endpoint, RawAnswer
from voidvm.domain.etag import etag
from voidvm.domain.idempotency import StoredAnswer
from voidvm.errors import VoidVMError

JSON = "application/json"
_encoder = msgspec.json.Encoder()


def language(request: Request) -> str:
    """The language that the client or else its user wants: "zh" or "en", which is the default."""
    principal = getattr(request.ctx, "principal", None)
    best, weight_of_best = (principal.language if principal else None) or "en", 0.0
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
        "message": _done(endpoint, answer)[language(request) == "zh"],
        "timestamp": datetime.now(UTC),
        **answer.beside,
    }
    status = answer.status or endpoint.status
    if (version := _version(answer.data)) is not None:
        answer.headers.setdefault("etag", version)
    return HTTPResponse(
        _encoder.encode(content), status=status, headers=answer.headers, content_type=JSON
    )


def _done(endpoint: Endpoint, answer: Answer) -> tuple[str, str]:
    """What was done, in both languages."""
    is_accepted = answer.status == 202 and endpoint.status != 202
    return ("Accepted.", "已接受。") if is_accepted else endpoint.done


def _version(data: object) -> str | None:
    """The ETag of an object; lists and mere answers have none."""
    changed_at = getattr(data, "updated_at", None) or getattr(data, "created_at", None)
    object_id = getattr(data, "id", None)
    if isinstance(object_id, str) and isinstance(changed_at, datetime):
        return etag(object_id, changed_at)
    return None


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
    if (wait_s := error.fields.get("retry_after")) is not None:
        headers["retry-after"] = str(wait_s)
    return HTTPResponse(
        _encoder.encode(body), status=error.status, headers=headers, content_type=JSON
    )


# What belongs to an answer itself; the rest belongs to the moment in which it is given.
_KEPT_HEADERS = frozenset({"location", "etag"})


def stored(response: HTTPResponse, *, is_final: bool = True) -> StoredAnswer:
    """A response as a value that can be kept."""
    headers = {
        name.lower(): value
        for name, value in response.headers.items()
        if name.lower() in _KEPT_HEADERS
    }
    return StoredAnswer(
        status=response.status, headers=headers, body=response.body or b"", is_final=is_final
    )


def error_code_of(answer: StoredAnswer) -> str | None:
    """The code of an answer that is an error."""
    if answer.status < 400:
        return None
    code: str = msgspec.json.decode(answer.body)["error"]["code"]
    return code


def replay(answer: StoredAnswer) -> HTTPResponse:
    """A kept answer as a response; `Idempotency-Replayed` says when it is not the first."""
    headers = dict(answer.headers)
    if answer.is_replayed:
        headers["idempotency-replayed"] = "true"
    return HTTPResponse(answer.body, status=answer.status, headers=headers, content_type=JSON)


def _text(text: str) -> str:
    """Text that UTF-8 can carry: headers that are none come to us as lone surrogates."""
    return text.encode(errors="replace").decode()
