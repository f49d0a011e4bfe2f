"""A bus of relays over NATS core, and JetStream for what must be decided once.

A room's name in the cluster is `room_key(room)`: names of NATS subjects hold neither spaces nor `.`, `*`, `>`.

================= ========================================================================
`se1.v.ROOM`      voice: a packet, with its speaker's number in it
`se1.p.ROOM`      presence (`RoomWord`), on change and every 1.5 s
`se1.q`           a question who speaks in a room: its key. Every relay answers on `se1.p`
`se1.n`           relays (`NodeWord`), every 1.5 s
`se1.r.NODE`      a listener's report, for the relay of the speaker
`se1.t.NODE`      a resumption token, for the relay that gave it
`se1-tokens`      a key-value bucket of JetStream: a key for each token that was used
================= ========================================================================
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial

from streaming_encodec.errors import ConfigError, PacketError
from streaming_encodec.relay.bus.base import NUMBERS_PER_NODE, BusEvents, Elsewhere, Reading
from streaming_encodec.relay.bus.nats_connection import NatsConnection
from streaming_encodec.relay.bus.nats_servers import NatsServers
from streaming_encodec.relay.bus.presence import MAX_NODE, ROOM_CHARACTERS, NodeWord, Presence, RoomWord
from streaming_encodec.relay.bus.used_tokens import UsedTokens
from streaming_encodec.transport.close_codes import CloseCode, Refused
from streaming_encodec.transport.limits import OUTAGE_S
from streaming_encodec.transport.logs import event, failure
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.fields import Fields, write_json
from streaming_encodec.wire.hello import Hello
from streaming_encodec.wire.packet import StreamFormat

_NODES, _QUESTIONS = "se1.n", "se1.q"
_SWEEP_S = 0.25
_CLOCKS_S = 60.0
"""By so much relays' clocks may differ."""
_YES = b"yes"


@dataclass(frozen=True, slots=True)
class ClusterTimes:
    """Times of a cluster, in seconds; the same on all of its relays.

    word_s: between two messages of a relay about itself. forget_s: three of them are missing. ask_s: the others'
    answers are awaited for so long at most. again_s: then they are asked once more: a subscription takes its time to
    reach all servers, and nothing tells when it has (nats-server#1142). claim_s: a relay that starts listens so long
    for one that has its number. ticket_s: another relay's answer on a resumption token. linger_s: a relay that stops
    answers so long.
    """

    word_s: float = 1.5
    forget_s: float = 5.5
    ask_s: float = 0.15
    again_s: float = 1.0
    claim_s: float = 0.5
    ticket_s: float = 0.3
    linger_s: float = 1.0


def room_key(room: str) -> str:
    """What a room is called in the cluster: 26 letters and digits, of any name."""
    digest = hashlib.sha256(room.encode()).digest()
    return base64.b32encode(digest)[:ROOM_CHARACTERS].decode("ascii").lower()


