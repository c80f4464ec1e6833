"""`voidvm api METHOD PATH`: any call of the API, with the saved login."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qs, urlsplit

import typer

from voidvm.cli.completion import complete_path
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.files import read_bytes, read_text
from voidvm.cli.options import Token, Url
from voidvm.cli.output import print_json
from voidvm.cli.remote import TIMEOUT_S, Json, Remote, connect

if TYPE_CHECKING:
    import httpx

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_FIELD = re.compile(r"([^=\[\]]+)((?:\[[^=\[\]]*\])*)=(.*)", re.DOTALL)
_PAGE = 200
# The service says something every 15 s in a stream, if only that it is there.
_SILENCE_S = 40.0


def _complete_method(incomplete: str) -> list[str]:
    return [name for name in _METHODS if name.startswith(incomplete.upper())]


Method = Annotated[
    str,
    typer.Argument(
        metavar="METHOD",
        help=", ".join(_METHODS) + ".",
        autocompletion=_complete_method,
        parser=str.upper,
    ),
]
Path = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="Below /api/v1, such as /vms; /health, /metrics and /docs are beside it.",
        autocompletion=complete_path,
    ),
]
RawFields = Annotated[
    list[str] | None,
    typer.Option("--raw-field", "-f", metavar="KEY=VALUE", help="A field that is text."),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        "-F",
        metavar="KEY=VALUE",
        help="A field whose value is read as JSON where it is any; @FILE is a file's text.",
    ),
]
Body = Annotated[
    str | None,
    typer.Option("--input", metavar="FILE", help="The body, - for stdin; fields: the query."),
]
Headers = Annotated[
    list[str] | None, typer.Option("--header", "-H", metavar="NAME:VALUE", help="A header.")
]
Paginate = Annotated[bool, typer.Option("--paginate", help="All pages of a list, as one.")]
Include = Annotated[bool, typer.Option("--include", "-i", help="Print the answer's headers, too.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds for the answer.")]


def call_api(
    method: Method,
    path: Path,
    raw_field: RawFields = None,
    field: Fields = None,
    body: Body = None,
    header: Headers = None,
    paginate: Paginate = False,
    include: Include = False,
    timeout: Timeout = TIMEOUT_S,
    url: Url = None,
    token: Token = None,
) -> None:
    """Make any call of the API, and print the data of its answer.

    Fields are the body, of GET and DELETE the query; KEY may be nested: cloudInit[user]=ada,
    tags[]=web. The API describes itself at /docs.

    Examples: voidvm api GET /vms --paginate · voidvm api POST /vms -f name=web -F cpu=2
    """
    if method not in _METHODS:
        raise CliError(f"'{method}' is no method: {', '.join(_METHODS)}", exit_status=Exit.USAGE)
    remote = connect(url, token)
    place, query = _split(path, remote)
    fields = _fields(raw_field or (), field or ())
    headers = dict(_header(one) for one in header or ())
    content: bytes | None = None
    if body is not None:
        content = read_bytes(body)
        headers = {"content-type": "application/json", **headers}
    if body is not None or method in {"GET", "DELETE"}:
        query |= {key: _plain(value) for key, value in fields.items()}
        fields = {}
    if method == "GET" and place == "/events/stream":
        for line in remote.lines(place, query=query, silence_s=_SILENCE_S):
            print(line, flush=True)
        return
    ask = _Question(remote, method, place, headers=headers, timeout_s=timeout)
    if paginate and method != "GET":
        raise CliError("only what GET answers has pages", exit_status=Exit.USAGE)
    if paginate:
        print_json(ask.all_pages(query))
        return
    _print(ask.answer(query, body=fields or None, content=content), is_with_headers=include)


class _Question:
    """A call that may be made more than once, of which only the query differs."""

    def __init__(
        self, remote: Remote, method: str, path: str, *, headers: dict[str, str], timeout_s: float
    ) -> None:
        self._remote = remote
        self._method = method
        self._path = path
        self._headers = headers
        self._timeout_s = timeout_s

    def answer(
        self,
        query: dict[str, Json],
        *,
        body: dict[str, Json] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """The answer. Raises `ServiceError`, `Unreachable`."""
        return self._remote.request(
            self._method,
            self._path,
            query=query,
            body=body,
            content=content,
            headers=self._headers,
            timeout_s=self._timeout_s,
        )

    def all_pages(self, query: dict[str, Json]) -> Json:
        """The data of all pages: lists one behind the other, and of all else the last."""
        query = {"limit": _PAGE, **query}
        whole: Json = None
        while True:
            try:
                data = self.answer(query).json()["data"]
            except (ValueError, KeyError, TypeError) as error:
                raise CliError(f"{self._path} has no pages", exit_status=Exit.USAGE) from error
            whole = data if whole is None else _joined(whole, data)
            following = _following(data)
            if following is None:
                return whole
            query |= following


def _following(data: Json) -> dict[str, Json] | None:
    """What asks for the next page; None after the last one."""
    if not isinstance(data, dict):
        return None
    if pagination := data.get("pagination"):
        is_last = pagination["page"] >= pagination["pages"]
        return None if is_last else {"page": pagination["page"] + 1}
    return {"after": data["lastId"]} if data.get("hasMore") else None


def _joined(before: Json, after: Json) -> Json:
    return {
        key: [*before[key], *value] if isinstance(value, list) else value
        for key, value in after.items()
    }


def _print(response: httpx.Response, *, is_with_headers: bool) -> None:
    if is_with_headers:
        reason = HTTPStatus(response.status_code).phrase
        print(f"HTTP/1.1 {response.status_code} {reason}")
        for name, value in response.headers.items():
            print(f"{name}: {value}")
        print(flush=True)
    try:
        answer = response.json()
    except ValueError:
        sys.stdout.buffer.write(response.content)
        return
    data = answer["data"] if isinstance(answer, dict) and "success" in answer else answer
    if data is not None:
        print_json(data)


def _split(path: str, remote: Remote) -> tuple[str, dict[str, Json]]:
    """The path below the API's base, and the query that it came with."""
    parts = urlsplit(path)
    if parts.netloc and not path.startswith(remote.url.removesuffix("/api/v1")):
        raise CliError(
            f"'{path}' is not an address of {remote.url}",
            exit_status=Exit.USAGE,
            hint="give only its path; another service is named by --url",
        )
    place = "/" + parts.path.removeprefix(urlsplit(remote.url).path).lstrip("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    return place.removeprefix("/api/v1"), dict(query)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise CliError(
            f"'{text}' is no header", exit_status=Exit.USAGE, hint="such as -H 'Prefer: wait=5'"
        )
    return name.strip().lower(), value.strip()


