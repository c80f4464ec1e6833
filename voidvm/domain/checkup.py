"""What a look at the host found out."""

from __future__ import annotations

from typing import Literal

from voidvm.domain.vm import Value

Verdict = Literal["ok", "warn", "fail"]


class Finding(Value, frozen=True, kw_only=True):
    """One thing that was looked at; `advice` says what to do unless all is well."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""


def ok(name: str, detail: str) -> Finding:
    """Nothing to do."""
    return Finding(name=name, verdict="ok", detail=detail)


def warn(name: str, detail: str, advice: str) -> Finding:
    """VMs run, but less well or less safely than they could."""
    return Finding(name=name, verdict="warn", detail=detail, advice=advice)


def fail(name: str, detail: str, advice: str) -> Finding:
    """The service or its VMs cannot run like this."""
    return Finding(name=name, verdict="fail", detail=detail, advice=advice)
