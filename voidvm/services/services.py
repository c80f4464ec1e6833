"""All use cases in one value, which the API is given."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from voidvm.services.accounts import Accounts
from voidvm.services.audit import Audit
from voidvm.services.changes import Changes
from voidvm.services.configuration import Configuration
from voidvm.services.consoles import Consoles
from voidvm.services.creation import Creation
from voidvm.services.disks import Disks
from voidvm.services.events import Events
from voidvm.services.exposition import Exposition
from voidvm.services.host import Host
from voidvm.services.host_power import HostPower
from voidvm.services.idempotency import Idempotency
from voidvm.services.images import Images
from voidvm.services.imports import Imports
from voidvm.services.jobs import Jobs
from voidvm.services.lifecycle import Lifecycle
from voidvm.services.metrics import Metrics
from voidvm.services.tickets import Tickets
from voidvm.services.tokens import Tokens
from voidvm.services.uploads import Uploads
from voidvm.services.users import Users
from voidvm.services.vms import Vms
from voidvm.services.waiting import Waiting

# For how long a new listener waits for what was answered before it came.
TOLD_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Services:
    """What handlers may call."""

    accounts: Accounts
    users: Users
    tokens: Tokens
    tickets: Tickets
    audit: Audit
    idempotency: Idempotency
    vms: Vms
    changes: Changes
    creation: Creation
    disks: Disks
    imports: Imports
    uploads: Uploads
    jobs: Jobs
    lifecycle: Lifecycle
    waiting: Waiting
    consoles: Consoles
    images: Images
    host: Host
    host_power: HostPower
    events: Events
    configuration: Configuration
    exposition: Exposition
    metrics: Metrics

    async def told(self) -> None:
        """Wait until what was answered is written down and told, but not for long.

        A database that hangs must keep nobody, and who is told of something twice has no harm.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(TOLD_S):
                await self.vms.recorded()
                await self.events.settled()
