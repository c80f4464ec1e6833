"""The parts of the JavaScript SDK that are made from the service's own registries."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from voidvm.api import server  # noqa: F401 - registers the endpoints
from voidvm.api.openapi import describe
from voidvm.api.routing import ENDPOINTS, Access
from voidvm.errors import VoidVMError, registry

_SOURCE = Path("sdk/js/src")
ERRORS, ROUTES, SCHEMA = (_SOURCE / name for name in ("codes.ts", "routes.ts", "schema.ts"))

_MADE = "// Made by scripts/docs.py from {origin}; do not edit.\n"
_TOOL = "node_modules/.bin/openapi-typescript"
# Requests may leave out what has a default, and types have the names that the document gives them.
_OPTIONS = (
    "--immutable",
    "--default-non-nullable=false",
    "--root-types",
    "--root-types-no-schema-prefix",
    "--root-types-keep-casing",
)


def errors_source() -> str:
    """A class for each error code."""
    kinds = list(registry())
    table = "".join(f"  {kind.code}: {kind.__name__},\n" for kind in kinds)
    return (
        _MADE.format(origin="voidvm/errors/")
        + '\nimport { ApiError } from "./errors.js";\n'
        + "".join(map(_error_class, kinds))
        + "\n/** The class of each code. */\n"
        + f"export const CLASSES: Readonly<Record<string, typeof ApiError>> = {{\n{table}}};\n"
    )


def _error_class(kind: type[VoidVMError]) -> str:
    about = " ".join((kind.__doc__ or "").split()).replace("*/", "* /")
    return (
        f"\n/** `{kind.code}` ({kind.status}): {about} */\n"
        f"export class {kind.__name__} extends ApiError {{}}\n"
    )


def routes_source() -> str:
    """Method and path of each operation, and which of them need no credential."""
    rows = "".join(f'  {one.name}: ["{one.method}", "{one.addresses[0]}"],\n' for one in ENDPOINTS)
    public = "".join(f'  "{one.name}",\n' for one in ENDPOINTS if one.access is Access.PUBLIC)
    return (
        _MADE.format(origin="the route table")
        + "\n/** Where each operation is served. */\n"
        + f"export const ROUTES = {{\n{rows}}} as const;\n"
        + "\n/** Operations that take no credential. */\n"
        + f"export const PUBLIC: ReadonlySet<string> = new Set([\n{public}]);\n"
    )


def schema_head() -> str:
    """The first line of the types, which changes whenever they would."""
    digest = hashlib.sha256(json.dumps(_document(), sort_keys=True).encode()).hexdigest()
    return _MADE.format(origin=f"the OpenAPI document {digest[:16]}")


def schema_source(root: Path) -> str:
    """The types of all bodies and answers. Raises `FileNotFoundError` before `npm ci`."""
    done = subprocess.run(
        [root / "sdk/js" / _TOOL, *_OPTIONS],
        cwd=root / "sdk/js",
        input=json.dumps(_document()),
        capture_output=True,
        text=True,
        check=True,
    )
    return f"{schema_head()}\n{done.stdout}"


def _document() -> dict[str, Any]:
    """What types are made from: errors have one form everywhere, so it stands there once."""
    document = describe(ENDPOINTS)
    del document["info"]["version"], document["info"]["description"]
    for path in document["paths"].values():
        for operation in path.values():
            answers = operation["responses"]
            operation["responses"] = {
                status: answer for status, answer in answers.items() if re.match("[123]", status)
            }
    return document
