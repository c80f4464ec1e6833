"""The OpenAPI description, made from the endpoint records and the structs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from voidvm import __version__, errors
from voidvm.api.routing import Access, Endpoint, Nothing
from voidvm.domain.permission import Permission
from voidvm.errors import VoidVMError

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"

# What any endpoint may answer; those with a credential add theirs.
_EVERYWHERE: tuple[type[VoidVMError], ...] = (
    errors.ValidationFailed,
    errors.PayloadTooLarge,
    errors.RateLimited,
    errors.InternalError,
    errors.ServiceStopping,
)
_WITH_BODY = (errors.UnsupportedMediaType,)

_ALSO = {
    200: "Nothing was made: only what would be.",
    202: "Accepted: an operation, whose address is in `Location`.",
}

_ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["success", "error", "timestamp"],
    "additionalProperties": False,
    "properties": {
        "success": {"const": False},
        "timestamp": {"type": "string", "format": "date-time"},
        "error": {
            "type": "object",
            "required": ["code", "message", "details", "requestId", "retryable"],
            "additionalProperties": False,
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string", "description": "In the language asked for."},
                "details": {"type": "string"},
                "requestId": {"type": "string"},
                "retryable": {"type": "boolean"},
                "hint": {"type": "string", "description": "What to do about it."},
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["field", "message"],
                        "additionalProperties": False,
                        "properties": {
                            "field": {"type": "string"},
                            "message": {"type": "string"},
                        },
                    },
                },
            },
        },
    },
}


def describe(endpoints: Iterable[Endpoint]) -> Json:
    """The whole document, OpenAPI 3.1."""
    records = list(endpoints)
    types = _types(records)
    schemas, components = msgspec.json.schema_components(
        types, ref_template=_REF, schema_hook=_schema_of
    )
    by_type = dict(zip(types, schemas, strict=True))
    paths: Json = defaultdict(dict)
    for record in records:
        for number, path in enumerate(record.addresses):
            operation = _operation(record, by_type, components)
            if number:
                operation["operationId"] += f"_{number}"
            paths[path][record.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "VoidVM",
            "version": __version__,
            "description": "Virtual machines on one Linux host. Sizes: memory in MiB, disk in "
            "GiB; times in RFC 3339, UTC. Names and ids both work where a path says {vm}.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**components, "ErrorAnswer": _ERROR_SCHEMA},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schema_of(kind: type) -> Json:
    """What msgspec has no schema for: `object` stands for any JSON value."""
    if kind is object:
        return {"description": "Any value."}  # msgspec takes an empty one for none
    raise NotImplementedError


def _types(records: list[Endpoint]) -> list[Any]:
    found: list[Any] = []
    for record in records:
        mentioned = (record.body, record.query, record.returns, *record.also.values())
        for kind in (*mentioned, *record.messages):
            if kind not in {None, Nothing} and kind not in found:
                found.append(kind)
    return found


def _operation(record: Endpoint, by_type: dict[Any, Json], components: Json) -> Json:
    is_public = record.access is Access.PUBLIC
    summary, _, rest = record.summary.partition("\n")
    operation: Json = {
        "operationId": record.name,
        "tags": [record.tag],
        "summary": summary,
        "responses": _responses(record, by_type),
    }
    if isinstance(record.access, Permission):
        rest = f"{rest}\n\nPermission: `{record.access}`."
    if rest.strip():
        operation["description"] = rest.strip()
    if not is_public:
        operation["security"] = [{"token": []}]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in record.parameters
    ]
    if record.query is not Nothing:
        parameters += _query_parameters(components[record.query.__name__])
    if parameters:
        operation["parameters"] = parameters
    if record.streams is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {record.streams: {"schema": {"type": "string", "format": "binary"}}},
        }
    if record.body is not Nothing:
        operation["requestBody"] = {
            "required": bool(components[record.body.__name__].get("required")),
            "content": {"application/json": {"schema": by_type[record.body]}},
        }
    return operation


def _query_parameters(schema: Json) -> list[Json]:
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": value}
        for name, value in schema["properties"].items()
    ]


def _responses(record: Endpoint, by_type: dict[Any, Json]) -> Json:
    answers: Json = {}
    if record.is_socket:
        answers["101"] = {"description": "The connection is a WebSocket from here on."}
    elif record.media_type is not None:
        content: Json = {record.media_type: {"schema": {"type": "string"}}}
        answers[str(record.status)] = {"description": record.done[0], "content": content}
    else:
        for status, kind in {record.status: record.returns, **record.also}.items():
            schema = _envelope(by_type.get(kind, {"type": "null"}))
            answers[str(status)] = {
                "description": record.done[0] if status == record.status else _ALSO[status],
                "content": {"application/json": {"schema": schema}},
            }
    for status, kinds in sorted(_errors(record).items()):
        codes = ", ".join(f"`{kind.code}`" for kind in kinds)
        answers[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}: {codes}",
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}
            },
        }
    return answers


def _errors(record: Endpoint) -> dict[int, list[type[VoidVMError]]]:
    kinds: list[type[VoidVMError]] = [*_EVERYWHERE, *record.errors]
    if record.method in {"POST", "PUT", "PATCH"}:
        kinds += _WITH_BODY
    if record.holds_connection:
        kinds.append(errors.OriginRefused)
    if record.method == "POST":
        kinds.append(errors.IdempotencyConflict)
    if record.method != "GET":
        kinds.append(errors.NoSpace)
    if record.access is not Access.PUBLIC:
        kinds += [errors.Unauthorized, errors.SessionEnded]
        if not record.is_open_before_password_change:
            kinds.append(errors.PasswordChangeRequired)
    if isinstance(record.access, Permission):
        kinds.append(errors.Forbidden)
    found: dict[int, list[type[VoidVMError]]] = defaultdict(list)
    for kind in sorted(set(kinds), key=lambda kind: kind.code):
        found[kind.status].append(kind)
    return found


def _envelope(data: Json) -> Json:
    return {
        "type": "object",
        "required": ["success", "data", "message", "timestamp"],
        "properties": {
            "success": {"const": True},
            "data": data,
            "message": {"type": "string"},
            "timestamp": {"type": "string", "format": "date-time"},
        },
    }
