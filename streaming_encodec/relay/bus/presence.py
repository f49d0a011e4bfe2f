"""Soft state of a cluster: which relays live, and who speaks in which room on each. Pure: the time is passed in.

Relays say again and again what is so; what is not repeated is forgotten. Messages are checked as strictly as those of
clients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streaming_encodec.relay.bus.base import NOBODY, NUMBERS_PER_NODE, Elsewhere
from streaming_encodec.wire.fields import Fields, write_json
from streaming_encodec.wire.hello import MAX_SPEAKERS, read_name
from streaming_encodec.wire.packet import StreamFormat

MAX_NODE = 63
MAX_WORD_BYTES = 24_576
"""Of a room's speakers and their names, of which each takes up to 256 bytes."""
ROOM_CHARACTERS = 26
"""Of a room's name in the cluster, see `nats.room_key`."""


@dataclass(frozen=True, slots=True)
class NodeWord:
    """A relay says that it lives.

    started_s, boot: Unix time and a random number, which tell two relays of one node number apart. asks: it is new, and
    the others are to answer. leaves: it stops.
    """

    node: int
    started_s: float
    boot: str
    asks: bool = False
    leaves: bool = False

    def to_bytes(self) -> bytes:
        """As a message."""
        return write_json(
            {
                "node": self.node,
                "started_s": self.started_s,
                "boot": self.boot,
                "asks": self.asks,
                "leaves": self.leaves,
            }
        ).encode()

    @classmethod
    def read(cls, message: bytes) -> NodeWord:
        """Raises PacketError."""
        fields = Fields.read(message)
        return cls(
            fields.whole("node", 0, MAX_NODE),
            fields.number("started_s", 0.0, 1e12),
            fields.text("boot", 32),
            fields.flag("asks"),
            fields.flag("leaves"),
        )


