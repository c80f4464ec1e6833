"""Puts the parts together and runs them."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import uvloop

from voidvm import __version__, logs
from voidvm.api.clients import networks, origins
from voidvm.api.errands import Errands
from voidvm.api.gate import Gate
from voidvm.api.limits import RequestLimit, SocketPlaces
from voidvm.api.live.samples import Samples
from voidvm.api.server import create_app
from voidvm.api.serving import listen, served
from voidvm.api.tls import Certificate, CertificateUnusable, certificate
from voidvm.assembly import Foundation, Parts, assemble
from voidvm.config import Settings, Sources
from voidvm.domain.addresses import is_loopback
from voidvm.domain.catalog import CatalogError
from voidvm.domain.event import EventKind
from voidvm.domain.system import CgroupInfo
from voidvm.hypervisor.cgroup import Cgroups, Unavailable, find_root
from voidvm.hypervisor.identity import resolve_identity
from voidvm.hypervisor.launch import SOCKET_PATH_MAX_BYTES, Launcher
from voidvm.hypervisor.process import boot_id
from voidvm.live_settings import LiveSettings
from voidvm.security.tokens import KeyUnusable, load_or_create_key
from voidvm.services.accelerator import Accelerator
from voidvm.services.accounts import Accounts
from voidvm.services.checkup_state import user_name
from voidvm.services.events import Events
from voidvm.services.reserve import Reserve
from voidvm.store.database import Database, StoreError
from voidvm.supervisor.paths import Layout
from voidvm.systemd import Notifier

log = logging.getLogger(__name__)

# Of all guests together, when the service ends with shutdown = "stop".
POWER_OFF_S = 60.0
# What requests with an idempotency key are given to end when the service stops.
SETTLE_S = 5.0
# What the database is given to take an event: a disk that hangs must not keep us.
TELL_S = 2.0
# Then listeners have a moment to be sent it.
LISTEN_S = 0.05
# How long a lock may be that of a killed service's child.
LOCK_S = 1.0


class StartRefused(Exception):
    """The service cannot start; the text says what to do."""


@asynccontextmanager
async def running(
    settings: Settings,
    sources: Sources | None = None,
    *,
    boot: str | None = None,
    starts_vms: bool = True,
) -> AsyncIterator[Parts]:
    """All parts, with every VM that still runs found again; guests go on when it ends.

    `boot` stands for the boot of the host, where it is not this one. Without `starts_vms` nothing
    starts by itself, and what is due stays so. Raises `StartRefused`.
    """
    layout = _prepare(settings)
    with locked(layout.lock):
        reserve = Reserve(layout)
        reserve.give_when_full()
        try:
            key = load_or_create_key(layout.key)
            identity = resolve_identity(settings.qemu.user)
            # Last: an open database must be closed again, or its threads keep the process alive.
            database = await Database.open(layout.database)
        except (KeyUnusable, StoreError, ValueError) as error:
            raise StartRefused(str(error)) from error
        cgroups, limits = _cgroups(settings.qemu.cgroup)
        accelerator = Accelerator(settings.qemu, identity=identity, cache=layout.probe_cache)
        try:
            parts = _assembled(
                lambda: Foundation(
                    LiveSettings(settings, sources),
                    layout=layout,
                    database=database,
                    key=key,
                    launcher=Launcher(
                        binary=settings.qemu.binary, identity=identity, cgroups=cgroups
                    ),
                    identity=identity,
                    accelerator=accelerator,
                    boot_id=boot or boot_id(),
                    cgroups=limits,
                )
            )
            await parts.services.configuration.restore()
            parts.bus.subscribe(reserve.on_news)
            reserve.take()
            accelerator.find_out_early()
            # First: a refused start must make no admin with the password that it is refused for.
            await _refuse_open_door(settings, parts.services.accounts)
            await parts.services.accounts.ensure_admin(settings.admin_password)
            await parts.services.events.start()
            try:
                await parts.recovery.run(starts_vms=starts_vms)
                parts.services.metrics.start()
                parts.health.start()
                async with parts.heartbeat.beating():
                    yield parts
            finally:
                await _let_go(parts)
        finally:
            await accelerator.close()
            await database.close()


def _assembled(base: Callable[[], Foundation]) -> Parts:
    try:
        return assemble(base())
    except CatalogError as error:
        raise StartRefused(f"[images] catalog: {error}") from error


async def _let_go(parts: Parts) -> None:
    """End all that goes on, but no guest."""
    await parts.recovery.close()
    await parts.upkeep.close()
    await parts.health.close()
    await parts.services.metrics.close()
    await parts.operations.release()
    await parts.services.idempotency.settled(timeout_s=SETTLE_S)
    await parts.fleet.release()
    await parts.services.audit.written()
    await parts.services.events.close()


def _cgroups(wanted: str) -> tuple[Cgroups | None, CgroupInfo]:
    """The guests' cgroups, None where there can be none, and what is told of them."""
    try:
        found = Cgroups(find_root(wanted))
    except Unavailable as error:
        return None, CgroupInfo(available=False, reason=str(error))
    controllers = list(found.controllers)
    return found, CgroupInfo(available=True, reason=str(found.root), controllers=controllers)


