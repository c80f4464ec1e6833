"""From a raw request to a handler's typed call, and from its result or failure to an answer."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
from sanic import Request
from sanic.exceptions import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RequestCancelled,
    SanicException,
)
from sanic.response import HTTPResponse

from voidvm import errors
from voidvm.api.clients import (
    NOBODY,
    address_of,
    bearer_of,
    check_access,
    identify,
    network_of,
)
from voidvm.api.gate import Gate
from voidvm.api.responses import error_code_of, failure, replay, stored, success
from voidvm.api.routing import Access, Answer, Call, Endpoint, Nothing, RawAnswer, accepted
from voidvm.api.staying import while_allowed
from voidvm.domain.account import Principal
from voidvm.domain.audit import AuditEntry, level_of
from voidvm.domain.etag import Precondition
from voidvm.domain.idempotency import StoredAnswer
from voidvm.domain.validation import decode
from voidvm.errors import FieldProblem, VoidVMError
from voidvm.operations.progress import ProgressSink
from voidvm.telemetry import UNMATCHED

log = logging.getLogger(__name__)

# What is still read of a body that has been refused.
DRAIN_BYTES = 64 * 1024**2
DRAIN_S = 5.0
# The caller hung up before the answer; what nginx calls it.
HUNG_UP = 499
TARGET_MAX = 255
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_UNROUTED = (NotFound, MethodNotAllowed, PayloadTooLarge, BadRequest)


def _body(request: Request, endpoint: Endpoint) -> Any:
    if endpoint.method in {"GET", "DELETE"}:
        return Nothing()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if endpoint.streams is not None:
        if media_type != endpoint.streams:
            raise errors.UnsupportedMediaType(
                media_type or "no Content-Type was sent", hint=f"Send {endpoint.streams}."
            )
        return Nothing()
    raw = request.body
    if not raw:
        return decode(endpoint.body, {})
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


def http_handler(endpoint: Endpoint, gate: Gate) -> Callable[..., Awaitable[HTTPResponse]]:
    """The server's handler of an endpoint: every answer, good or bad, leaves through here."""

    async def handle(request: Request, **path: str) -> HTTPResponse:
        try:
            response = await _answer(request, endpoint, gate, path)
        except asyncio.CancelledError:
            # What was begun goes on, or was done: the log must know of it.
            note(request, endpoint, gate, status=HUNG_UP)
            raise
        except (VoidVMError, SanicException, OSError) as error:
            response = error_response(request, error)
        except Exception:
            log.exception("request %s failed", request.ctx.request_id)
            response = error_response(request, errors.InternalError())
        note(request, endpoint, gate, status=response.status)
        if endpoint.streams is not None and response.status >= 400:
            await _take_rest(request)
        return response

    handle.__name__ = endpoint.name
    return handle


async def _take_rest(request: Request) -> None:
    """Take in what a refused client still sends, within bounds.

    A connection that is closed over unread bytes is reset, and the answer is lost with it
    (RFC 9112, 9.6).
    """
    left = DRAIN_BYTES
    with suppress(TimeoutError, SanicException):
        async with asyncio.timeout(DRAIN_S):
            while left > 0 and request.stream.request_body:
                left -= len(await request.stream.read() or b"")


async def _answer(
    request: Request, endpoint: Endpoint, gate: Gate, path: dict[str, str]
) -> HTTPResponse:
    principal = await admit(request, endpoint, gate)
    check_access(principal, endpoint)
    call = Call(
        services=gate.services,
        principal=principal,
        path=path,
        body=_body(request, endpoint),
        query=read_query(request, endpoint),
        precondition=Precondition.parse(",".join(request.headers.getall("if-match", []))),
        address=request.ctx.address,
        request=request,
    )
    key = request.headers.get("idempotency-key")
    if key is None or endpoint.method != "POST":
        return success(request, endpoint, await _handle(request, endpoint, gate, call))
    return await _answer_once(request, endpoint, gate, call, key)


async def _handle(
    request: Request, endpoint: Endpoint, gate: Gate, call: Call[Any, Any]
) -> Answer | RawAnswer:
    """The handler's answer, or an operation in which it goes on (RFC 7240)."""
    if endpoint.is_wait:
        return await while_allowed(
            endpoint.handler(call),
            endpoint=endpoint,
            principal=call.principal,
            accounts=gate.services.accounts,
            bus=gate.bus,
        )
    wishes = {wish.strip().lower() for wish in request.headers.get("prefer", "").split(",")}
    if not endpoint.is_action or "respond-async" not in wishes:
        return await endpoint.handler(call)
    record = await call.services.vms.find(call.principal, call.path["vm"])

    async def work(_progress: ProgressSink) -> None:
        await endpoint.handler(call)

    operation = await call.services.jobs.submit(
        call.principal,
        endpoint.name.replace("_", "-"),
        work,
        resources=[f"/api/v1/vms/{record.id}"],
        vm_id=record.id,
        may_cancel=False,
        is_quick=True,
    )
    return accepted(operation)


