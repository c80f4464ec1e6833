"""The settings: every key with its default; from a TOML file and the environment, which wins."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from voidvm.domain.quota import UNLIMITED
from voidvm.domain.wording import explain

PREFIX = "VOIDVM_"
# On a key that may change while the service runs: `PUT /config` takes it (voidvm/live_settings.py).
LIVE: Final = Meta(extra={"live": True})
# Beyond these a number is a slip, and what is reckoned with it (dates, JSON) would break.
YEARS_10_S: Final = 10 * 365 * 86_400
COUNT_MAX: Final = 1_000_000_000
BYTES_MAX: Final = 1 << 53

Key = tuple[str, ...]
"""A key by its sections: ("limits", "body_bytes"), ("plans", "free", "max_vms")."""

DEFAULT_ADMIN_PASSWORD = "admin123"  # noqa: S105 - known to everybody: hence loopback only


class ConfigError(ValueError):
    """A setting that cannot be used; the text names the key and says what to do."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections of the configuration file."""


def _default_data_dir() -> str:
    if os.geteuid() == 0:
        return "/var/lib/voidvm"
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return str(Path(base) / "voidvm")


def _default_run_dir() -> str:
    if os.geteuid() == 0:
        return "/run/voidvm"
    base = os.environ.get("XDG_RUNTIME_DIR")
    return str(Path(base) / "voidvm") if base else f"/tmp/voidvm-{os.geteuid()}"  # noqa: S108 - 0700


def default_file() -> Path:
    """The configuration file that is used where none is named, if it exists."""
    if os.geteuid() == 0:
        return Path("/etc/voidvm/voidvm.toml")
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "voidvm" / "voidvm.toml"


def existing_file(named: Path | None) -> Path | None:
    """The file to read: the named one, else the default one; None where there is none."""
    if named is not None:
        return named
    return default if (default := default_file()).is_file() else None


class Server(Section, frozen=True, kw_only=True):
    """Where the service listens and whose pages may call it."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 3000
    tls_cert: str = ""
    tls_key: str = ""
    allowed_origins: list[str] = []
    trusted_proxies: list[str] = []


class Storage(Section, frozen=True, kw_only=True):
    """Where the state lies."""

    data_dir: str = msgspec.field(default_factory=_default_data_dir)
    run_dir: str = msgspec.field(default_factory=_default_run_dir)


class Qemu(Section, frozen=True, kw_only=True):
    """How QEMU is run."""

    binary: str = "qemu-system-x86_64"
    img_binary: str = "qemu-img"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    user: str = ""
    cgroup: str = "auto"
    shutdown: Annotated[Literal["keep", "stop"], LIVE] = "keep"
    unresponsive_after: Annotated[int, Meta(ge=1, le=3600), LIVE] = 10


class Restart(Section, frozen=True, kw_only=True):
    """How VMs with a restart policy are started again; pauses in seconds."""

    delay: Annotated[float, Meta(ge=0.1, le=86_400), LIVE] = 1.0
    max_delay: Annotated[float, Meta(ge=0.1, le=86_400), LIVE] = 300.0
    max_attempts: Annotated[int, Meta(ge=0, le=COUNT_MAX), LIVE] = 10
    stable_after: Annotated[float, Meta(ge=0.1, le=86_400), LIVE] = 60.0


class Autostart(Section, frozen=True, kw_only=True):
    """Which VMs start after a boot of the host."""

    parallel: Annotated[int, Meta(ge=1, le=1000)] = 2
    resume: Annotated[bool, LIVE] = False


class Auth(Section, frozen=True, kw_only=True):
    """Signing in."""

    admin_password: str = ""
    access_ttl: Annotated[int, Meta(ge=60, le=YEARS_10_S), LIVE] = 3600
    refresh_ttl: Annotated[int, Meta(ge=60, le=YEARS_10_S), LIVE] = 30 * 24 * 3600


class Limits(Section, frozen=True, kw_only=True):
    """What one caller may use; 0 switches a limit off."""

    requests_per_minute: Annotated[int, Meta(ge=0, le=COUNT_MAX), LIVE] = 100
    websockets_per_user: Annotated[int, Meta(ge=0, le=COUNT_MAX), LIVE] = 10
    login_attempts: Annotated[int, Meta(ge=0, le=COUNT_MAX), LIVE] = 10
    body_bytes: Annotated[int, Meta(ge=0, le=BYTES_MAX)] = 1_048_576
    upload_bytes: Annotated[int, Meta(ge=0, le=BYTES_MAX), LIVE] = 64 * 1024**3


class Plan(Section, frozen=True, kw_only=True):
    """The quota of the users of one plan; 0 = no limit."""

    max_vms: Annotated[int, Meta(ge=0, le=COUNT_MAX), LIVE] = 0
    max_cpu: Annotated[int, Meta(ge=0, le=COUNT_MAX), LIVE] = 0
    max_memory: Annotated[int, Meta(ge=0, le=COUNT_MAX), LIVE] = 0
    max_disk: Annotated[int, Meta(ge=0, le=COUNT_MAX), LIVE] = 0


class Console(Section, frozen=True, kw_only=True):
    """The serial console."""

    history_bytes: Annotated[int, Meta(ge=65_536, le=BYTES_MAX), LIVE] = 16 * 1024**2


class Images(Section, frozen=True, kw_only=True):
    """Where images may come from."""

    allow_private_urls: Annotated[bool, LIVE] = False
    catalog: list[dict[str, Any]] = []


class Metrics(Section, frozen=True, kw_only=True):
    """Measuring VMs and the host."""

    interval: Annotated[int, Meta(ge=1, le=3600)] = 5


class Settings(Section, frozen=True, kw_only=True):
    """The whole configuration."""

    server: Server = msgspec.field(default_factory=Server)
    storage: Storage = msgspec.field(default_factory=Storage)
    qemu: Qemu = msgspec.field(default_factory=Qemu)
    restart: Restart = msgspec.field(default_factory=Restart)
    autostart: Autostart = msgspec.field(default_factory=Autostart)
    auth: Auth = msgspec.field(default_factory=Auth)
    limits: Limits = msgspec.field(default_factory=Limits)
    plans: dict[str, Plan] = msgspec.field(default_factory=lambda: {"free": Plan(max_vms=5)})
    console: Console = msgspec.field(default_factory=Console)
    images: Images = msgspec.field(default_factory=Images)
    metrics: Metrics = msgspec.field(default_factory=Metrics)

    @property
    def data_dir(self) -> Path:
        """The folder of everything that must be kept."""
        return Path(self.storage.data_dir)

    @property
    def run_dir(self) -> Path:
        """The folder of the sockets, gone when the host boots."""
        return Path(self.storage.run_dir)

    @property
    def admin_password(self) -> str:
        """The first password of `admin`."""
        return self.auth.admin_password or DEFAULT_ADMIN_PASSWORD


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Which keys were given where; all others have their defaults."""

    file: frozenset[Key] = frozenset()
    environment: frozenset[Key] = frozenset()


