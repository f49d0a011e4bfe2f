"""What a relay and its clients see of a transport: a connection at each end, a way to dial, and a host that is dialled.

A transport carries two kinds of message: packets (bytes) and control messages (text). It says of itself whether packets
keep their order and whether all of them arrive; nothing else depends on which transport it is. A packet that cannot
leave at once waits in a bounded queue of the connection, and is dropped once it is older than `MAX_VOICE_AGE_S`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Protocol

from streaming_encodec.errors import CallError
from streaming_encodec.transport.close_codes import CloseCode


class ConnectionEnded(Exception):
    """The connection is over: `Connection.receive` raises it.

    received: the close code of the other end, None where the connection broke. sent: the close code with which this
    end's transport itself refused what came, None where it did not.
    """

    def __init__(self, received: int | None = None, reason: str = "", *, sent: int | None = None) -> None:
        super().__init__(f"{received if received is not None else sent} {reason}".strip())
        self.received = received
        self.reason = reason
        self.sent = sent


class Connection(Protocol):
    """One end of a connection. All of it belongs to one event loop."""

    ordered: bool
    """Packets arrive in the order in which they were sent."""
    reliable: bool
    """Every packet arrives, unless the connection breaks or the packet was dropped before it left."""

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        ...

    @property
    def round_trip_s(self) -> float:
        """Of a recent message and its answer; 0 before the first."""
        ...

    @property
    def heard_s(self) -> float:
        """When something last came, on the event loop's clock; before that, when the connection began."""
        ...

    def probe(self) -> None:
        """Ask the other end for a sign of life, unless it has not answered the last question; never waits."""
        ...

    @property
    def unsent_packets(self) -> int:
        """Packets that wait because the network does not take them."""
        ...

    async def receive(self) -> bytes | str:
        """The next packet (bytes) or control message (str). Raises ConnectionEnded."""
        ...

    def send_packet(self, sender: int, frames: int, packet: bytes, *, spare: bool = False) -> None:
        """Send a packet of so many frames at once, or queue it; never waits.

        spare: it went by another way too. Where this one does not get its packets through soon, it is left out.
        Where many connections get the same packet, hand each the same object: it is framed once.
        """
        ...

    def take_dropped(self) -> int:
        """How many packets of the queue were dropped since this was last asked."""
        ...

    def send_control(self, message: str, *, spare: bool = False) -> bool:
        """Send or queue a control message, before all packets that wait. False where too many wait already.

        spare: it may be lost; the next one says as much.
        """
        ...

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close with a code; a peer that does not answer is cut off after a moment."""
        ...

    def abort(self) -> None:
        """Cut the connection at once."""
        ...


class Sent(Enum):
    """Whether a packet arrives by the way that it was given to, as far as can be known."""

    NO = "no"
    PERHAPS = "perhaps"
    YES = "yes"


class PacketSession(Protocol):
    """A second way, for packets alone, beside a connection. It says of itself what may happen to them there."""

    ordered: bool
    reliable: bool

    @property
    def is_open(self) -> bool:
        """Whether packets may be sent."""
        ...

    @property
    def is_certain(self) -> bool:
        """Whether the other end answers, so that packets need no other way."""
        ...

    @property
    def round_trip_s(self) -> float:
        """Of a recent packet and its acknowledgement; 0 before the first."""
        ...

    def send_packet(self, sender: int, frames: int, packet: bytes) -> Sent:
        """Send a packet at once, or queue it. What is not sent for certain should go by another way too."""
        ...

    def take_dropped(self) -> int:
        """How many packets of the queue were dropped since this was last asked."""
        ...

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Say goodbye and end it. Does not wait."""
        ...


class ServerSession(PacketSession, Protocol):
    """A session at the server's end."""

    @property
    def address(self) -> str:
        """The client's present address, without its port."""
        ...