def _prepare(settings: Settings) -> Layout:
    layout = Layout(data=settings.data_dir, run=settings.run_dir)
    longest = str(layout.vm("vm-" + "0" * 12).agent_socket)
    if len(os.fsencode(longest)) > SOCKET_PATH_MAX_BYTES:
        raise StartRefused(
            f"[storage] run_dir is too long: socket paths such as {longest} may have "
            f"{SOCKET_PATH_MAX_BYTES} bytes"
        )
    for folder in (layout.data, layout.run, layout.data / "vms", layout.data / "images"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != os.geteuid():
                raise StartRefused(
                    f"{folder} belongs to {user_name(folder.stat().st_uid)}: run the service as "
                    "that user, or give this one folders of its own in [storage]"
                )
            folder.chmod(0o700)
        except OSError as error:
            raise StartRefused(f"cannot use {folder}: {error.strerror}") from error
    return layout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The exclusive lock on a data directory; the kernel frees it however the service ends.

    Not at once, though: a program that a killed service was just starting has it until its exec.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + LOCK_S
        while not _takes(fd):
            if time.monotonic() > deadline:
                raise StartRefused(
                    f"another VoidVM uses {path.parent}: stop it, or give this one a "
                    "[storage] data_dir of its own"
                )
            time.sleep(LOCK_S / 50)
        yield
    finally:
        os.close(fd)


def _takes(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _refuse_open_door(settings: Settings, accounts: Accounts) -> None:
    if not await accounts.admin_has_default_password(settings.admin_password):
        return
    if not is_loopback(settings.server.host):
        raise StartRefused(
            f"'admin' has the default password, so VoidVM listens on loopback only, not on "
            f"{settings.server.host}: set VOIDVM_ADMIN_PASSWORD before the first start, or "
            "change the password"
        )
    log.warning("'admin' has the default password; fine on loopback, for trying things out")


def gate_of(settings: Settings, parts: Parts) -> Gate:
    """What every request passes, as configured."""
    live = parts.live
    return Gate(
        services=parts.services,
        bus=parts.bus,
        proxies=networks(settings.server.trusted_proxies),
        requests=RequestLimit(lambda: live.now.limits.requests_per_minute),
        sockets=SocketPlaces(lambda: live.now.limits.websockets_per_user),
        telemetry=parts.telemetry,
        origins=origins(settings.server.allowed_origins),
        errands=Errands(),
        samples=Samples(parts.bus, interval=lambda: parts.services.metrics.interval_s),
    )


def check_server(settings: Settings) -> Certificate | None:
    """The certificate to serve with, none for plain HTTP.

    Raises `StartRefused` for addresses, origins and files that nothing could ever fit.
    """
    for key, check, texts in (
        ("trusted_proxies", networks, settings.server.trusted_proxies),
        ("allowed_origins", origins, settings.server.allowed_origins),
    ):
        try:
            check(texts)
        except ValueError as error:
            raise StartRefused(f"[server] {key}: {error}") from error
    server = settings.server
    try:
        found = certificate(server.tls_cert, server.tls_key)
    except CertificateUnusable as error:
        raise StartRefused(f"[server] {error}") from error
    if found is None and not is_loopback(server.host):
        log.warning(
            "%s is reached over plain HTTP: whoever is on the way reads passwords. Set [server] "
            "tls_cert and tls_key, or listen on loopback behind a proxy that speaks TLS",
            server.host,
        )
    return found


@asynccontextmanager
async def told(parts: Parts) -> AsyncIterator[None]:
    """Those who listen hear that the service has started and, before they are sent away, stops."""
    events = parts.services.events
    await _tell(events, EventKind.SYSTEM_STARTED, {"version": __version__})
    try:
        yield
    finally:
        await _tell(events, EventKind.SYSTEM_STOPPING, {})
        await asyncio.sleep(LISTEN_S)


async def _tell(events: Events, kind: EventKind, data: Mapping[str, object]) -> None:
    try:
        async with asyncio.timeout(TELL_S):
            await events.tell(kind, data)
            await events.settled()
    except TimeoutError:
        log.warning("'%s' is not written down within %g s", kind, TELL_S)


async def serve_until(
    settings: Settings,
    stop: asyncio.Event,
    sources: Sources | None = None,
    *,
    notifier: Notifier | None = None,
) -> None:
    """Serve until `stop` is set. Raises `StartRefused`."""
    tls = check_server(settings)
    async with running(settings, sources) as parts:
        fleet = parts.fleet
        try:
            listener = listen(settings.server.host, settings.server.port)
        except OSError as error:
            raise StartRefused(
                f"cannot listen on {settings.server.host}:{settings.server.port}: {error.strerror}"
            ) from error
        app = create_app(gate_of(settings, parts), body_bytes=settings.limits.body_bytes)
        _on_hangup(tls)
        async with served(app, listener, tls=tls.context if tls else None):
            # What is here now stays: the collector need not look through it with each request.
            gc.collect()
            gc.freeze()
            host, port = listener.getsockname()[:2]
            url = f"http{'s' if tls else ''}://{host}:{port}"
            log.info("listening on %s, %d VMs run", url, len(fleet.running()))
            async with told(parts), (notifier or Notifier({})).serving(f"listening on {url}"):
                await stop.wait()
        if parts.live.now.qemu.shutdown == "stop":
            log.info("stopping %d VMs", len(fleet.running()))
            await parts.services.host_power.power_off(timeout_s=POWER_OFF_S)
        elif count := len(fleet.running()):
            log.info("%d VMs keep running; the next start finds them again", count)


def _on_hangup(tls: Certificate | None) -> None:
    """SIGHUP has a daemon read its files again; in a terminal it ends the service, as ever."""
    if not sys.stdin.isatty():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, tls.renew if tls else _nothing_to_renew)


def _nothing_to_renew() -> None:
    log.info("SIGHUP: there is no certificate to read again")


def _set_limits() -> None:
    """What holds for the service and, by inheritance, for every QEMU and tool.

    A core would hold keys and guests' memory. Each running VM takes about six descriptors; the
    usual soft limit of 1,024 is for shells.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 65_536)), hard))


async def _serve_until_signal(settings: Settings, sources: Sources | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve_until(settings, stop, sources, notifier=Notifier(os.environ))


def serve(settings: Settings, sources: Sources | None = None) -> int:
    """Run the service in the foreground; the exit status for the shell."""
    logs.configure()
    os.umask(0o077)
    _set_limits()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve_until_signal(settings, sources))
    except StartRefused as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0