@dataclass(slots=True)
class _Entered:
    name: str
    ready: asyncio.Task[None] | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class NatsBus:
    """A `Bus` over NATS.

    Args:
        servers: the cluster's NATS servers. node: this relay's number among all of the cluster, 0 to 63.
        tokens: whether clients need tokens, which JetStream must remember. token_ttl_s: for so long at least.
        wall_clock: Unix time. clock: seconds, monotonic.

    Raises ConfigError for a number that can't be.
    """

    def __init__(
        self,
        servers: NatsServers,
        node: int,
        *,
        tokens: bool = False,
        token_ttl_s: float = 86_400.0,
        times: ClusterTimes | None = None,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 <= node <= MAX_NODE:
            raise ConfigError(f"a relay's number in its cluster lies in 0..{MAX_NODE}, not {node}", setting="node")
        self.numbers = range(node * NUMBERS_PER_NODE + 1, (node + 1) * NUMBERS_PER_NODE)
        self.ticket_prefix = f"{node}."
        self._times = times or ClusterTimes()
        self.linger_s = self._times.linger_s
        self._node = node
        self._wall_clock, self._clock = wall_clock, clock
        own = NodeWord(node, wall_clock(), secrets.token_hex(8))
        self._presence = Presence(own, self._times.forget_s)
        self._connection = NatsConnection(servers, f"streaming-encodec relay {node}", on_up=self._restored, clock=clock)
        self._entered: dict[str, _Entered] = {}  # by key
        self._keys: dict[str, str] = {}  # by name
        self._needs_tokens, self._tokens = tokens, UsedTokens(self._connection, servers, token_ttl_s + _CLOCKS_S)
        self._twin: NodeWord | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._events: BusEvents
        self._packets_in = self._packets_out = self._bad = 0

    # -- life -----------------------------------------------------------------------------------------------

    async def open(self, events: BusEvents) -> None:
        """Join the cluster.

        Raises CallError where NATS, or JetStream if there are tokens, can't be used; ConfigError if another relay has
        this one's number.
        """
        self._events = events
        await self._connection.open()
        try:
            await self._connection.subscribe(_NODES, self._on_node)
            await self._connection.subscribe(_QUESTIONS, self._on_question)
            await self._connection.subscribe(f"se1.r.{self._node}", self._on_report)
            await self._connection.subscribe(f"se1.t.{self._node}", self._on_ticket)
            for _ in range(2):  # the first question may come before the subscription is known everywhere
                self._say_node(asks=True)
                await asyncio.sleep(self._times.claim_s / 2)
            self._connection.check_permissions()
            if self._twin is not None:
                raise ConfigError(
                    f"another relay of this cluster has the number {self._node}: give each its own", setting="node"
                )
            if self._needs_tokens:
                await self._tokens.check()
        except BaseException:
            await self._connection.close()
            raise
        self._spawn(self._speak())
        event("cluster_joined", node=self._node, others=sorted(self._presence.nodes))

    async def close(self) -> None:
        """Tell the others that this relay leaves, and disconnect."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._say_node(leaves=True)
        await self._connection.close()

    async def _speak(self) -> None:
        """Say what is so again and again, and forget who says nothing."""
        then_s = said_s = self._clock()
        while True:
            await asyncio.sleep(_SWEEP_S)
            late_s, then_s = self._clock() - then_s - _SWEEP_S, self._clock()
            try:
                if late_s >= OUTAGE_S:
                    self._presence.stood_still(late_s)
                if then_s - said_s >= self._times.word_s:
                    said_s = then_s
                    self._say_node()
                    for room in self._presence.rooms:
                        self._say_room(room, unless_empty=True)
                self._changed(self._presence.expire(then_s))
            except Exception:
                # It must go on whatever one room did to it.
                failure("cluster")

    def _restored(self) -> None:
        """The connection is back: say what is so, and ask what has happened."""
        self._say_node(asks=True)
        for room in self._presence.rooms:
            self._say_room(room, unless_empty=True)
            self._connection.send(_QUESTIONS, room.encode())
            asyncio.get_running_loop().call_later(self._times.again_s, self._ask_again, room)

    # -- rooms ------------------------------------------------------------------------------------------------

    async def enter(self, room: str) -> Elsewhere:
        """Subscribe to a room, and return its state on other relays; at once if it was entered before.

        Raises Refused if another relay has this one's number.
        """
        if self._twin is not None:
            raise Refused(CloseCode.TRY_LATER, "this relay is no part of its cluster; try another")
        key = self._keys.get(room)
        if key is None:
            key = self._keys[room] = room_key(room)
            self._entered[key] = _Entered(room)
            self._entered[key].ready = self._spawn(self._ask(key))
        ready = self._entered[key].ready
        if ready is not None:
            await asyncio.wait({ready})
        return self._presence.elsewhere(key)

    def leave(self, room: str) -> None:
        """This relay has no participant in the room any more."""
        key = self._keys.pop(room, None)
        if key is None:
            return
        entered = self._entered.pop(key)
        if entered.ready is not None:
            entered.ready.cancel()
        self._presence.leave(key)
        for kind in "vp":
            self._connection.unsubscribe(f"se1.{kind}.{key}")

    async def _ask(self, key: str) -> None:
        self._presence.enter(key)
        entered = self._entered[key]
        await asyncio.gather(
            self._connection.subscribe(f"se1.v.{key}", partial(self._on_packet, entered.name)),
            self._connection.subscribe(f"se1.p.{key}", partial(self._on_room, key)),
        )
        self._connection.send(_QUESTIONS, key.encode())
        if self._presence.nodes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._times.ask_s):
                    await entered.answered.wait()
        asyncio.get_running_loop().call_later(self._times.again_s, self._ask_again, key)

    def _ask_again(self, key: str) -> None:
        if key in self._entered:
            self._connection.send(_QUESTIONS, key.encode())

    def announce(
        self, room: str, stream_format: StreamFormat, speakers: frozenset[int], names: Mapping[int, str]
    ) -> None:
        """These are now the speakers of the room on this relay, and the names of those that gave one."""
        key = self._keys.get(room)
        if key is not None:
            self._presence.speak(key, stream_format, speakers, names, self._wall_clock())
            self._say_room(key)

    def publish(self, room: str, packet: bytes) -> None:
        """Send a speaker's packet to the listeners on other relays."""
        key = self._keys.get(room)
        if key is not None and self._presence.nodes and self._twin is None:
            self._connection.send_voice(f"se1.v.{key}", packet)
            self._packets_out += 1

    def report(self, room: str, report: Report) -> None:
        """Send a listener's report to the relay of the speaker."""
        key = self._keys.get(room)
        if key is not None:
            message = write_json({"room": key, **report.to_dict()}).encode()
            self._connection.send(f"se1.r.{report.sender // NUMBERS_PER_NODE}", message)

    # -- what must be decided once ------------------------------------------------------------------------------

    async def use_token(self, token_id: str, expires_s: float) -> None:
        """Use a token up. Raises Refused if it was used on any relay, or if that cannot be found out."""
        await self._tokens.use(token_id)

    async def redeem(self, ticket: str, hello: Hello) -> bool:
        """Ask the relay that gave a resumption token whether it is good; then that one gives up the participant."""
        node, _, secret = ticket.partition(".")
        if not secret or not node.isdecimal() or len(node) > 2 or int(node) not in self._presence.nodes:
            return False
        asked = {"room": hello.room, "role": hello.role, "ticket": ticket, "format": hello.format.to_dict()}
        answer = await self._connection.request(f"se1.t.{int(node)}", write_json(asked).encode(), self._times.ticket_s)
        return answer == _YES

    # -- what others say --------------------------------------------------------------------------------------

    def _on_packet(self, room: str, data: bytes, answer_to: str) -> None:
        self._packets_in += 1
        self._events.on_packet(room, data)

    def _on_room(self, key: str, data: bytes, answer_to: str) -> None:
        try:
            word = RoomWord.read(data)
        except PacketError:
            self._bad += 1
            return
        if word.room != key:
            self._bad += 1
        elif self._presence.hear_room(word, self._clock()):
            self._changed(frozenset({key}))
        entered = self._entered.get(key)
        if entered is not None and self._presence.answered(key):
            entered.answered.set()

    def _on_question(self, data: bytes, answer_to: str) -> None:
        if len(data) == ROOM_CHARACTERS and data.isalnum():
            self._say_room(data.decode("ascii"))
        else:
            self._bad += 1

    def _on_node(self, data: bytes, answer_to: str) -> None:
        try:
            word = NodeWord.read(data)
        except PacketError:
            self._bad += 1
            return
        if self._presence.is_twin(word):
            self._meet_twin(word)
            return
        self._changed(self._presence.hear_node(word, self._clock()))
        if word.asks:
            self._say_node()

    def _meet_twin(self, twin: NodeWord) -> None:
        """Two relays have one number: the one that started later leaves the cluster."""
        if not self._presence.yields_to(twin):
            if not twin.leaves:
                self._say_node()
            return
        if self._twin is None:
            event("node_number_taken", logging.ERROR, node=self._node)
            for room in self._presence.rooms:
                self._changed(frozenset({room}))
        self._twin = twin

    def _on_report(self, data: bytes, answer_to: str) -> None:
        try:
            fields = Fields.read(data)
            entered = self._entered.get(fields.text("room", ROOM_CHARACTERS))
            report = Report.from_fields(fields)
        except PacketError:
            self._bad += 1
            return
        if entered is not None:
            self._events.on_report(entered.name, report)

    def _on_ticket(self, data: bytes, answer_to: str) -> None:
        try:
            fields = Fields.read(data)
            hello = Hello.from_fields(Fields({**fields.values, "protocol": 1, "resume": fields.text("ticket", 64)}))
        except PacketError:
            self._bad += 1
            return
        # First what follows for the others, then the answer: it comes to them in this order.
        self._connection.send(answer_to, _YES if self._events.on_ticket(hello) else b"no")

    def _changed(self, keys: frozenset[str]) -> None:
        for key in keys:
            entered = self._entered.get(key)
            if entered is not None:
                self._events.on_elsewhere(entered.name, self._presence.elsewhere(key))

    # -- what is said -----------------------------------------------------------------------------------------

    def _say_node(self, *, asks: bool = False, leaves: bool = False) -> None:
        own = self._presence.own
        if self._twin is None:
            self._connection.send(_NODES, NodeWord(own.node, own.started_s, own.boot, asks, leaves).to_bytes())

    def _say_room(self, key: str, *, unless_empty: bool = False) -> None:
        word = self._presence.own_word(key)
        if self._twin is None and (word.speakers or not unless_empty):
            self._connection.send(f"se1.p.{key}", word.to_bytes())

    def readings(self) -> tuple[Reading, ...]:
        """The cluster's state, for `/metrics`."""
        up = self._connection.is_up
        return (
            Reading("cluster_connected", "1 while there is a connection to NATS.", int(up and self._twin is None)),
            Reading("cluster_nodes", "Other relays of the cluster that live.", len(self._presence.nodes)),
            Reading("cluster_rooms", "Rooms that this relay has subscribed to.", len(self._entered)),
            Reading("cluster_round_trip_seconds", "To the NATS server and back.", self._connection.round_trip_s),
            Reading("cluster_connects", "Connections to NATS so far.", self._connection.connects, counts=True),
            Reading("cluster_packets_in", "Voice packets of other relays.", self._packets_in, counts=True),
            Reading("cluster_packets_out", "Voice packets for other relays.", self._packets_out, counts=True),
            Reading(
                "cluster_packets_dropped",
                "Of those, packets that NATS did not take in time.",
                self._connection.dropped,
                counts=True,
            ),
            Reading("cluster_bad_messages", "Messages of other relays that were no such.", self._bad, counts=True),
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