class SessionHost(Protocol):
    """What a server's transport for sessions asks of the relay."""

    def opened(self, session: ServerSession, key: str) -> bool:
        """A client has opened a session with this key. False where the key opens none."""
        ...

    def arrived(self, session: ServerSession, packet: bytes) -> None:
        """A packet came."""
        ...

    def flooded(self, session: ServerSession) -> None:
        """More comes than allowed. Nothing more of it is read."""
        ...

    def ended(self, session: ServerSession) -> None:
        """A session that was open is over."""
        ...


class Phase(Enum):
    """How far a server's connection is."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"


class RequestHeaders(Protocol):
    """Headers of the HTTP request that a connection began with."""

    def get_all(self, key: str) -> list[str]:
        """All values of a header, whatever its case; empty where there is none."""
        ...

    def __iter__(self) -> Iterator[str]:
        """Names of the headers that are there."""
        ...


class ServerConnection(Connection, Protocol):
    """A connection at the server's end. Times are those of the event loop."""

    address: str
    """The client's, without its port; "local" where it has none."""
    closing: bool
    """Set by the relay when it has decided to close this connection."""

    @property
    def headers(self) -> RequestHeaders:
        """Of the request; there are none before it came."""
        ...

    @property
    def path(self) -> str:
        """Of the request, without its query; empty before it came."""
        ...

    @property
    def phase(self) -> Phase:
        """How far it is."""
        ...

    def admitted(self) -> None:
        """The client is a participant: from now on it has the budget of a stream."""
        ...

    def stalled_s(self, now_s: float) -> float:
        """For how long the peer has read nothing while there was something to read."""
        ...

    def stood_still(self, seconds: float, now_s: float) -> None:
        """The relay itself did not run for so long: the peer could not read in that time."""
        ...

    def is_overdue(self, now_s: float) -> bool:
        """Whether it should have ended a while ago. Ask again and again: a peer can leave a close unanswered."""
        ...


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to an HTTP request that does not become a connection."""

    status: HTTPStatus
    body: str
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class HttpFile:
    """A file that a host serves over plain HTTP, see `transport.plain_http`.

    headers: those of the answer but for its length, the ETag and the connection's.
    """

    body: bytes | memoryview
    headers: tuple[tuple[str, str], ...]
    etag: str = ""
    status: HTTPStatus = HTTPStatus.OK
    gzipped: HttpFile | None = None
    """The same, compressed, for clients that take it: with headers that say so, and an ETag of its own."""


class Host(Protocol):
    """What a server's transport asks of the relay."""

    serves_files: bool
    """Whether there are any files to ask for."""

    def opened(self, connection: ServerConnection) -> None:
        """The network connection is there, TLS included."""

    def ended(self, connection: ServerConnection) -> None:
        """It is over."""

    def flooded(self, connection: ServerConnection) -> None:
        """It sends more than its budget allows. Nothing more of it is read."""

    def answer(self, connection: ServerConnection, path: str) -> HttpAnswer | None:
        """The answer to an HTTP request; None lets the connection be."""

    def file(self, connection: ServerConnection, path: str) -> HttpFile | None:
        """The file that a plain request gets; None where there is none of that path."""

    def reader(self, connection: ServerConnection) -> AbstractContextManager[Callable[[int], bool]]:
        """While a file is sent: gives a function that says whether so many bytes may leave now."""
        ...

    async def serve(self, connection: ServerConnection) -> None:
        """Talk with the client until the connection ends."""


class ClientConnection(Connection, Protocol):
    """A connection at the client's end."""

    @property
    def relay_address(self) -> str | None:
        """The relay's IP address, at which it may be reached by other ways too; None behind a proxy."""
        ...


class Dialer(Protocol):
    """A client's way to one relay."""

    url: str

    async def connect(self, token: str | None) -> ClientConnection:
        """Open a connection. Raises CallError with the reason."""
        ...

    async def diagnose(self, error: CallError) -> CallError:
        """Look closer at why `connect` failed, which may take a few seconds; `error` itself where nothing is found."""
        ...
