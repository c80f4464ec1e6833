"""From a raw request to a handler's typed call: credential, permission, body, query."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from sanic import Request
from sanic.exceptions import (
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    SanicException,
)
from sanic.response import HTTPResponse

from voidvm import errors
from voidvm.api.responses import failure, success
from voidvm.api.routing import Access, Call, Endpoint, Nothing
from voidvm.domain.account import Permission, Principal
from voidvm.domain.validation import decode
from voidvm.errors import FieldProblem, VoidVMError
from voidvm.services.services import Services

log = logging.getLogger(__name__)

NOBODY = Principal(user_id="", username="", role="user", session_id="", permissions=frozenset())


async def build_call(
    request: Request, endpoint: Endpoint, services: Services, path: dict[str, str]
) -> Call[Any, Any]:
    """The typed call of a request. Raises whatever is wrong with it."""
    principal = await identify(request, endpoint.access, services)
    return Call(
        services=services,
        principal=principal,
        path=path,
        body=_body(request, endpoint),
        query=read_query(request, endpoint),
        request=request,
    )


async def identify(request: Request, access: Permission | Access, services: Services) -> Principal:
    """The caller. Raises `Unauthorized`, `SessionEnded` or `Forbidden`."""
    if access is Access.PUBLIC:
        return NOBODY
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise errors.Unauthorized
    principal = await services.accounts.authenticate(token.strip())
    check_permission(principal, access)
    return principal


def check_permission(principal: Principal, access: Permission | Access) -> None:
    """Raise `Forbidden` unless the caller has the permission."""
    if isinstance(access, Permission) and not principal.may(access):
        raise errors.Forbidden(permission=access)


def _body(request: Request, endpoint: Endpoint) -> Any:
    if endpoint.method in {"GET", "DELETE"}:
        return Nothing()
    raw = request.body
    if not raw:
        return decode(endpoint.body, {})
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise errors.UnsupportedMediaType(media_type or "no Content-Type was sent")
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = FieldProblem("body", f"is not valid JSON: {error}")
        raise errors.ValidationFailed(f"body {problem.message}", errors=[problem]) from error
    return decode(endpoint.body, value)


def read_query(request: Request, endpoint: Endpoint) -> Any:
    """The decoded query. Raises `ValidationFailed`."""
    values = {key: many[-1] for key, many in request.get_args(keep_blank_values=True).items()}
    return decode(endpoint.query, values, is_text=True)


def http_handler(endpoint: Endpoint, services: Services) -> Callable[..., Awaitable[HTTPResponse]]:
    """The server's handler of an endpoint."""

    async def handle(request: Request, **path: str) -> HTTPResponse:
        call = await build_call(request, endpoint, services, path)
        return success(request, endpoint, await endpoint.handler(call))

    handle.__name__ = endpoint.name
    return handle


def error_response(request: Request, exception: Exception) -> HTTPResponse:
    """Any failure as an envelope; what is our fault goes to the log with its traceback."""
    if not hasattr(request.ctx, "request_id"):
        request.ctx.request_id = request.id.hex if hasattr(request.id, "hex") else str(request.id)
    error = _as_ours(request, exception)
    if error.status >= 500 and not isinstance(exception, VoidVMError):
        log.error("request %s failed", request.ctx.request_id, exc_info=exception)
    response = failure(request, error)
    response.headers["x-request-id"] = request.ctx.request_id
    if isinstance(exception, MethodNotAllowed):
        # RFC 9110, 15.5.6: a 405 names what is allowed.
        response.headers.update(exception.headers)
    return response


def _as_ours(request: Request, exception: Exception) -> VoidVMError:
    if isinstance(exception, VoidVMError):
        return exception
    match exception:
        case NotFound():
            error: VoidVMError = errors.NotFound(what="such address")
        case MethodNotAllowed():
            error = errors.MethodNotAllowed(method=request.method)
        case PayloadTooLarge():
            error = errors.PayloadTooLarge()
        case SanicException() if exception.status_code < 500:
            error = errors.ValidationFailed(str(exception))
        case SanicException() if exception.status_code == 503:
            error = errors.ServiceStopping()
        case _:
            error = errors.InternalError()
    return error