async def _answer_once(
    request: Request, endpoint: Endpoint, gate: Gate, call: Call[Any, Any], key: str
) -> HTTPResponse:
    is_public = endpoint.access is Access.PUBLIC

    async def work(seed: bytes) -> StoredAnswer:
        own = dataclasses.replace(call, seed=seed)
        try:
            return stored(success(request, endpoint, await _handle(request, endpoint, gate, own)))
        except VoidVMError as error:
            is_final = error.status < 500 and not error.retryable and not is_public
            return stored(error_response(request, error), is_final=is_final)

    digest = hashlib.sha256()
    for part in (request.method, request.path, request.query_string):
        digest.update(part.encode() + b"\0")
    if endpoint.is_secret or endpoint.access is Access.SIGNED_IN:
        # About the credential itself: another one of the same user must not get its answer.
        digest.update(call.principal.session_id.encode() + b"\0")
    digest.update(request.body)
    answer = await call.services.idempotency.once(
        # Strangers have no row that an answer could belong to.
        f"address {call.address}" if is_public else call.principal.user_id,
        key,
        request_hash=digest.digest(),
        is_secret=endpoint.is_secret,
        work=work,
    )
    request.ctx.error_code = error_code_of(answer)
    if answer.is_replayed and "location" in answer.headers:
        request.ctx.target = answer.headers["location"].rpartition("/")[2]
    return replay(answer)


async def admit(request: Request, endpoint: Endpoint, gate: Gate) -> Principal:
    """The caller, counted against its limit: a user by its id, everybody else by address.

    Raises `Unauthorized`, `SessionEnded`, `RateLimited`.
    """
    request.ctx.address = address = address_of(request, gate.proxies)
    try:
        principal = await identify(request, endpoint, gate.services.accounts)
    except VoidVMError:
        request.ctx.limits = await gate.requests.take("address", network_of(address))
        raise
    request.ctx.principal = principal
    if endpoint.is_limited:
        is_user = bool(principal.user_id)
        kind, caller = ("user", principal.user_id) if is_user else ("address", network_of(address))
        request.ctx.limits = await gate.requests.take(kind, caller)
    return principal


async def refuse_unrouted(request: Request, exception: Exception, gate: Gate) -> HTTPResponse:
    """The answer to what reached no endpoint: no such address or method, a body too large.

    It counts as a request of its caller's, and what is more than a look is noted. Not so the end
    of a request that did reach one, which the server tells here as well.
    """
    is_refusal = isinstance(exception, _UNROUTED)
    try:
        if is_refusal:
            await _count_unrouted(request, gate)
    except VoidVMError as error:
        exception = error
    response = error_response(request, exception)
    began = getattr(request.ctx, "started", None)
    seconds = time.perf_counter() - began if began is not None else 0.0
    gate.telemetry.request(UNMATCHED, request.method, response.status, seconds)
    if is_refusal and request.method in _CHANGING and not request.ctx.is_old:
        code = request.ctx.error_code
        # Its address may hold anything, so it is not told.
        note_action(request, gate, action=UNMATCHED, target=None, status=response.status, code=code)
    return response


async def _count_unrouted(request: Request, gate: Gate) -> None:
    request.ctx.address = address = address_of(request, gate.proxies)
    kind, caller = "address", network_of(address)
    if (token := bearer_of(request)) is not None:
        with suppress(VoidVMError):
            request.ctx.principal = await gate.services.accounts.authenticate(token)
            kind, caller = "user", request.ctx.principal.user_id
    request.ctx.limits = await gate.requests.take(kind, caller)


def note(request: Request, endpoint: Endpoint, gate: Gate, *, status: int) -> None:
    """Measure how long the answer took, and put what was done, or tried, into the audit log.

    Mere looking is not kept; nor is a flood: of what the request limit turns away, one a minute
    and caller is enough. Who hangs up before the limit was asked has begun nothing.
    """
    context = request.ctx
    seconds = time.perf_counter() - context.started
    gate.telemetry.request(endpoint.path, endpoint.method, status, seconds)
    if status == HUNG_UP and endpoint.is_limited and not hasattr(context, "limits"):
        return
    if (endpoint.method == "GET" and not endpoint.is_socket) or getattr(context, "is_old", False):
        return
    target = getattr(context, "target", None) or next(iter(request.match_info.values()), None)
    code = getattr(context, "error_code", None)
    note_action(request, gate, action=endpoint.name, target=target, status=status, code=code)


def note_action(
    request: Request, gate: Gate, *, action: str, target: str | None, status: int, code: str | None
) -> None:
    """Put an action of the request's caller into the audit log."""
    context = request.ctx
    principal = getattr(context, "principal", NOBODY)
    user_id, username = getattr(context, "actor", (principal.user_id, principal.username))
    gate.services.audit.note(
        AuditEntry(
            at=datetime.now(UTC),
            level=level_of(status),
            user_id=user_id or None,
            username=username or getattr(context, "claimed", None),
            address=getattr(context, "address", "unknown"),
            action=action,
            target=target[:TARGET_MAX] if target else None,
            status=status,
            code=code,
            request_id=context.request_id,
        )
    )


def error_response(request: Request, exception: Exception) -> HTTPResponse:
    """Any failure as an envelope; what is our fault goes to the log with its traceback."""
    if not hasattr(request.ctx, "request_id"):
        request.ctx.request_id = uuid4().hex
    error = _as_ours(request, exception)
    is_explained = isinstance(exception, VoidVMError | RequestCancelled)
    if isinstance(error, errors.InternalError) and not is_explained:
        log.error("request %s failed", request.ctx.request_id, exc_info=exception)
    request.ctx.error_code = error.code
    request.ctx.limits = error.fields.get("headers") or getattr(request.ctx, "limits", {})
    request.ctx.is_old = error.fields.get("is_news", True) is False
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
            error = errors.of_host(exception) or errors.InternalError()
    return error
