"""The bus between relays that share rooms: its interface, and the events that it delivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from streaming_encodec.wire.control import Report
from streaming_encodec.wire.hello import Hello
from streaming_encodec.wire.packet import StreamFormat

NUMBERS_PER_NODE = 1024
"""Participants' numbers are unique in a room across relays: node · 1024 + 1…1023, for nodes 0 to 63."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A room on all other relays: its speakers' numbers, what some are called, and the format if any relay has one.

    Two relays may set different formats at the same moment. The bus then decides for the first, on all of them alike.
    """

    speakers: frozenset[int] = frozenset()
    format: StreamFormat | None = None
    names: Mapping[int, str] = field(default_factory=dict)


NOBODY = Elsewhere()


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure for `/metrics`: its name, what it says, and its value. counts: it only grows."""

    name: str
    about: str
    value: float
    counts: bool = False


class BusEvents(Protocol):
    """Events of rooms that a relay has entered. Called in its event loop; must not block."""

    def on_packet(self, room: str, packet: bytes) -> None:
        """A speaker on another relay sent this; its number is in the packet."""

    def on_elsewhere(self, room: str, elsewhere: Elsewhere) -> None:
        """Speakers came or went on other relays, or their relay is gone."""

    def on_report(self, room: str, report: Report) -> None:
        """A listener on another relay reports on a speaker of this one."""

    def on_ticket(self, hello: Hello) -> bool:
        """A client brought another relay this one's resumption token: whether it is good, and now used up."""
        ...


class Bus(Protocol):
    """One relay's place on the bus. All of it belongs to one event loop; only coroutines wait.

    Packets may be lost, and none is stored: stale voice is useless.
    """

    numbers: range
    """Numbers that this relay may give to participants, in each room."""
    ticket_prefix: str
    """How resumption tokens of this relay begin, so that others know whom to ask."""
    linger_s: float
    """After its clients were sent away, a relay stays for so long: others may ask for them."""

    async def open(self, events: BusEvents) -> None:
        """Join. Raises CallError where the bus cannot be reached."""
        ...

    async def close(self) -> None:
        """Leave, after telling the other relays."""
        ...

    async def enter(self, room: str) -> Elsewhere:
        """Subscribe to a room, and return its state on other relays; at once if it was entered before."""
        ...

    def leave(self, room: str) -> None:
        """This relay has no participant in the room any more."""
        ...

    def announce(
        self, room: str, stream_format: StreamFormat, speakers: frozenset[int], names: Mapping[int, str]
    ) -> None:
        """These are now the speakers of the room on this relay, and the names of those that gave one."""
        ...

    def publish(self, room: str, packet: bytes) -> None:
        """Send a speaker's packet to the listeners on other relays."""
        ...

    def report(self, room: str, report: Report) -> None:
        """Send a listener's report to the relay of the speaker."""
        ...

    async def use_token(self, token_id: str, expires_s: float) -> None:
        """Use a token up. Raises Refused if it was used on any relay, or if that cannot be found out."""
        ...

    async def redeem(self, ticket: str, hello: Hello) -> bool:
        """Whether a resumption token of another relay is good for this hello; the participant there is then gone."""
        ...

    def readings(self) -> tuple[Reading, ...]:
        """The state of the bus, for `/metrics`."""
        ...