@dataclass(frozen=True, slots=True)
class RoomWord:
    """A relay says who speaks in a room there, since when (Unix time, of the first speaker) and in which format.

    format: None where nobody speaks. names: of the speakers that gave one.
    """

    node: int
    room: str
    since_s: float = math.inf
    format: StreamFormat | None = None
    speakers: frozenset[int] = frozenset()
    names: Mapping[int, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As a message."""
        values: dict[str, Any] = {"node": self.node, "room": self.room}
        if self.format is not None:
            values |= {
                "since_s": self.since_s,
                "format": self.format.to_dict(),
                "speakers": [_speaker(number, self.names.get(number)) for number in sorted(self.speakers)],
            }
        return write_json(values).encode()

    @classmethod
    def read(cls, message: bytes) -> RoomWord:
        """Raises PacketError, also for a relay that claims numbers that are not its own."""
        fields = Fields.read(message, MAX_WORD_BYTES)
        node, room = fields.whole("node", 0, MAX_NODE), fields.text("room", ROOM_CHARACTERS)
        first = node * NUMBERS_PER_NODE
        listed = fields.objects("speakers", MAX_SPEAKERS)
        speakers: dict[int, str | None] = {}
        for each in listed:
            speakers[each.whole("sender", first + 1, first + NUMBERS_PER_NODE - 1)] = read_name(each)
        if not speakers:
            return cls(node, room)
        since_s = fields.number("since_s", 0.0, 1e12)
        stream_format = StreamFormat.from_fields(fields.object("format"))
        names = {number: name for number, name in speakers.items() if name is not None}
        return cls(node, room, since_s, stream_format, frozenset(speakers), names)


def _speaker(number: int, name: str | None) -> dict[str, Any]:
    return {"sender": number} if name is None else {"sender": number, "name": name}


@dataclass(slots=True)
class _Node:
    word: NodeWord
    heard_s: float


@dataclass(slots=True)
class _Room:
    own: RoomWord
    others: dict[int, tuple[RoomWord, float]] = field(default_factory=dict)  # by node; when it was heard


class Presence:
    """What one relay knows of the others, and what it sends them about itself.

    forget_s: so long after its last message a relay, or what it reported of a room, no longer counts.
    """

    def __init__(self, own: NodeWord, forget_s: float) -> None:
        self.own = own
        self._forget_s = forget_s
        self._nodes: dict[int, _Node] = {}
        self._rooms: dict[str, _Room] = {}

    @property
    def nodes(self) -> frozenset[int]:
        """Numbers of the other relays."""
        return frozenset(self._nodes)

    @property
    def rooms(self) -> tuple[str, ...]:
        """Rooms that this relay has entered."""
        return tuple(self._rooms)

    def enter(self, room: str) -> None:
        """Begin to listen to what is said of a room."""
        self._rooms.setdefault(room, _Room(RoomWord(self.own.node, room)))

    def leave(self, room: str) -> None:
        """Forget a room."""
        self._rooms.pop(room, None)

    def own_word(self, room: str) -> RoomWord:
        """What this relay says of a room."""
        there = self._rooms.get(room)
        return RoomWord(self.own.node, room) if there is None else there.own

    def speak(
        self, room: str, stream_format: StreamFormat, speakers: frozenset[int], names: Mapping[int, str], now_s: float
    ) -> None:
        """These are now the speakers here. now_s: Unix time."""
        there = self._rooms.get(room)
        if there is None:
            return
        if not speakers:
            there.own = RoomWord(self.own.node, room)
            return
        since_s = there.own.since_s if there.own.format == stream_format else now_s
        there.own = RoomWord(self.own.node, room, since_s, stream_format, speakers, names)

    def is_twin(self, word: NodeWord) -> bool:
        """Whether another relay says that it has this one's number."""
        return word.node == self.own.node and word.boot != self.own.boot

    def yields_to(self, twin: NodeWord) -> bool:
        """Of two relays with one number the one that started later gives way."""
        return (self.own.started_s, self.own.boot) > (twin.started_s, twin.boot)

    def hear_node(self, word: NodeWord, now_s: float) -> frozenset[str]:
        """Note a relay's word; returns the rooms that changed by it: those of a relay that left, or was restarted."""
        if word.node == self.own.node:
            return frozenset()
        before = self._nodes.get(word.node)
        changed: frozenset[str] = frozenset()
        if word.leaves or (before is not None and before.word.boot != word.boot):
            changed = self._forget(word.node)
        if not word.leaves:
            self._nodes[word.node] = _Node(word, now_s)
        return changed

    def hear_room(self, word: RoomWord, now_s: float) -> bool:
        """Note what a relay says of a room; whether that is news."""
        there = self._rooms.get(word.room)
        if there is None or word.node == self.own.node:
            return False
        before = there.others.get(word.node)
        there.others[word.node] = (word, now_s)
        return before is None or before[0] != word

    def answered(self, room: str) -> bool:
        """Whether all other relays have reported on a room."""
        there = self._rooms.get(room)
        return there is not None and self._nodes.keys() <= there.others.keys()

    def elsewhere(self, room: str) -> Elsewhere:
        """The room on the other relays. Of two formats that were set at once the first one counts, on every relay."""
        there = self._rooms.get(room)
        words = [] if there is None else [word for word, _ in there.others.values() if word.speakers]
        if there is None or not words:
            return NOBODY
        all_of_them = [*words, there.own] if there.own.speakers else words
        stream_format = min(all_of_them, key=lambda word: (word.since_s, word.node)).format
        words = [word for word in words if word.format == stream_format]
        names = {number: name for word in words for number, name in word.names.items()}
        return Elsewhere(frozenset().union(*(word.speakers for word in words)), stream_format, names)

    def expire(self, now_s: float) -> frozenset[str]:
        """Forget who has not spoken for long; returns the rooms that changed."""
        changed: set[str] = set()
        for node, known in list(self._nodes.items()):
            if now_s - known.heard_s >= self._forget_s:
                changed |= self._forget(node)
        for room, there in self._rooms.items():
            for node, (word, heard_s) in list(there.others.items()):
                if word.speakers and now_s - heard_s >= self._forget_s:
                    del there.others[node]
                    changed.add(room)
        return frozenset(changed)

    def stood_still(self, seconds: float) -> None:
        """This relay did not run for so long: nobody is forgotten for that time."""
        for known in self._nodes.values():
            known.heard_s += seconds
        for there in self._rooms.values():
            there.others = {node: (word, heard_s + seconds) for node, (word, heard_s) in there.others.items()}

    def _forget(self, node: int) -> frozenset[str]:
        self._nodes.pop(node, None)
        changed = set()
        for room, there in self._rooms.items():
            if there.others.pop(node, (RoomWord(node, room), 0.0))[0].speakers:
                changed.add(room)
        return frozenset(changed)
