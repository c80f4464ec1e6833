"""The log has one line an event, whatever clients send."""

from __future__ import annotations

import errno
import logging

import pytest

from voidvm import logs
from voidvm.errors import NoSpace, TooManyFiles


@pytest.fixture
def formatter() -> logging.Formatter:
    return logs._OneLine("%(levelname)s %(message)s")


def record(message: str, **options: object) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.INFO, "f", 1, message, None, None)
    made.__dict__.update(options)
    return made


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("plain", "INFO plain"),
        ("a\nFAKE b", "INFO a\\nFAKE b"),
        ("a\r\x1b[31m\x00", "INFO a\\x0d\\x1b[31m\\x00"),
        ("ü 🚀\tx", "INFO ü 🚀\tx"),
        ("a\u2028b\x85c", "INFO a\\x2028b\\x85c"),
    ],
)
def test_no_input_writes_a_line_of_its_own(
    formatter: logging.Formatter, message: str, line: str
) -> None:
    assert formatter.format(record(message)) == line


def failure(words: str) -> object:
    try:
        int(words)
    except ValueError as error:
        found = RuntimeError(words).with_traceback(error.__traceback__)
    return type(found), found, found.__traceback__


def test_a_traceback_keeps_its_lines(formatter: logging.Formatter) -> None:
    info = failure("boo")
    text = formatter.format(record("failed", exc_info=info))
    assert text.startswith("INFO failed\n  Traceback")
    assert text.endswith("\n  RuntimeError: boo")


def test_a_message_before_a_traceback_writes_no_line_of_its_own(
    formatter: logging.Formatter,
) -> None:
    info = failure("boo\nERROR fake")
    lines = formatter.format(record("a\nERROR b", exc_info=info)).splitlines()
    assert lines[0] == "INFO a\\nERROR b"
    assert not any(line.startswith("ERROR") for line in lines)


def test_what_the_host_lacks_needs_no_traceback(formatter: logging.Formatter) -> None:
    error = OSError(errno.EMFILE, "Too many open files", "/proc/meminfo")
    text = formatter.format(record("cannot measure", exc_info=(OSError, error, None)))
    first, second = text.splitlines()
    assert first == "INFO cannot measure"
    assert second.endswith(" [Errno 24] Too many open files: '/proc/meminfo'")
    assert TooManyFiles().message() in second


def test_what_clients_are_told_needs_no_traceback(formatter: logging.Formatter) -> None:
    info = NoSpace, NoSpace("5 MiB are free"), None
    text = formatter.format(record("not written", exc_info=info))
    assert text == "INFO not written\n  There is no space left on the host. 5 MiB are free"
