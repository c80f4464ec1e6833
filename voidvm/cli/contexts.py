"""Where the command line remembers its logins: one file, for its owner's eyes only."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from voidvm.cli.failures import CliError, Exit


class Context(Struct, frozen=True, kw_only=True, rename="camel"):
    """One service and the session there; tokens are None after logout."""

    url: str
    username: str | None = None
    token: str | None = None
    refresh_token: str | None = None
    expires_at: datetime | None = None
    ca_file: str | None = None


class _Content(Struct, kw_only=True, rename="camel"):
    current: str | None = None
    contexts: dict[str, Context] = {}


def default_path(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_CONFIG_HOME/voidvm/contexts.json`, or the same below ~/.config."""
    base = (os.environ if environ is None else environ).get("XDG_CONFIG_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "voidvm" / "contexts.json"


def short_name(url: str) -> str:
    """A service as people name it: host and port, and the path where it is not the usual one."""
    parts = urlsplit(url)
    return parts.netloc + parts.path.removesuffix("/api/v1")


class Contexts:
    """The saved logins, by the address of their service; a token is never sent to another one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def current(self) -> Context | None:
        """The login made last."""
        content = self._load()
        return content.contexts.get(content.current) if content.current else None

    def get(self, url: str) -> Context | None:
        """The login at a service."""
        return self._load().contexts.get(url)

    def all(self) -> list[Context]:
        """Every login."""
        return list(self._load().contexts.values())

    def named(self, name: str) -> Context:
        """The login at the service that has this address, or is called so. Raises `CliError`."""
        found = [
            context
            for context in self.all()
            if name.rstrip("/") in {context.url, short_name(context.url), _root(context.url)}
        ]
        if len(found) != 1:
            raise CliError(
                f"there is no login at '{name}'",
                exit_status=Exit.NOT_FOUND,
                hint="voidvm context ls lists them; to make one: voidvm login --url URL",
            )
        return found[0]

    def use(self, context: Context) -> None:
        """Let commands without `--url` go there; call it while `locked`."""
        content = self._load()
        content.current = context.url
        self._store(content)

    def remove(self, context: Context) -> None:
        """Forget a login; call it while `locked`."""
        content = self._load()
        content.contexts.pop(context.url, None)
        if content.current == context.url:
            content.current = None
        self._store(content)

    def save(self, context: Context, *, is_current: bool = False) -> None:
        """Keep a login in the place of the earlier one; call it while `locked`."""
        content = self._load()
        content.contexts[context.url] = context
        if is_current or content.current is None:
            content.current = context.url
        self._store(content)

    @contextmanager
    def changing(self, name: str) -> Iterator[Context]:
        """The login that is called so, which no other `voidvm` changes in this block."""
        self.named(name)  # where there is none, nothing is locked, and no folder made
        with self.locked():
            yield self.named(name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other `voidvm` changes the file in this block; its folder is made if need be.

        A refresh token works once and its reuse ends the session, so that two commands that run
        side by side must not both use it.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self.path.with_suffix(".lock")
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _load(self) -> _Content:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Content)
        except FileNotFoundError:
            return _Content()
        except msgspec.MsgspecError as error:
            raise CliError(
                f"{self.path} cannot be read: {error}",
                hint=f"delete it (rm {self.path}), then: voidvm login",
            ) from error

    def _store(self, content: _Content) -> None:
        text = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        # mkstemp makes it 0600 before there is anything in it.
        fd, name = tempfile.mkstemp(prefix=".contexts.", dir=self.path.parent)
        draft = Path(name)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _root(url: str) -> str:
    return url.removesuffix("/api/v1")
