"""The description of the API: valid, complete, and there without a credential."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.support.contract import Api
from voidvm import __version__, errors
from voidvm.api.examples import EXAMPLES
from voidvm.api.routing import ENDPOINTS, Access, Endpoint, Nothing
from voidvm.domain.states import VmStatus


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def test_the_document_is_valid(anybody: Api) -> None:
    document = anybody.call("GET", "//docs/openapi.json").json()
    from openapi_spec_validator import (  # noqa: PLC0415 - takes half a second
        OpenAPIV31SpecValidator,
    )

    OpenAPIV31SpecValidator(document).validate()
    assert document["info"]["version"] == __version__


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=shown)
def test_every_endpoint_is_in_the_document(anybody: Api, endpoint: Endpoint) -> None:
    paths = anybody.contract.document["paths"]
    assert set(endpoint.addresses) <= set(paths)
    operation = paths[endpoint.addresses[0]][endpoint.method.lower()]
    assert operation["operationId"] == endpoint.name
    assert operation["summary"]
    assert operation["responses"]
    assert ("security" in operation) is (endpoint.access is not Access.PUBLIC)
    if endpoint.access is not Access.PUBLIC:
        assert "401" in operation["responses"]
    named = {item["name"] for item in operation.get("parameters", ()) if item["in"] == "path"}
    assert named == set(endpoint.parameters)


def test_the_document_has_nothing_that_is_not_served(anybody: Api) -> None:
    described = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, operations in anybody.contract.document["paths"].items()
        for method in operations
    }
    assert described == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_descriptions_are_text_and_tables_as_markdown_has_them(anybody: Api) -> None:
    # Four blanks before a line would make a block of code of it.
    for name, operation in operations(anybody.contract.document):
        assert "\n    " not in operation.get("description", ""), name
        assert "`" not in operation["summary"], name
    ws = anybody.contract.document["paths"]["/ws"]["get"]["description"]
    assert "\n\n| topic | push | of what |\n| --- | --- | --- |\n" in ws


def test_every_parameter_says_what_it_is_or_which_values_it_takes(anybody: Api) -> None:
    bare = [
        f"{name}: {parameter['name']}"
        for name, operation in operations(anybody.contract.document)
        for parameter in operation.get("parameters", ())
        if "description" not in parameter and "enum" not in json.dumps(parameter["schema"])
    ]
    assert bare == []


def test_every_body_has_an_example_that_fits(anybody: Api) -> None:
    for kind, example in EXAMPLES.items():
        msgspec.convert(example, kind)
    used = {endpoint.body for endpoint in ENDPOINTS} - {Nothing}
    assert used == EXAMPLES.keys()
    login = anybody.contract.document["paths"]["/api/v1/auth/login"]["post"]
    assert login["requestBody"]["content"]["application/json"]["example"]["username"] == "admin"


def test_tags_are_described(anybody: Api) -> None:
    document = anybody.contract.document
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert described == {tag for _, operation in operations(document) for tag in operation["tags"]}


def test_limits_of_fields_are_in_the_document(anybody: Api) -> None:
    schemas = anybody.contract.document["components"]["schemas"]
    fields = schemas["VmCreate"]["properties"]
    assert fields["cpu"]["minimum"] == 1
    assert fields["memory"]["default"] == 1024
    assert schemas["VmCreate"]["required"] == ["name"]
    assert schemas["VmStatus"]["enum"] == sorted(VmStatus)


def test_codes_of_errors_are_in_the_document(anybody: Api) -> None:
    text = json.dumps(anybody.contract.document)
    # No endpoint's own: addresses that are none, and why an operation failed.
    general = {"NOT_FOUND", "METHOD_NOT_ALLOWED"}
    of_operations = {
        *("CHECKSUM_MISMATCH", "DOWNLOAD_FAILED", "DOWNLOAD_REFUSED"),
        *("IMAGE_INVALID", "IMAGE_TOO_LARGE", "URL_REFUSED"),
    }
    codes = {kind.code for kind in errors.registry()} - general - of_operations
    assert {code for code in codes if f"`{code}`" not in text} == set()


def test_the_page_loads_only_what_is_here(anybody: Api) -> None:
    page = anybody.call("GET", "//docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 4
    for address in addresses:
        assert address.startswith("/docs/assets/")
        assert anybody.call("GET", f"/{address}").status_code == 200


@pytest.mark.parametrize("name", ["../docs.py", "..%2f..%2fdocs.py", "index.html", "%00"])
def test_other_files_are_not_served(anybody: Api, name: str) -> None:
    assert anybody.call("GET", f"//docs/assets/{name}").status_code == 404


def test_health_needs_no_credential(anybody: Api) -> None:
    answer = anybody.call("GET", "//health").json()
    assert answer["status"] == answer["data"]["status"] == "ok"
    assert answer["data"]["version"] == __version__
    assert answer["data"]["uptime"] >= 0
    assert answer["data"].keys() == {"status", "reasons", "version", "uptime"}
    assert answer["data"]["reasons"] == []
