"""The guest agent's channel: a question, an answer, never a wait without end."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from voidvm.hypervisor.usage import NetCounters, plausible

ANSWER_MAX_BYTES = 1_048_576
# Lines of somebody before us. More is a flood: reading what has arrived gives nobody else a turn.
LEFT_OVER_MAX = 100


class AgentSilent(Exception):
    """No agent answers in the guest."""


async def ask(path: Path, command: str, *, timeout_s: float = 3.0) -> object:
    """The agent's answer to a command without arguments.

    Raises `AgentSilent` when there is no agent, none in time, or an answer that is none.
    A number that only this call knows separates the answer from left-overs of earlier ones
    (QEMU's docs/interop/qemu-ga: guest-sync).
    """
    mark = secrets.randbelow(2**31)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_MAX_BYTES)
            try:
                # 0xFF makes the agent's parser forget half a message of somebody before us.
                sync = {"execute": "guest-sync", "arguments": {"id": mark}}
                writer.write(b"\xff" + json.dumps(sync).encode() + b"\n")
                await writer.drain()
                for _ in range(LEFT_OVER_MAX):
                    if _returned(await reader.readline()) == mark:
                        break
                else:
                    raise AgentSilent("talks without being asked")
                writer.write(json.dumps({"execute": command}).encode() + b"\n")
                await writer.drain()
                return _returned(await reader.readline())
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (TimeoutError, OSError, ValueError, EOFError) as error:
        raise AgentSilent(str(error) or "no answer") from error


def _returned(line: bytes) -> object:
    if not line:
        raise EOFError("the channel was closed")
    try:
        answer = json.loads(line.lstrip(b"\xff"))
    except (ValueError, RecursionError):
        return None
    return answer.get("return") if isinstance(answer, dict) else None


def traffic(interfaces: object, macs: Collection[str]) -> NetCounters | None:
    """What the cards of these addresses have moved, in an answer as below; None if untold.

    A bridge over a card has its address, too: of those the one that moved most is the card.
    """
    found: dict[str, list[NetCounters]] = {mac.lower(): [] for mac in macs}
    for interface in interfaces if isinstance(interfaces, list) else []:
        counts = interface.get("statistics") if isinstance(interface, dict) else None
        cards = found.get(str(interface.get("hardware-address")).lower()) if counts else None
        if isinstance(counts, dict) and cards is not None:
            with suppress(ValueError):
                cards.append(
                    NetCounters(
                        receive_bytes=_count(counts, "rx-bytes"),
                        transmit_bytes=_count(counts, "tx-bytes"),
                        receive_packets=_count(counts, "rx-packets"),
                        transmit_packets=_count(counts, "tx-packets"),
                    )
                )
    real = [
        max(cards, key=lambda card: card.receive_bytes + card.transmit_bytes)
        for cards in found.values()
        if cards
    ]
    if not real:
        return None
    return NetCounters(
        receive_bytes=sum(card.receive_bytes for card in real),
        transmit_bytes=sum(card.transmit_bytes for card in real),
        receive_packets=sum(card.receive_packets for card in real),
        transmit_packets=sum(card.transmit_packets for card in real),
    )


def _count(counts: Mapping[str, object], key: str) -> int:
    """A counter; whoever is root in the guest can tell anything. Raises `ValueError`."""
    value = counts.get(key, 0)
    if not isinstance(value, int):
        raise ValueError(f"{key}: no counter")  # noqa: TRY004 - what is told, not a bug of ours
    return plausible(value)


def addresses(interfaces: object) -> list[str]:
    """The guest's addresses in an answer to `guest-network-get-interfaces`, loopback left out."""
    found: list[str] = []
    for interface in interfaces if isinstance(interfaces, list) else []:
        entries = interface.get("ip-addresses", []) if isinstance(interface, dict) else []
        for entry in entries if isinstance(entries, list) else []:
            address = str(entry.get("ip-address", "")) if isinstance(entry, dict) else ""
            if address and not address.startswith(("127.", "::1", "fe80:")):
                found.append(address)
    return found
