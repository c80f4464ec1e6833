#!/usr/bin/python3 -IS
"""A program in the place of QEMU that has turned against who started it.

Runs by itself, as the user that QEMU has: of the project it knows nothing, of Python only what
every host has. How it behaves stands in the file `behaviour` beside it.
"""

import contextlib
import itertools
import json
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Command = dict[str, object]

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}
STAMP = {"seconds": 1, "microseconds": 1}
LINE_BYTES = 1024**3
STORM_S = 2.0

# What stands in the place of an answer; `ID` is the question's.
RUBBISH = [
    b"\xff\xfe\x00 no text at all",
    b"[" * 50_000,
    b'{"return": {}, "id": null}',
    b'{"return": [[[]]], "id": ID}',
    b'{"return": 7, "id": ID}',
    b'{"return": {"status": {"status": []}}, "id": ID}',
    b'{"return": {"status": "shutdown"}, "id": ID}',
    b'{"return": "' + b"x" * 500_000 + b'", "id": ID}',
    b'{"return": [{"label": "serial0", "filename": "pty:/etc/passwd"}], "id": ID}',
    b'{"return": [{"label": "serial0", "filename": 5}], "id": ID}',
    b'{"error": "no object", "id": ID}',
    b'{"error": {"class": 5, "desc": null}, "id": ID}',
    b'{"error": {}}',
    b'{"id": ID}\r\n{"id": ID}\r\n{"id": ID}',
    b'{"event": 5}',
    b'{"event": "STOP", "timestamp": 5, "data": 5}',
    b'{"event": "SHUTDOWN", "data": {"guest": "x", "reason": {}}}',
    b'{"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "nospace": []}}',
    b'{"event": "\\ud800", "data": {"x": "\\ud800"}}',
    b'{"event": "STOP", "data": {"x": 99999999999999999999999999}}',
    b'{"QMP": 1}',
    b"null",
    b"1e999",
    b"",
]
EVENTS = ["STOP", "RESUME", "RESET", "POWERDOWN", "RTC_CHANGE", "BLOCK_IO_ERROR", "NO_SUCH_EVENT"]


class Line:
    """The monitor's socket, with a client on it."""

    def __init__(self, client: socket.socket, seed: str) -> None:
        self.client = client
        self.dice = random.Random(seed)  # noqa: S311 - the same rubbish each time

    def send(self, message: object) -> None:
        self.client.sendall(json.dumps(message).encode() + b"\r\n")

    def commands(self) -> Iterator[Command]:
        """What is asked, one after the other."""
        text = ""
        while data := self.client.recv(65_536):
            text += data.decode()
            while text := text.lstrip():
                try:
                    value, end = json.JSONDecoder().raw_decode(text)
                except ValueError:
                    break
                yield value
                text = text[end:]

    def answer(self, command: Command, value: object) -> None:
        self.send({"return": value, "id": command.get("id")})

    def rubbish(self, command: Command) -> None:
        text = self.dice.choice(RUBBISH)
        self.client.sendall(text.replace(b"ID", json.dumps(command.get("id")).encode()) + b"\r\n")


def noise(line: Line) -> None:
    """Not even a greeting."""
    line.client.sendall(os.urandom(200_000) + b"\r\n")
    time.sleep(1)


def nonsense(line: Line) -> None:
    """A greeting as it should be, and then nothing that is."""
    line.send(GREETING)
    for command in line.commands():
        if command["execute"] == "qmp_capabilities":
            line.answer(command, {})
        else:
            line.rubbish(command)


def liar(line: Line) -> None:
    """Runs as it should, and answers rubbish from then on."""
    for number, command in enumerate(served(line)):
        if number:
            line.rubbish(command)
        else:
            line.answer(command, {})


def endless(line: Line) -> None:
    """A line that does not end."""
    line.send(GREETING)
    part = b" " * 1024**2
    for _ in range(LINE_BYTES // len(part)):
        line.client.sendall(part)


def endless_later(line: Line) -> None:
    """The same, once the guest runs."""
    for _ in served(line):
        endless(line)


def storm(line: Line) -> None:
    """More events than anybody can hear, small ones and great ones, once the guest runs."""
    for _ in served(line):
        until = time.monotonic() + STORM_S
        for number in itertools.count():
            if time.monotonic() > until:
                break
            data = {"node": "x" * (100_000 if number % 1000 == 0 else 10)}
            event = {"event": line.dice.choice(EVENTS), "timestamp": STAMP, "data": data}
            line.client.sendall(json.dumps(event).encode() + b"\r\n")


def thief(line: Line) -> None:
    """Runs as it should, and calls the line of another guest, or somebody's terminal, its own."""
    for command in served(line, is_honest=False):
        line.answer(command, {})


def brief(line: Line) -> None:
    """No enemy, but in a hurry: by the time anybody hears of it the guest and its line are gone."""
    line.send(GREETING)
    master, slave = os.openpty()
    lines = [{"label": "serial0", "filename": f"pty:{os.ttyname(slave)}"}]
    for command in line.commands():
        if command["execute"] == "cont":
            os.close(slave)
            os.close(master)
            off = {"guest": True, "reason": "guest-shutdown"}
            told = [
                {"timestamp": STAMP, "event": "RESUME"},
                {"return": {}, "id": command.get("id")},
                {"timestamp": STAMP, "event": "SHUTDOWN", "data": off},
            ]
            line.client.sendall(b"".join(json.dumps(each).encode() + b"\r\n" for each in told))
        else:
            line.answer(command, lines if command["execute"] == "query-chardev" else {})
            if command["execute"] == "quit":
                os._exit(0)


def served(line: Line, *, is_honest: bool = True) -> Iterator[Command]:
    """Answer as QEMU does; what comes once the guest runs is the caller's to answer."""
    master, slave = os.openpty()
    named = Path(os.ttyname(slave))
    others = sorted(path for path in named.parent.glob("[0-9]*") if path != named)
    if not is_honest and others:
        named = line.dice.choice(others)
    lines = [{"label": "serial0", "filename": f"pty:{named}", "frontend-open": True}]
    answers: Command = {
        "query-chardev": lines,
        "query-status": {"status": "running", "running": True},
    }
    line.send(GREETING)
    runs = False
    for command in line.commands():
        name = str(command["execute"])
        if name == "cont":
            line.answer(command, {})
            line.send({"event": "RESUME", "timestamp": STAMP})
            runs = True
        elif runs and name not in answers:
            yield command
        else:
            line.answer(command, answers.get(name, {}))
    os.close(master)


BEHAVIOURS: dict[str, Callable[[Line], None]] = {
    each.__name__: each
    for each in (noise, nonsense, liar, endless, endless_later, storm, thief, brief)
}


def main() -> None:
    """Listen on the descriptor that QEMU would."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if "--version" in sys.argv or "-version" in sys.argv:
        sys.stdout.write("QEMU emulator version 7.2.0\n")
        return
    (fd,) = re.findall(r"id=mon0,fd=(\d+)", " ".join(sys.argv))
    name, seed = Path(sys.argv[0]).with_name("behaviour").read_text().split(maxsplit=1)
    listener = socket.socket(fileno=int(fd))
    while True:
        client, _ = listener.accept()
        with contextlib.suppress(OSError, ValueError, KeyError):
            BEHAVIOURS[name](Line(client, seed))
        client.close()


if __name__ == "__main__":
    main()