class Loaded(NamedTuple):
    """The settings, and where they come from."""

    settings: Settings
    sources: Sources


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of a file (none: the defaults) and the environment.

    Raises `ConfigError` for a file that cannot be read, an unknown key or a value that does
    not fit.
    """
    return read(path, environ).settings


def read(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Loaded:
    """What `load` gives, and the source of each key. Raises `ConfigError`."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    file = _named(_keys(values))
    environment = _named(_add_environment(values, os.environ if environ is None else environ))
    return Loaded(_convert(values), Sources(file=file, environment=environment))


def _named(keys: Iterable[Key]) -> frozenset[Key]:
    """The keys, also of values that stand in a file of their own."""
    return frozenset((*sections, key.removesuffix("_file")) for *sections, key in keys)


def _keys(values: Mapping[str, Any], above: Key = ()) -> Iterator[Key]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _keys(value, (*above, name))
        else:
            yield (*above, name)


def _add_environment(values: dict[str, Any], environ: Mapping[str, str]) -> Iterator[Key]:
    """Put the environment's values over those of the file; the keys that it has."""
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or "__" not in variable:
            continue
        *sections, key = variable.removeprefix(PREFIX).lower().split("__")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{variable}: [{section}] is no section")
        place[key] = _from_text(text)
        yield (*sections, key)
    if password := environ.get("VOIDVM_ADMIN_PASSWORD"):
        auth = values.setdefault("auth", {})
        if isinstance(auth, dict):
            auth["admin_password"] = password


def _from_text(text: str) -> object:
    """A list as a list; numbers and booleans are left to msgspec's lax mode."""
    if text.startswith("["):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{text!r} is not a TOML list: {error}") from error
    return text


def _convert(values: Mapping[str, Any]) -> Settings:
    sections: dict[str, Any] = {}
    hints = get_type_hints(Settings)
    for name, content in values.items():
        if name not in hints:
            raise ConfigError(_unknown(f"[{name}]", name, hints))
        if not isinstance(content, dict):
            raise ConfigError(f"[{name}] must be a section")
        if name == "plans":
            if UNLIMITED in content:
                raise ConfigError(
                    f"[plans.{UNLIMITED}] is built in and has no limits: leave it out"
                )
            defaults = {"free": Plan(max_vms=5)}
            sections[name] = defaults | {
                plan: _section(f"plans.{plan}", Plan, keys) for plan, keys in content.items()
            }
        else:
            sections[name] = _section(name, hints[name], content)
    return Settings(**sections)


def _section(name: str, kind: type[Section], content: Mapping[str, Any]) -> Section:
    if not isinstance(content, dict):
        raise ConfigError(f"[{name}] must be a section")
    known = get_type_hints(kind, include_extras=True)
    found: dict[str, Any] = {}
    for key, value in content.items():
        target = key.removesuffix("_file") if key not in known else key
        if target not in known:
            raise ConfigError(_unknown(f"[{name}] {key}", key, known))
        try:
            given = value if target == key else Path(str(value)).read_text("utf-8").strip()
            found[target] = msgspec.convert(given, known[target], strict=False)
        except OSError as error:
            raise ConfigError(f"[{name}] {key}: cannot read {value}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"[{name}] {key}: {value} is not text") from error
        except msgspec.ValidationError as error:
            place, said = explain(error, known[target])
            raise ConfigError(f"[{name}] {key}{place}: {said}") from error
    return kind(**found)


def _unknown(shown: str, key: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    return f"{shown} is no setting" + (f"; did you mean '{near[0]}'?" if near else "")
