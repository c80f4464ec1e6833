"""The OpenAPI description, made from the endpoint records and the structs."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

import msgspec

from voidvm import __version__, errors
from voidvm.api.examples import EXAMPLES
from voidvm.api.routing import Access, Endpoint, Nothing
from voidvm.domain.permission import Permission
from voidvm.errors import VoidVMError

Json = dict[str, Any]

_ABOUT = """
Virtual machines on one Linux host.

Sign in with `POST /api/v1/auth/login` and send `Authorization: Bearer <token>`; API tokens
(`POST /api/v1/auth/tokens`) do as well. Answers are
`{"success": true, "data": …, "message": …, "timestamp": …}`. Errors have `error` with a `code`
that never changes, a `message` for people (English, or Chinese with `Accept-Language: zh`) and
`retryable`. Sizes: `memory` in MiB, `disk` in GiB, others say `Bytes`; times are RFC 3339, UTC.
"""
# The order of the page; what is not named comes last.
_TAGS = ("auth", "vms", "console", "ws", "disks", "images", "operations", "events", "metrics")
_PATH_PARAMETERS = {
    "vm": "Its id or name.",
    "image": "Its id or name.",
    "user": "Its id or name.",
    "token": "Its id.",
    "upload": "Its id.",
    "operation": "Its id.",
    "disk": "Its id, such as `disk0`.",
    "file": "Its name.",
}

_REF = "#/components/schemas/{name}"

# What any endpoint may answer; those with a credential add theirs.
_EVERYWHERE: tuple[type[VoidVMError], ...] = (
    errors.ValidationFailed,
    errors.PayloadTooLarge,
    errors.RateLimited,
    errors.InternalError,
    errors.DatabaseUnusable,
    errors.ServiceStopping,
    errors.TooManyFiles,
    errors.NoSpace,
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
            "description": _ABOUT.strip(),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": _tags(records),
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**components, "ErrorAnswer": _ERROR_SCHEMA},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _tags(records: list[Endpoint]) -> list[Json]:
    """The nouns in the page's order, each with what its module says it is."""
    modules = {record.tag: record.handler.__module__ for record in records}
    order = [*_TAGS, *sorted(modules.keys() - set(_TAGS))]
    about = {tag: (sys.modules[modules[tag]].__doc__ or "").partition("\n")[0] for tag in order}
    return [{"name": tag, "description": about[tag]} for tag in order]


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
        "summary": summary.replace("`", ""),  # plain text, unlike the description
        "responses": _responses(record, by_type),
    }
    if isinstance(record.access, Permission):
        rest = f"{rest}\n\nPermission: `{record.access}`."
    if rest.strip():
        operation["description"] = rest.strip()
    if not is_public:
        operation["security"] = [{"token": []}]
    if parameters := list(_parameters(record, components)):
        operation["parameters"] = parameters
    if record.streams is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {record.streams: {"schema": {"type": "string", "format": "binary"}}},
        }
    if record.body is not Nothing:
        operation["requestBody"] = {
            "required": bool(components[record.body.__name__].get("required")),
            "content": {
                "application/json": {
                    "schema": by_type[record.body],
                    "example": EXAMPLES[record.body],
                }
            },
        }
    return operation


def _parameters(record: Endpoint, components: Json) -> Iterator[Json]:
    text = {"type": "string"}
    for name in record.parameters:
        yield _parameter(name, "path", text, _PATH_PARAMETERS[name], is_required=True)
    if record.query is not Nothing:
        query = components[record.query.__name__]
        for name, schema in query["properties"].items():
            is_required = name in query.get("required", ())
            about = _description(schema, components)
            yield _parameter(name, "query", schema, about, is_required=is_required)
    if record.method == "POST":
        about = "With the same key and body, the first answer comes again, for a day."
        yield _parameter("Idempotency-Key", "header", text, about)
    if errors.PreconditionFailed in record.errors:
        about = "The object's `ETag`: somebody else's change in between is answered 412."
        yield _parameter("If-Match", "header", text, about)
    if record.streams is not None:
        about = "Where these bytes belong; GET the upload for it."
        yield _parameter("Upload-Offset", "header", text, about, is_required=True)
    if record.is_action:
        about = "`respond-async`: answer 202 with an operation at once."
        yield _parameter("Prefer", "header", text, about)


def _parameter(
    name: str, place: str, schema: Json, about: str, *, is_required: bool = False
) -> Json:
    found = {"name": name, "in": place, "required": is_required, "schema": schema}
    return {**found, "description": about} if about else found


def _description(schema: Json, components: Json) -> str:
    """What a schema says about itself, or the one of its kinds that says something."""
    if "$ref" in schema:
        return _description(components[schema["$ref"].rpartition("/")[2]], components)
    about = [schema.get("description", "")]
    about += [_description(kind, components) for kind in schema.get("anyOf", ())]
    return next(filter(None, about), "")


def _responses(record: Endpoint, by_type: dict[Any, Json]) -> Json:
    answers: Json = {}
    if record.is_socket:
        answers["101"] = {"description": "The connection is a WebSocket from here on."}
    elif record.media_type is not None:
        kind = "object" if record.media_type == "application/json" else "string"
        content: Json = {record.media_type: {"schema": {"type": kind}}}
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