def _fields(raw: Sequence[str], typed: Sequence[str]) -> dict[str, Json]:
    fields: dict[str, Json] = {}
    for text in raw:
        _put(fields, text, is_typed=False)
    for text in typed:
        _put(fields, text, is_typed=True)
    return fields


def _put(fields: dict[str, Json], text: str, *, is_typed: bool) -> None:
    """Set `key[inner][]=value` in nested objects and lists."""
    match = _FIELD.fullmatch(text)
    if match is None:
        raise CliError(
            f"'{text}' is no field", exit_status=Exit.USAGE, hint="such as -f name=web or -F cpu=2"
        )
    value = _typed(match[3]) if is_typed else match[3]
    keys = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
    place: Json = fields
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        inner: Json = value if following is None else [] if following == "" else {}
        if isinstance(place, list) and key == "":
            place.append(inner)
            place = inner
        elif isinstance(place, dict) and key != "":
            place[key] = inner if following is None else place.get(key, inner)
            place = place[key]
        else:
            raise CliError(f"'{text}': is it a list or an object?", exit_status=Exit.USAGE)


def _typed(text: str) -> Json:
    if text.startswith("@"):
        return read_text(text[1:])
    try:
        return json.loads(text)
    except ValueError:
        return text


def _plain(value: Json) -> Json:
    """A value as it stands in a query."""
    return value if isinstance(value, str | list) or value is None else json.dumps(value)
