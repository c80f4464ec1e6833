"""An HTTP client that holds every answer against the service's own OpenAPI document."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import httpx
from jsonschema_rs import Draft202012Validator, Registry, ValidationError, ValidationErrorKind

Json = Any
DOCUMENT = "urn:voidvm:openapi"


class Contract:
    """The OpenAPI document, as something that answers can be checked against."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._registry = Registry([(DOCUMENT, document)])
        self._validators: dict[str, Draft202012Validator] = {}
        self._templates = [(path, _pattern(path)) for path in document["paths"]]

    def check(self, response: httpx.Response) -> None:
        """Fail unless the document has this answer, status, headers and body."""
        method, path = response.request.method, response.request.url.raw_path.decode()
        operation = self.operation(method, path.partition("?")[0])
        assert response.headers.get("x-request-id"), f"{method} {path}: no X-Request-Id"
        if operation is None:
            is_known = response.status_code in {404, 405, 429}
            assert is_known, f"{method} {path} is not in the document"
            self._check_schema({"$ref": "#/components/schemas/ErrorAnswer"}, response.json())
            return
        _, responses = operation
        status = str(response.status_code)
        assert status in responses, f"{method} {path} answered {status}: {response.text}"
        content = responses[status].get("content")
        if content is None:
            return
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in content or "*/*" in content, (
            f"{method} {path}: {media_type}, not {sorted(content)}"
        )
        if media_type == "application/json" and "schema" in content.get(media_type, {}):
            self._check_schema(content[media_type]["schema"], response.json())

    def operation(self, method: str, path: str) -> tuple[str, Json] | None:
        """The place in the document and the answers of what is called; None: not described."""
        for template, pattern in self._templates:
            if pattern.fullmatch(path) and method.lower() in self.document["paths"][template]:
                escaped = template.replace("~", "~0").replace("/", "~1")
                operation = self.document["paths"][template][method.lower()]
                return f"/paths/{escaped}/{method.lower()}/responses", operation["responses"]
        return None

    def _check_schema(self, schema: Json, value: Json) -> None:
        text = json.dumps(schema)
        validator = self._validators.get(text)
        if validator is None:
            validator = self._validators[text] = Draft202012Validator(
                json.loads(text.replace('"#/', f'"{DOCUMENT}#/')),
                registry=self._registry,
                validate_formats=True,
            )
        problems = [
            f"{'.'.join(map(str, error.instance_path))}: {error.message}"
            for error in _leaves(validator.iter_errors(value))
        ]
        assert not problems, "; ".join(problems)


@cache
def contract(document: bytes) -> Contract:
    """The contract of a service; services of one version share it, with what it has compiled."""
    return Contract(json.loads(document))


def _leaves(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    """The errors that say most: those of each alternative in the place of "none of them"."""
    for error in errors:
        if isinstance(error.kind, ValidationErrorKind.AnyOf | ValidationErrorKind.OneOfNotValid):
            yield from itertools.chain.from_iterable(error.kind.context)
        else:
            yield error


def _pattern(template: str) -> re.Pattern[str]:
    # Literal paths win over templates because the document lists them sorted: "catalog" < "{".
    return re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)))


class Api:
    """Calls of the API in few words; every answer is checked against the document."""

    def __init__(self, client: httpx.Client, contract: Contract, token: str | None = None) -> None:
        self.client = client
        self.contract = contract
        self.token = token

    def call(self, method: str, path: str, **options: Json) -> httpx.Response:
        """The answer, whatever it is; `path` below /api/v1 unless it begins with two slashes."""
        headers = dict(options.pop("headers", {}))
        if self.token and "authorization" not in {name.lower() for name in headers}:
            headers["authorization"] = f"Bearer {self.token}"
        address = path[1:] if path.startswith("//") else f"/api/v1{path}"
        response = self.client.request(method, address, headers=headers, **options)
        self.contract.check(response)
        return response

    def ok(self, method: str, path: str, body: Json = None, **options: Json) -> Json:
        """The `data` of an answer that must be a success."""
        if body is not None:
            options["json"] = body
        response = self.call(method, path, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()["data"]

    def refused(
        self, method: str, path: str, code: str, body: Json = None, **options: Json
    ) -> Json:
        """The `error` of an answer that must carry this code."""
        if body is not None:
            options["json"] = body
        response = self.call(method, path, **options)
        assert not response.is_success, f"{method} {path}: {response.text}"
        error = response.json()["error"]
        assert error["code"] == code, error
        return error

    def as_user(self, token: str | None) -> Api:
        """The same service for somebody else."""
        return Api(self.client, self.contract, token)

    # What most tests begin with

    def create(self, name: str, **wanted: Json) -> Json:
        """A small VM of the guest `tiny`."""
        defaults = {"os": "tiny", "memory": 256, "disk": 1}
        return self.ok("POST", "/vms", {"name": name, **defaults, **wanted})

    def start(self, vm: str) -> Json:
        """Start a VM."""
        return self.ok("POST", f"/vms/{vm}/start")

    def stop(self, vm: str, *, force: bool = True, timeout: float = 60) -> Json:
        """Stop a VM, at once unless told otherwise."""
        return self.ok("POST", f"/vms/{vm}/stop", {"force": force, "timeout": timeout})

    def remove(self, vm: str) -> None:
        """Delete a VM, running or not."""
        self.ok("DELETE", f"/vms/{vm}", params={"force": "true"})
