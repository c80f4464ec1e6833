"""The two clients."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

from voidvm.client.accounts import Auth, Tokens, Users
from voidvm.client.core import DEFAULT_URL, Core, is_loopback, normal_url, trust_in, usual_trust
from voidvm.client.credentials import Credentials, Session
from voidvm.client.events import Events
from voidvm.client.flavours import Awaiting, Blocking, Closing, F, call
from voidvm.client.images import Images, Uploads
from voidvm.client.io import Io
from voidvm.client.live import Live
from voidvm.client.operations import Operations
from voidvm.client.requests import Json, Method, One, Request, data_of, request
from voidvm.client.retries import Retries
from voidvm.client.system import Logs, System
from voidvm.client.types import Ticket
from voidvm.client.vms import Disks, Vms

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 60.0


def _data(response: httpx.Response, _core: Core) -> Json:
    return data_of(response)


class Client(Closing[F]):
    """What both clients have: a part for each noun of the API."""

    def __init__(
        self,
        base_url: str | None = None,
        token: str | None = None,
        *,
        refresh_token: str | None = None,
        username: str | None = None,
        password: str | None = None,
        credentials: Credentials | None = None,
        timeout: float = TIMEOUT_S,
        retries: int | Retries = 4,
        language: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Nothing is asked yet.

        `base_url` is by default `VOIDVM_URL` of the environment, else the service on this host. Who
        it is: a `token` (of a session, or an API token; by default `VOIDVM_TOKEN`), with a
        `refresh_token` if it shall renew itself, or `username` and `password`; or `credentials` of
        one's own.

        `timeout`: seconds for one answer, waits not counted. `retries`: how often a request that
        broke off, or came too early or too often, is sent again; a POST under a key of its own, so
        that it is never done twice. `language`: of messages, "en" or "zh". `ca_file`: the
        certificates (PEM) to trust instead of the usual ones, such as the service's own that it
        has signed itself; by default `VOIDVM_CA_FILE`.

        Raises `ValueError` for a `base_url` that is none, and a `ca_file` without certificates.
        """
        url = normal_url(base_url or os.environ.get("VOIDVM_URL") or DEFAULT_URL)
        if username is None and token is None and credentials is None:
            token = os.environ.get("VOIDVM_TOKEN") or None
        ca_file = ca_file or os.environ.get("VOIDVM_CA_FILE") or None
        trust = trust_in(ca_file, url) if ca_file else None
        core = Core(
            url,
            self._io(is_direct=is_loopback(url), trust=trust, verify=trust or usual_trust(url)),
            timeout_s=timeout,
            retries=retries if isinstance(retries, Retries) else Retries(count=retries),
            language=language,
        )
        core.credentials = credentials or Session(
            core,
            token=token,
            refresh_token=refresh_token,
            username=username,
            password=password,
        )
        super().__init__(core)
        self.auth: Auth[F] = Auth(core)
        self.disks: Disks[F] = Disks(core)
        self.events: Events[F] = Events(core)
        self.images: Images[F] = Images(core)
        self.logs: Logs[F] = Logs(core)
        self.operations: Operations[F] = Operations(core)
        self.system: System[F] = System(core)
        self.tokens: Tokens[F] = Tokens(core)
        self.uploads: Uploads[F] = Uploads(core)
        self.users: Users[F] = Users(core)
        self.vms: Vms[F] = Vms(core)

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return self.core.url

    def live(self) -> Live[F]:
        """Events, samples, actions and terminals on one WebSocket; it connects when it is used."""
        return Live(self.core)

    @call
    def live_ticket(self) -> Request[Ticket]:
        """A credential for one connection to `/ws` of a client that can send no header."""
        return request("POST", "/ws/tickets", One(Ticket))

    @call
    def request(
        self,
        method: Method,
        path: str,
        *,
        body: Mapping[str, Json] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Request[Json]:
        """The `data` of any call of the API: for what this version has no method for."""
        return Request(
            method=method, template=path, path=path, read=_data, body=body, query=query or {}
        )

    def _io(
        self, *, is_direct: bool, trust: ssl.SSLContext | None, verify: ssl.SSLContext | bool
    ) -> Io:
        raise NotImplementedError

    async def _close(self) -> None:
        await self.core.io.close()


class VoidVMClient(Client[Blocking]):
    """A VoidVM service, in calls that return when they are done; threads may share it."""

    def _io(
        self, *, is_direct: bool, trust: ssl.SSLContext | None, verify: ssl.SSLContext | bool
    ) -> Io:
        from voidvm.client.blocking import BlockingIo  # noqa: PLC0415 - only this client needs it

        return BlockingIo(is_direct=is_direct, trust=trust, verify=verify)


class AsyncVoidVMClient(Client[Awaiting]):
    """A VoidVM service, in calls to be awaited; the tasks of one event loop may share it."""

    def _io(
        self, *, is_direct: bool, trust: ssl.SSLContext | None, verify: ssl.SSLContext | bool
    ) -> Io:
        from voidvm.client.awaiting import AwaitingIo  # noqa: PLC0415 - only this client needs it

        return AwaitingIo(is_direct=is_direct, trust=trust, verify=verify)
