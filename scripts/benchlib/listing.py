"""`GET /vms` with a thousand VMs."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime

from benchlib.figures import Figure, Target, at_most, plain
from benchlib.plan import Plan
from benchlib.service import Failed, Json, Service, service
from voidvm.domain.account import Principal
from voidvm.domain.fields import new_vm_id
from voidvm.domain.quota import Plans
from voidvm.domain.vm import Disk, Hardware, VmRecord
from voidvm.store.database import Database
from voidvm.store.users import UserStore
from voidvm.store.vms import VmStore

TARGET = at_most(25.0)
# The default page, and the largest one.
PAGES = (50, 200)


def measure(plan: Plan) -> list[Figure]:
    """Ask for the first page over one connection, each size by turns."""
    vms, asks = plan.count(1000, quick=20), plan.count(60, quick=3)
    with service(accel=plan.accel) as ours:
        define(ours, vms)
        times: dict[int, list[float]] = {limit: [] for limit in PAGES}
        _check(ours, vms)
        for _ in range(asks):
            for limit in PAGES:
                begin = time.perf_counter()
                ours.ask_raw("GET", f"/vms?limit={limit}")
                times[limit].append((time.perf_counter() - begin) * 1000)
    return [_figure(vms, limit, times[limit], TARGET) for limit in PAGES]


def _figure(vms: int, limit: int, times: list[float], target: Target) -> Figure:
    what = f"GET /vms?limit={limit} with {vms} VMs"
    return plain(f"list-{limit}", what, times, "ms", target=target)


def _check(ours: Service, vms: int) -> None:
    page: Json = ours.ask("GET", "/vms?limit=200")
    if page["pagination"]["total"] != vms or len(page["vms"]) != min(200, vms):
        raise Failed(f"not {vms} VMs: {page['pagination']}")


def define(ours: Service, vms: int) -> None:
    """Give the service so many VMs, as rows: their disks would cost minutes and change nothing."""
    ours.stop()
    asyncio.run(_insert(ours, vms))
    ours.start()


async def _insert(ours: Service, vms: int) -> None:
    database = await Database.open(ours.data / "voidvm.db")
    plans = Plans(dict)
    try:
        admin = await UserStore(database, plans=plans).find("admin")
        if admin is None:
            raise Failed("the service has made no admin")
        owner = Principal(
            user_id=admin.id, username="admin", role="admin", session_id="", permissions=frozenset()
        )
        store = VmStore(database, plans=plans)
        for number in range(vms):
            await store.insert(_record(owner, number))
    finally:
        await database.close()


def _record(owner: Principal, number: int) -> VmRecord:
    now = datetime.now(UTC)
    return VmRecord(
        id=new_vm_id(),
        owner_id=owner.user_id,
        owner=owner.username,
        name=f"machine-{number}",
        uuid=str(uuid.uuid4()),
        os="tiny",
        tags=["bench", f"group-{number % 10}"],
        hardware=Hardware(cpu=2, memory=2048),
        disks=[Disk(id="disk0", size=20)],
        created_at=now,
        updated_at=now,
    )
