"""What is sent again, and what is not: a scripted outside world."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from voidvm.client import errors
from voidvm.client.core import Core
from voidvm.client.flavours import run
from voidvm.client.requests import Method, One, request, whole
from voidvm.client.retries import Retries
from voidvm.client.types import Vm

Step = httpx.Response | Exception


class Scripted:
    """Answers one step a request, and writes down what was sent and slept."""

    is_blocking = True

    def __init__(self, *steps: Step) -> None:
        self.left = list(steps)
        self.sent: list[httpx.Request] = []
        self.slept: list[float] = []

    async def send(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        step = self.left.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AssertionError(f"nobody wants {name} here")


def good() -> httpx.Response:
    return httpx.Response(200, json={"success": True, "data": {"id": "vm-1"}})


def bad(status: int, code: str, **headers: str) -> httpx.Response:
    error = {"code": code, "message": "No.", "details": "", "requestId": "r", "retryable": True}
    return httpx.Response(status, json={"success": False, "error": error}, headers=headers)


def sent(io: Scripted, method: Method = "GET", *, retries: Retries | None = None) -> httpx.Response:
    core = Core("http://there/api/v1", io, timeout_s=9, retries=retries or Retries())
    body: dict[str, str] | None = None if method == "GET" else {}
    return run(core.send(request(method, "/vms", whole, body=body)))


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ReadError("reset"),
        httpx.ConnectError("refused"),
        bad(503, "SERVICE_UNAVAILABLE"),
        httpx.Response(502, text="<html>bad gateway</html>"),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_may_be_repeated_is(failure: Step, method: Method) -> None:
    io = Scripted(failure, failure, good())
    assert sent(io, method).status_code == 200
    assert len(io.slept) == 2
    assert io.slept[0] < io.slept[1]


def test_a_post_has_one_key_for_all_of_its_attempts() -> None:
    io = Scripted(httpx.ReadError("reset"), good())
    sent(io, "POST")
    first, second = (one.headers["idempotency-key"] for one in io.sent)
    assert first == second
    other = Scripted(good())
    sent(other, "POST")
    assert other.sent[0].headers["idempotency-key"] != first
    # Each is kept on the service's disk for a day.
    once = Scripted(good())
    sent(once, "POST", retries=Retries(count=0))
    assert "idempotency-key" not in once.sent[0].headers


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_a_change_is_repeated_only_if_it_was_not_sent(method: Method) -> None:
    with pytest.raises(errors.Unreachable):
        sent(Scripted(httpx.ReadError("reset")), method)
    assert sent(Scripted(httpx.ConnectError("refused"), good()), method).is_success


def test_too_many_requests_wait_as_long_as_they_are_told() -> None:
    io = Scripted(bad(429, "RATE_LIMITED", **{"retry-after": "7"}), good())
    assert sent(io, "DELETE").is_success
    assert io.slept == [7.0]


def test_a_wait_that_is_too_long_is_the_callers_to_decide() -> None:
    io = Scripted(bad(429, "RATE_LIMITED", **{"retry-after": "900"}))
    with pytest.raises(errors.RateLimited) as caught:
        sent(io)
    assert (caught.value.retry_after, io.slept) == (900.0, [])


@pytest.mark.parametrize(
    ("status", "code"),
    [(409, "VM_BUSY"), (408, "WAIT_TIMEOUT"), (500, "INTERNAL_ERROR"), (503, "VM_UNRESPONSIVE")],
)
def test_what_the_service_has_decided_is_not_asked_again(status: int, code: str) -> None:
    io = Scripted(bad(status, code))
    with pytest.raises(errors.ApiError):
        sent(io)
    assert io.slept == []


def test_attempts_are_counted() -> None:
    io = Scripted(*[httpx.ReadError("reset")] * 5)
    with pytest.raises(errors.Unreachable, match="cannot reach VoidVM at http://there"):
        sent(io)
    assert len(io.sent) == 5
    alone = Scripted(httpx.ReadError("reset"))
    with pytest.raises(errors.Unreachable):
        sent(alone, retries=Retries(count=0))


def test_no_answer_in_time_is_a_timeout_too() -> None:
    with pytest.raises(TimeoutError, match=r"no answer from \S+ within 9 s") as caught:
        sent(Scripted(*[httpx.ReadTimeout("slow")] * 5))
    assert isinstance(caught.value, errors.NoAnswer)


def test_a_code_that_is_unknown_is_the_base_class() -> None:
    with pytest.raises(errors.ApiError) as caught:
        sent(Scripted(bad(418, "TEAPOT")))
    assert type(caught.value) is errors.ApiError
    assert (caught.value.code, caught.value.status) == ("TEAPOT", 418)


@pytest.mark.parametrize("answer", [httpx.Response(200, text="hello"), httpx.Response(404)])
def test_another_service_is_not_taken_for_voidvm(answer: httpx.Response) -> None:
    answer.request = httpx.Request("GET", "http://there/api/v1/vms")
    core = Core("http://there/api/v1", Scripted(answer), timeout_s=9, retries=Retries())
    with pytest.raises(errors.Unreachable, match="does not answer as VoidVM does"):
        run(core.send(request("GET", "/vms/{vm}", One(Vm), "x")))


def test_what_json_has_no_form_for_is_sent_as_the_service_writes_it() -> None:
    io = Scripted(good())
    core = Core("http://there/api/v1", io, timeout_s=9, retries=Retries())
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    asked = request("POST", "/x", whole, body={"at": moment}, query={"from": moment, "on": True})
    run(core.send(asked))
    assert datetime.fromisoformat(json.loads(io.sent[0].content)["at"]) == moment
    assert datetime.fromisoformat(io.sent[0].url.params["from"]) == moment
    assert io.sent[0].url.params["on"] == "true"
