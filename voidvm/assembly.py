"""Makes the objects of the service and gives them to each other; `app` runs the result."""

from __future__ import annotations

from dataclasses import dataclass

from voidvm.bus import Bus
from voidvm.config import Settings
from voidvm.domain.catalog import parse_catalog
from voidvm.domain.quota import Plans, quota_of
from voidvm.hypervisor.img import QemuImg
from voidvm.hypervisor.launch import Launcher
from voidvm.security.passwords import Passwords
from voidvm.security.throttle import LoginThrottle
from voidvm.security.tickets import TicketBox
from voidvm.security.tokens import TokenSigner
from voidvm.services.accelerator import Accelerator
from voidvm.services.accounts import Accounts
from voidvm.services.audit import Audit
from voidvm.services.changes import Changes
from voidvm.services.consoles import Consoles
from voidvm.services.guests import Guests
from voidvm.services.host import Host
from voidvm.services.idempotency import Idempotency
from voidvm.services.images import Images
from voidvm.services.journal import StoredJournal
from voidvm.services.lifecycle import Lifecycle
from voidvm.services.recipes import catalog_text
from voidvm.services.services import Services
from voidvm.services.tokens import Tokens
from voidvm.services.users import Users
from voidvm.services.vms import Vms
from voidvm.services.waiting import Waiting
from voidvm.store.audit import AuditStore
from voidvm.store.database import Database
from voidvm.store.idempotency import IdempotencyStore
from voidvm.store.images import ImageStore
from voidvm.store.sessions import SessionStore
from voidvm.store.tokens import TokenStore
from voidvm.store.users import UserStore
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.paths import Layout


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The service, put together."""

    services: Services
    fleet: Fleet
    bus: Bus


def assemble(
    settings: Settings,
    *,
    layout: Layout,
    database: Database,
    key: bytes,
    launcher: Launcher,
    accelerator: Accelerator,
) -> Parts:
    """All objects, knowing each other; nothing runs yet."""
    bus = Bus()
    plans = Plans({name: quota_of(plan) for name, plan in settings.plans.items()})
    accounts, users, tokens = _people(settings, database=database, key=key, plans=plans, bus=bus)
    vm_store = VmStore(database, plans=plans)
    fleet = Fleet(
        layout=layout,
        launcher=launcher,
        journal=StoredJournal(vm_store),
        bus=bus,
        history_bytes=settings.console.history_bytes,
    )
    images = Images(ImageStore(database), layout=layout, catalog=parse_catalog(catalog_text()))
    guests = Guests(images=images, layout=layout, accel=accelerator.of_host)
    img = QemuImg(settings.qemu.img_binary)
    vms = Vms(vm_store, fleet=fleet, images=images, guests=guests, img=img, layout=layout, bus=bus)
    services = Services(
        accounts=accounts,
        users=users,
        tokens=tokens,
        audit=Audit(AuditStore(database)),
        idempotency=Idempotency(IdempotencyStore(database), key=key),
        vms=vms,
        changes=Changes(
            vm_store,
            vms=vms,
            fleet=fleet,
            images=images,
            guests=guests,
            img=img,
            layout=layout,
        ),
        lifecycle=Lifecycle(vm_store, vms=vms, fleet=fleet, guests=guests, layout=layout),
        waiting=Waiting(vms=vms, fleet=fleet),
        consoles=Consoles(vms=vms, fleet=fleet, tickets=TicketBox(), accounts=accounts, bus=bus),
        images=images,
        host=Host(fleet=fleet),
    )
    return Parts(services=services, fleet=fleet, bus=bus)


def _people(
    settings: Settings, *, database: Database, key: bytes, plans: Plans, bus: Bus
) -> tuple[Accounts, Users, Tokens]:
    """Those who share the users' table, the hashes and the count of failed sign-ins."""
    users, tokens = UserStore(database, plans=plans), TokenStore(database)
    passwords, throttle = Passwords(), LoginThrottle(settings.limits.login_attempts)
    accounts = Accounts(
        users,
        SessionStore(database),
        tokens,
        signer=TokenSigner(key),
        passwords=passwords,
        settings=settings.auth,
        throttle=throttle,
        bus=bus,
    )
    return (
        accounts,
        Users(users, passwords=passwords, throttle=throttle, plans=plans, bus=bus),
        Tokens(tokens, bus=bus),
    )
