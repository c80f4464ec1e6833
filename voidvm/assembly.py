"""Makes the objects of the service and gives them to each other; `app` runs the result."""

from __future__ import annotations

from dataclasses import dataclass

from voidvm.bus import Bus
from voidvm.config import Settings
from voidvm.domain.catalog import parse_catalog
from voidvm.domain.quota import Plans, quota_of
from voidvm.hypervisor.identity import Identity
from voidvm.hypervisor.img import QemuImg
from voidvm.hypervisor.launch import Launcher
from voidvm.operations.runner import Operations
from voidvm.security.passwords import Passwords
from voidvm.security.throttle import LoginThrottle
from voidvm.security.tickets import TicketBox
from voidvm.security.tokens import TokenSigner
from voidvm.services.accelerator import Accelerator
from voidvm.services.accounts import Accounts
from voidvm.services.admission import Admission
from voidvm.services.audit import Audit
from voidvm.services.changes import Changes
from voidvm.services.consoles import Consoles
from voidvm.services.creation import Creation
from voidvm.services.disks import Disks
from voidvm.services.downloads import Downloads
from voidvm.services.guests import Guests
from voidvm.services.host import Host
from voidvm.services.idempotency import Idempotency
from voidvm.services.images import Images
from voidvm.services.imports import Imports
from voidvm.services.jobs import Jobs
from voidvm.services.journal import StoredJournal
from voidvm.services.lifecycle import Lifecycle
from voidvm.services.recipes import catalog_text
from voidvm.services.services import Services
from voidvm.services.space import Space
from voidvm.services.tokens import Tokens
from voidvm.services.uploads import Uploads
from voidvm.services.users import Users
from voidvm.services.vms import Vms
from voidvm.services.waiting import Waiting
from voidvm.store.audit import AuditStore
from voidvm.store.database import Database
from voidvm.store.idempotency import IdempotencyStore
from voidvm.store.images import ImageStore
from voidvm.store.operations import OperationStore
from voidvm.store.sessions import SessionStore
from voidvm.store.tokens import TokenStore
from voidvm.store.uploads import UploadStore
from voidvm.store.users import UserStore
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.paths import Layout

# What `upload_bytes = 0` means: beyond every file system.
NO_CAP_BYTES = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The service, put together."""

    services: Services
    fleet: Fleet
    bus: Bus
    operations: Operations


def assemble(
    settings: Settings,
    *,
    layout: Layout,
    database: Database,
    key: bytes,
    launcher: Launcher,
    identity: Identity | None,
    accelerator: Accelerator,
) -> Parts:
    """All objects, knowing each other; nothing runs yet."""
    bus = Bus()
    plans = Plans({name: quota_of(plan) for name, plan in settings.plans.items()})
    passwords = Passwords()
    throttle = LoginThrottle(settings.limits.login_attempts)
    users = UserStore(database, plans=plans)
    tokens = TokenStore(database)
    vm_store = VmStore(database, plans=plans)
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
    fleet = Fleet(
        layout=layout,
        launcher=launcher,
        journal=StoredJournal(vm_store),
        bus=bus,
        history_bytes=settings.console.history_bytes,
    )
    catalog = parse_catalog(catalog_text(), settings.images.catalog)
    image_store = ImageStore(database)
    images = Images(image_store, layout=layout, catalog=catalog)
    guests = Guests(images=images, layout=layout, accel=accelerator.of_host)
    img = QemuImg(settings.qemu.img_binary, identity=identity)
    space = Space(layout)
    cap_bytes = settings.limits.upload_bytes or NO_CAP_BYTES
    operation_store = OperationStore(database)
    operations = Operations(operation_store, bus=bus)
    vms = Vms(vm_store, fleet=fleet, operations=operations, layout=layout, bus=bus)
    lifecycle = Lifecycle(vm_store, vms=vms, fleet=fleet, guests=guests, layout=layout)
    imports = Imports(
        image_store,
        operations=operations,
        admission=Admission(img, identity=identity, cap_bytes=cap_bytes),
        downloads=Downloads(allow_private=settings.images.allow_private_urls),
        catalog=catalog,
        space=space,
        layout=layout,
    )
    disks = Disks(
        vm_store,
        vms=vms,
        fleet=fleet,
        images=images,
        guests=guests,
        img=img,
        space=space,
        layout=layout,
    )
    services = Services(
        accounts=accounts,
        users=Users(users, passwords=passwords, throttle=throttle, plans=plans, bus=bus),
        tokens=Tokens(tokens, bus=bus),
        audit=Audit(AuditStore(database)),
        idempotency=Idempotency(IdempotencyStore(database), key=key),
        vms=vms,
        changes=Changes(
            vm_store,
            vms=vms,
            fleet=fleet,
            images=images,
            guests=guests,
            disks=disks,
            layout=layout,
        ),
        creation=Creation(
            vm_store,
            vms=vms,
            fleet=fleet,
            images=images,
            imports=imports,
            lifecycle=lifecycle,
            guests=guests,
            operations=operations,
            img=img,
            space=space,
            layout=layout,
        ),
        disks=disks,
        imports=imports,
        uploads=Uploads(
            UploadStore(database),
            imports=imports,
            operations=operations,
            space=space,
            layout=layout,
            cap_bytes=cap_bytes,
        ),
        jobs=Jobs(operation_store, operations=operations),
        lifecycle=lifecycle,
        waiting=Waiting(vms=vms, fleet=fleet),
        consoles=Consoles(vms=vms, fleet=fleet, tickets=TicketBox(), accounts=accounts, bus=bus),
        images=images,
        host=Host(
            vm_store,
            fleet=fleet,
            accelerator=accelerator,
            settings=settings.qemu,
            layout=layout,
        ),
    )
    return Parts(services=services, fleet=fleet, bus=bus, operations=operations)


async def restore(parts: Parts) -> None:
    """Find every running VM again first, then tidy up and go on with what was cut short."""
    services = parts.services
    await services.vms.restore()
    await parts.operations.restore()
    await services.disks.restore()
    await services.imports.sweep()
    await services.uploads.restore()
    await services.creation.resume()
