"""The clients of a relay: each connection from its hello to its end, and what relays tell each other of rooms."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from streaming_encodec.errors import PacketError
from streaming_encodec.relay.bus.base import Bus, Elsewhere
from streaming_encodec.relay.datagrams import DatagramSeats, Farewells
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.login import Login
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.relay.participants import Participant
from streaming_encodec.relay.room import Effects, Room
from streaming_encodec.relay.rooms import RoomTable
from streaming_encodec.relay.tokens import Grant
from streaming_encodec.transport.base import ConnectionEnded, Sent, ServerConnection
from streaming_encodec.transport.close_codes import FINAL_CODES, CloseCode, Refused
from streaming_encodec.transport.logs import event, failure
from streaming_encodec.wire.control import AskDatagrams, Bye, Left, Report, parse_control, serialize_control
from streaming_encodec.wire.header import cut_packet, ends
from streaming_encodec.wire.hello import Hello, Welcome

_NORMAL, _GOING_AWAY = 1000, 1001
_IN_A_ROW = 4
"""Messages of one client; to let others have their turn takes as long as one of them."""
_LOADED_AGAIN_S = 10.0
"""A browser that leaves a page says "going away", also where it loads the page again: the seat is kept for so long."""
_ENDS_SESSION = (CloseCode.TOO_FAST, CloseCode.TIMEOUT, CloseCode.RESTARTING)
"""After these a participant's datagram session ends too. Else it goes on while the connection is restored."""

Member = Participant[ServerConnection]


