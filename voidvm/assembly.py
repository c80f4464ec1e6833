"""Makes the objects of the service and gives them to each other; `app` runs the result."""

from __future__ import annotations

from dataclasses import dataclass

from voidvm.bus import Bus
from voidvm.domain.catalog import parse_catalog
from voidvm.domain.quota import Plans, quota_of
from voidvm.domain.rollup import levels
from voidvm.domain.system import CgroupInfo
from voidvm.hypervisor.identity import Identity
from voidvm.hypervisor.img import QemuImg
from voidvm.hypervisor.launch import Launcher
from voidvm.live_settings import LiveSettings
from voidvm.operations.runner import Operations
from voidvm.security.passwords import Passwords
from voidvm.security.throttle import LoginThrottle
from voidvm.security.tickets import TicketBox
from voidvm.security.tokens import TokenSigner
from voidvm.services.accelerator import Accelerator
from voidvm.services.accounts import Accounts
from voidvm.services.admission import Admission
from voidvm.services.audit import Audit
from voidvm.services.autostarts import Autostarts
from voidvm.services.changes import Changes
from voidvm.services.clock import Clock
from voidvm.services.configuration import Configuration
from voidvm.services.consoles import Consoles
from voidvm.services.creation import Creation
from voidvm.services.disks import Disks
from voidvm.services.downloads import Downloads
from voidvm.services.events import Events
from voidvm.services.exposition import Exposition
from voidvm.services.guests import Guests
from voidvm.services.health import HealthWatch
from voidvm.services.host import Host
from voidvm.services.host_power import HostPower
from voidvm.services.idempotency import Idempotency
from voidvm.services.images import Images
from voidvm.services.imports import Imports
from voidvm.services.jobs import Jobs
from voidvm.services.journal import StoredJournal
from voidvm.services.lifecycle import Lifecycle
from voidvm.services.metrics import Metrics
from voidvm.services.recipes import catalog_text
from voidvm.services.recovery import Recovery
from voidvm.services.restarts import Restarts
from voidvm.services.services import Services
from voidvm.services.space import Space
from voidvm.services.starting import Starting
from voidvm.services.tickets import Tickets
from voidvm.services.tokens import Tokens
from voidvm.services.upkeep import Upkeep
from voidvm.services.uploads import Uploads
from voidvm.services.users import Users
from voidvm.services.vms import Vms
from voidvm.services.waiting import Waiting
from voidvm.store.audit import AuditStore
from voidvm.store.database import Database
from voidvm.store.events import EventStore
from voidvm.store.host import HostStore
from voidvm.store.idempotency import IdempotencyStore
from voidvm.store.images import ImageStore
from voidvm.store.metrics import MetricStore
from voidvm.store.operations import OperationStore
from voidvm.store.sessions import SessionStore
from voidvm.store.settings import SettingsStore
from voidvm.store.tokens import TokenStore
from voidvm.store.uploads import UploadStore
from voidvm.store.users import UserStore
from voidvm.store.vms import VmStore
from voidvm.supervisor.console import Records
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.heartbeat import Heartbeat
from voidvm.supervisor.metrics import Sampler
from voidvm.supervisor.paths import Layout
from voidvm.telemetry import Telemetry


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The service, put together."""

    services: Services
    fleet: Fleet
    bus: Bus
    operations: Operations
    upkeep: Upkeep
    recovery: Recovery
    health: HealthWatch
    heartbeat: Heartbeat
    live: LiveSettings
    telemetry: Telemetry


class Foundation:
    """What the settings and the host give, and every service stands on."""

    def __init__(
        self,
        live: LiveSettings,
        *,
        layout: Layout,
        database: Database,
        key: bytes,
        launcher: Launcher,
        identity: Identity | None,
        accelerator: Accelerator,
        boot_id: str,
        cgroups: CgroupInfo,
    ) -> None:
        self.live = live
        self.layout = layout
        self.database = database
        self.key = key
        self.identity = identity
        self.accelerator = accelerator
        self.boot_id = boot_id
        self.cgroups = cgroups
        self.bus = Bus()
        self.telemetry = Telemetry()
        database.watch(self.telemetry.database_write)
        self.plans = Plans(lambda: {name: quota_of(plan) for name, plan in live.now.plans.items()})
        self.events = Events(EventStore(database), bus=self.bus)
        self.users = UserStore(database, plans=self.plans)
        self.vms = VmStore(database, plans=self.plans)
        self.images = ImageStore(database)
        self.operation_log = OperationStore(database)
        self.operations = Operations(self.operation_log, bus=self.bus)
        self.catalog = parse_catalog(catalog_text(), live.now.images.catalog)
        self.img = QemuImg(live.now.qemu.img_binary, identity=identity)
        self.space = Space(layout)
        self.cap_bytes = lambda: live.upload_cap_bytes
        self.fleet = Fleet(
            layout=layout,
            launcher=launcher,
            journal=StoredJournal(self.vms),
            bus=self.bus,
            records=Records(
                console_bytes=lambda: live.now.console.history_bytes, telemetry=self.telemetry
            ),
            boot_id=boot_id,
        )


def assemble(base: Foundation) -> Parts:
    """All objects, knowing each other; nothing runs yet."""
    images = Images(base.images, layout=base.layout, catalog=base.catalog)
    guests = Guests(images=images, layout=base.layout, accel=base.accelerator.of_host)
    starting, upkeep = _starting(base, guests=guests)
    vms = _vms(base, upkeep=upkeep)
    lifecycle = _lifecycle(base, vms=vms, starting=starting, upkeep=upkeep)
    imports = _imports(base)
    disks = _disks(base, vms=vms, images=images, guests=guests)
    accounts, users = _accounts(base)
    tickets = TicketBox()
    health, exposition = _watching(base)
    services = Services(
        accounts=accounts,
        users=users,
        tokens=Tokens(TokenStore(base.database), bus=base.bus),
        tickets=Tickets(tickets, accounts=accounts),
        audit=Audit(AuditStore(base.database)),
        idempotency=Idempotency(IdempotencyStore(base.database), key=base.key),
        vms=vms,
        changes=_changes(base, vms=vms, images=images, guests=guests, disks=disks),
        creation=_creation(
            base, vms=vms, images=images, guests=guests, imports=imports, lifecycle=lifecycle
        ),
        disks=disks,
        imports=imports,
        uploads=_uploads(base, imports=imports),
        jobs=Jobs(base.operation_log, operations=base.operations),
        lifecycle=lifecycle,
        waiting=Waiting(vms=vms, fleet=base.fleet),
        consoles=Consoles(
            vms=vms, fleet=base.fleet, tickets=tickets, accounts=accounts, bus=base.bus
        ),
        images=images,
        host=_host(base, health=health),
        host_power=HostPower(base.vms, fleet=base.fleet, starting=starting),
        events=base.events,
        configuration=_configuration(base),
        exposition=exposition,
        metrics=_metrics(base, vms=vms),
    )
    return Parts(
        services=services,
        fleet=base.fleet,
        bus=base.bus,
        operations=base.operations,
        upkeep=upkeep,
        recovery=Recovery(services, operations=base.operations, upkeep=upkeep),
        health=health,
        heartbeat=_heartbeat(base),
        live=base.live,
        telemetry=base.telemetry,
    )


def _vms(base: Foundation, *, upkeep: Upkeep) -> Vms:
    return Vms(
        base.vms,
        fleet=base.fleet,
        operations=base.operations,
        upkeep=upkeep,
        layout=base.layout,
        bus=base.bus,
    )


def _heartbeat(base: Foundation) -> Heartbeat:
    return Heartbeat(
        lambda: [machine.pulse for machine in base.fleet.running()],
        patience_s=lambda: base.live.now.qemu.unresponsive_after,
    )


def _lifecycle(base: Foundation, *, vms: Vms, starting: Starting, upkeep: Upkeep) -> Lifecycle:
    return Lifecycle(
        base.vms,
        vms=vms,
        fleet=base.fleet,
        starting=starting,
        upkeep=upkeep,
        layout=base.layout,
    )


def _starting(base: Foundation, *, guests: Guests) -> tuple[Starting, Upkeep]:
    clock, parallel = Clock(), base.live.now.autostart.parallel
    starting = Starting(base.vms, fleet=base.fleet, guests=guests, parallel=parallel)
    restarts = Restarts(
        base.vms,
        fleet=base.fleet,
        starting=starting,
        settings=lambda: base.live.now.restart,
        bus=base.bus,
        clock=clock,
    )
    autostarts = Autostarts(
        HostStore(base.database),
        base.vms,
        fleet=base.fleet,
        starting=starting,
        restarts=restarts,
        resumes=lambda: base.live.now.autostart.resume,
        boot_id=base.boot_id,
        clock=clock,
    )
    return starting, Upkeep(restarts, autostarts)


def _configuration(base: Foundation) -> Configuration:
    return Configuration(
        SettingsStore(base.database), users=base.users, live=base.live, tell=base.events.tell
    )


def _host(base: Foundation, *, health: HealthWatch) -> Host:
    return Host(
        base.vms,
        fleet=base.fleet,
        accelerator=base.accelerator,
        settings=base.live,
        layout=base.layout,
        health=health,
        events=base.events,
        cgroups=base.cgroups,
    )


def _watching(base: Foundation) -> tuple[HealthWatch, Exposition]:
    health = HealthWatch(
        database=base.database,
        layout=base.layout,
        qemu=base.live.now.qemu,
        telemetry=base.telemetry,
        sampling_s=lambda: base.live.now.metrics.interval,
        tell=base.events.tell,
    )
    exposition = Exposition(base.vms, fleet=base.fleet, telemetry=base.telemetry, health=health)
    base.bus.subscribe(health.on_news)
    base.bus.subscribe(exposition.on_news)
    return health, exposition


def _accounts(base: Foundation) -> tuple[Accounts, Users]:
    store, passwords = base.users, Passwords()
    throttle = LoginThrottle(lambda: base.live.now.limits.login_attempts)
    accounts = Accounts(
        store,
        SessionStore(base.database),
        TokenStore(base.database),
        signer=TokenSigner(base.key),
        passwords=passwords,
        settings=lambda: base.live.now.auth,
        throttle=throttle,
        bus=base.bus,
    )
    users = Users(store, passwords=passwords, throttle=throttle, plans=base.plans, bus=base.bus)
    return accounts, users


def _metrics(base: Foundation, *, vms: Vms) -> Metrics:
    interval_s = base.live.now.metrics.interval
    return Metrics(
        Sampler(base.fleet, bus=base.bus, interval_s=interval_s, data=base.layout.data),
        MetricStore(base.database, levels(interval_s)),
        vms=vms,
        bus=base.bus,
    )


def _imports(base: Foundation) -> Imports:
    return Imports(
        base.images,
        operations=base.operations,
        admission=Admission(base.img, identity=base.identity, cap_bytes=base.cap_bytes),
        downloads=Downloads(allow_private=lambda: base.live.now.images.allow_private_urls),
        catalog=base.catalog,
        space=base.space,
        layout=base.layout,
    )


def _uploads(base: Foundation, *, imports: Imports) -> Uploads:
    return Uploads(
        UploadStore(base.database),
        imports=imports,
        operations=base.operations,
        space=base.space,
        layout=base.layout,
        cap_bytes=base.cap_bytes,
    )


def _disks(base: Foundation, *, vms: Vms, images: Images, guests: Guests) -> Disks:
    return Disks(
        base.vms,
        vms=vms,
        fleet=base.fleet,
        images=images,
        guests=guests,
        img=base.img,
        space=base.space,
        layout=base.layout,
    )


def _changes(
    base: Foundation, *, vms: Vms, images: Images, guests: Guests, disks: Disks
) -> Changes:
    return Changes(
        base.vms,
        vms=vms,
        fleet=base.fleet,
        images=images,
        guests=guests,
        disks=disks,
        layout=base.layout,
    )


def _creation(
    base: Foundation,
    *,
    vms: Vms,
    images: Images,
    guests: Guests,
    imports: Imports,
    lifecycle: Lifecycle,
) -> Creation:
    return Creation(
        base.vms,
        vms=vms,
        fleet=base.fleet,
        images=images,
        imports=imports,
        lifecycle=lifecycle,
        guests=guests,
        operations=base.operations,
        img=base.img,
        space=base.space,
        layout=base.layout,
    )