class Calls:
    """Does for connections what `RoomTable` decides; a `BusEvents`. `clock` is in seconds, monotonic."""

    def __init__(
        self,
        rooms: RoomTable[ServerConnection],
        bus: Bus,
        login: Login,
        metrics: Metrics,
        limits: RelayLimits,
        clock: Callable[[], float],
    ) -> None:
        self._rooms, self._bus, self._login = rooms, bus, login
        self._metrics, self._limits, self._clock = metrics, limits, clock
        self._entering: Counter[str] = Counter()  # clients that are about to enter a room
        self._tasks: set[asyncio.Task[None]] = set()
        self._farewells: Farewells[ServerConnection] = Farewells()
        self.datagrams = DatagramSeats(metrics, clock, packet=self._from_session, refuse=self._refuse)

    # -- one connection -------------------------------------------------------------------------------------

    async def serve(self, connection: ServerConnection) -> None:
        """Talk with one client until its connection ends."""
        participant: Member | None = None
        code: int | None = None
        try:
            participant = await self._enter(connection)
            while True:
                for _ in range(_IN_A_ROW):
                    self._take(connection, participant, await connection.receive())
                # Messages that wait are received at once: let other clients have their turn among them.
                await asyncio.sleep(0)
        except Refused as refused:
            code = refused.code
            self._metrics.closed[code] += 1
            event("refused", logging.WARNING, address=connection.address, code=code, reason=refused.reason)
            self._vacate(connection, participant, code)
            await connection.close(refused.code, refused.reason)
        except ConnectionEnded as ended:
            code = ended.received if ended.received is not None else ended.sent
            if ended.sent is not None and not connection.closing:
                self._metrics.closed[ended.sent] += 1
        except Exception:
            failure("connection")
            code = CloseCode.INTERNAL_ERROR
            self._metrics.closed[code] += 1
            await connection.close(code, "the relay failed")
        finally:
            self._metrics.counts["packets_dropped"] += connection.take_dropped() + connection.unsent_packets
            self._vacate(connection, participant, code)

    async def _enter(self, connection: ServerConnection) -> Member:
        try:
            async with asyncio.timeout(self._limits.hello_s):
                text = await connection.receive()
        except TimeoutError:
            raise Refused(CloseCode.TIMEOUT, "no hello in time") from None
        hello, bearer = self._login.read(connection, text)
        now_s = self._clock()
        found = self._rooms.resume(hello, connection, now_s)
        if found is None:
            found = await self._join(connection, hello, await self._grant(hello, bearer))
        participant, welcome, effects = found
        connection.admitted()
        connection.send_control(serialize_control(replace(welcome, datagrams=self.datagrams.offer(participant))))
        self.apply(effects)
        self._metrics.counts["resumes" if welcome.resumed else "joins"] += 1
        event(
            "resume" if welcome.resumed else "join",
            room=hello.room,
            seat=participant.number,
            role=participant.role,
            address=connection.address,
        )
        return participant

    async def _grant(self, hello: Hello, bearer: str | None) -> Grant:
        """What the client may do: what it could do at another relay of the cluster, or what its token says."""
        if hello.resume is not None and await self._bus.redeem(hello.resume, hello):
            return Grant(hello.room, publish=hello.role != "subscribe", subscribe=hello.role != "publish")
        return self._login.check(hello, bearer)

    async def _join(
        self, connection: ServerConnection, hello: Hello, grant: Grant
    ) -> tuple[Member, Welcome, Effects[ServerConnection]]:
        room = hello.room
        self._entering[room] += 1
        try:
            elsewhere = await self._bus.enter(room)
            self.apply(self._rooms.admit(hello, elsewhere))  # a full room uses up no token
            if grant.token_id is not None:
                await self._bus.use_token(grant.token_id, grant.expires_s)
                elsewhere = await self._bus.enter(room)  # others may have come meanwhile
                self.apply(self._rooms.admit(hello, elsewhere))
            return self._rooms.join(hello, connection, self._clock(), elsewhere)
        finally:
            self._entering[room] -= 1
            self._leave_bus(room)

    def _leave_bus(self, room: str) -> None:
        """Leave a room on the bus if no client here is in it or about to enter."""
        if not self._entering[room]:
            del self._entering[room]
            if room not in self._rooms.rooms:
                self._bus.leave(room)

    def _take(self, connection: ServerConnection, participant: Member, message: str | bytes) -> None:
        if participant.peer is not connection:
            return  # replaced: what is still in the pipe does not count
        if participant.unconfirmed:
            self._rooms.confirm(participant)
        if isinstance(message, bytes):
            self._fan_out(participant, message, ordered=connection.ordered)
            return
        try:
            control = parse_control(message)
        except PacketError as error:
            raise Refused(CloseCode.BAD_MESSAGE, "not a control message") from error
        self.apply(self._rooms.control(participant, control, self._clock()))
        if isinstance(control, AskDatagrams):
            offer = self.datagrams.offer(participant)
            if offer is not None:
                connection.send_control(serialize_control(offer), spare=True)
        elif isinstance(control, Bye):
            event("leave", room=participant.room.name, seat=participant.number, code=int(CloseCode.NORMAL))

    def _from_session(self, participant: Member, data: bytes, ordered: bool) -> None:
        """A packet that came over a datagram session, which may stand while its connection is lost."""
        self._fan_out(participant, data, ordered=ordered)

    def _fan_out(self, participant: Member, data: bytes, *, ordered: bool) -> None:
        begin_s = self._clock()
        counts = self._metrics.counts
        checked = participant.packet(data, begin_s, ordered=ordered)
        counts["packets_in"] += 1
        counts["bytes_in"] += len(data)
        if isinstance(checked, str):
            counts[checked] += 1
            return
        frames, packet = checked
        counts["frames_in"] += frames
        self._deliver(participant.room, participant, participant.number, frames, packet)
        self._bus.publish(participant.room.name, packet)
        self._metrics.fanout(self._clock() - begin_s)

    def _deliver(
        self, room: Room[ServerConnection], speaker: Member | None, number: int, frames: int, packet: bytes
    ) -> None:
        """Send a packet to the listeners here."""
        copies: dict[int | None, bytes] = {None: packet}
        both_ways = ends(packet)  # without it, listeners would conceal what is never spoken
        sent = size = 0
        for listener in room.listeners:
            if listener is speaker:
                continue
            layers = listener.max_codebooks
            copy = copies.get(layers)
            if copy is None:
                assert layers is not None  # None is there
                copy = copies[layers] = cut_packet(packet, layers)
            session, peer = listener.session, listener.peer
            went = Sent.NO if session is None else session.send_packet(number, frames, copy)
            if (both_ways or went is not Sent.YES) and peer is not None:
                peer.send_packet(number, frames, copy, spare=went is Sent.PERHAPS and not both_ways)
            sent += 1
            size += len(copy)
        counts = self._metrics.counts
        counts["packets_out"] += sent
        counts["bytes_out"] += size

    def _vacate(self, connection: ServerConnection, participant: Member | None, code: int | None) -> None:
        """The connection is over: free its participant, or keep it for a client that may come back."""
        if participant is None or participant.peer is not connection:
            return
        if code in FINAL_CODES or code == _NORMAL:
            self.apply(self._rooms.leave(participant))
        else:
            if code in _ENDS_SESSION and participant.session is not None:
                participant.session.close(code)
            spent_s = max(0.0, self._limits.resume_s - _LOADED_AGAIN_S) if code == _GOING_AWAY else 0.0
            self._rooms.lose(participant, self._clock() - spent_s)
        event("leave", room=participant.room.name, seat=participant.number, code=code)

    # -- what the bus brings ----------------------------------------------------------------------------------

    def on_packet(self, room: str, packet: bytes) -> None:
        """A speaker on another relay sent a packet."""
        here = self._rooms.rooms.get(room)
        found = None if here is None else here.from_elsewhere(packet, self._clock())
        if here is None or found is None:
            self._metrics.counts["packets_unheard"] += 1
            return
        self._deliver(here, None, *found, packet)

    def on_elsewhere(self, room: str, elsewhere: Elsewhere) -> None:
        """Speakers came or went on other relays."""
        here = self._rooms.rooms.get(room)
        if here is not None:
            self.apply(self._rooms.settle(here, elsewhere))

    def on_report(self, room: str, report: Report) -> None:
        """A listener on another relay reports on a speaker of this one."""
        here = self._rooms.rooms.get(room)
        if here is not None:
            self.apply(self._rooms.report(here, report))

    def on_ticket(self, hello: Hello) -> bool:
        """A client brought a resumption token of this relay to another one."""
        effects = self._rooms.give_up(hello)
        if effects is None:
            return False
        self.apply(effects)
        return True

    def tick(self) -> None:
        """To be called twice a second."""
        self.datagrams.tick()
        self._farewells.say_again()

    # -- doing what the protocol says -----------------------------------------------------------------------

    def apply(self, effects: Effects[ServerConnection]) -> None:
        """Send the notices, close the connections, and tell the other relays."""
        texts: dict[int, str] = {}
        left = {id(message): (to.room, message) for to, message in effects.notices if isinstance(message, Left)}
        for room, farewell in left.values():
            self._farewells.say(room, farewell)
        for participant, message in effects.notices:
            if participant.peer is None:
                continue
            # There are as many reports a second as listeners, and the next one says as much as the last.
            spare = isinstance(message, Report)
            text = texts.get(id(message))  # one notice goes to many listeners as the same object
            if text is None:
                text = texts[id(message)] = serialize_control(message)
            if not participant.peer.send_control(text, spare=spare) and not spare:
                self.close(participant.peer, Refused(CloseCode.STALLED, "too many messages unread"))
        for peer, refused in effects.closes:
            self.close(peer, refused)
        for session in effects.sessions:
            session.close(CloseCode.NORMAL, "goodbye")
        for room, report in effects.reports:
            self._bus.report(room.name, report)
        for room in effects.announcements:
            # Those with another format are about to be closed.
            speakers = {each.number: each.name for each in room.speakers() if each.format == room.format}
            names = {number: name for number, name in speakers.items() if name is not None}
            self._bus.announce(room.name, room.format, frozenset(speakers), names)
            self._leave_bus(room.name)

    def _refuse(self, participant: Member, refused: Refused) -> None:
        """End a participant's connection and session: what it sends is not allowed."""
        if participant.session is not None:
            participant.session.close(refused.code, refused.reason)
        if participant.peer is not None:
            self.close(participant.peer, refused)
        elif refused.code in FINAL_CODES:
            self.apply(self._rooms.leave(participant))

    def close(self, connection: ServerConnection, refused: Refused) -> None:
        """Close a connection with a code, unless that was begun before. Does not wait."""
        if connection.closing:
            return
        connection.closing = True
        self._metrics.closed[refused.code] += 1
        event("closed", address=connection.address, code=int(refused.code), reason=refused.reason)
        task = asyncio.create_task(connection.close(refused.code, refused.reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
