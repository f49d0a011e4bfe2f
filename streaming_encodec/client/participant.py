"""What both clients share: a participant in a room, without the way in which a program uses it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from streaming_encodec.call.decoders import make_decoders
from streaming_encodec.call.incoming import IncomingVoices
from streaming_encodec.call.outgoing import OutgoingVoice
from streaming_encodec.call.presence import Presence
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.client.link import Link, LinkCounts
from streaming_encodec.client.settings import CodecSettings, ConnectionSettings
from streaming_encodec.client.token_source import TokenSource, clean_token, role_of, token_claims
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.model.find import AnyModel, find_model
from streaming_encodec.transport.websocket.client import WebSocketDialer
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.control import ControlMessage, Joined, Left, Report
from streaming_encodec.wire.hello import ROLES, Hello, Welcome, check_display_name, check_room_name
from streaming_encodec.wire.packet import StreamFormat

DEFAULT_ROOM = "lobby"
_MOST_REPORTS = 1000


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """What a call has seen so far: the connection, and each speaker under the names of W3C webrtc-stats."""

    link: LinkCounts
    speakers: dict[int, ReceiverStatistics]
    playout_target_ms: dict[int, float]
    packets_arrived: int
    bad_packets: int
    reports: dict[tuple[int, int], Report]
    """What listeners last reported of this client's voice, by (its number, theirs)."""


class Participant:
    """A participant in a room of a relay; good for one call. Use `VoiceClient` or `ThreadedVoiceClient`.

    Args:
        url: `ws://host:port` or `wss://…` of a relay, which may name the room: `wss://host/r/ROOM`. Or several of
            relays that share rooms: the first one that takes this client is used, and when it is gone the next one.
        token: what the relay's operator gave you, or a function that fetches one; None where none is needed.
        model: the same for everyone in the room.
        room: None takes the URL's, the token's, or "lobby".
        role: "publish", "subscribe" or "both"; None takes what the token allows.
        codec: what is encoded, decoded and sent. playout: the jitter buffers. connection: how the relay is reached.
        clock: seconds, monotonic; arrivals are timed by it.

    Raises:
        StreamError: the model cannot stream by samples.
        ConfigError: a setting cannot be: the address, the role, the room's name.
        CallError: no relay, not let in, another model in the room (on entering); lost for good (later). See its reason.
    """

    _statement = "async with"

    def __init__(
        self,
        url: str | Sequence[str],
        token: TokenSource | None,
        model: AnyModel,
        *,
        room: str | None = None,
        role: str | None = None,
        codec: CodecSettings | None = None,
        playout: ReceiverSettings | None = None,
        connection: ConnectionSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        codec, connection = codec or CodecSettings(), connection or ConnectionSettings()
        if isinstance(token, str):
            token = clean_token(token)
        claims = token_claims(token) if isinstance(token, str) else {}
        role = role or role_of(claims)
        if role not in ROLES:
            raise ConfigError(f"a role is one of {', '.join(ROLES)}, not {role!r}", setting="role")
        self.model, self.role = find_model(model), role
        self._connection = connection
        self.format: StreamFormat = stream_format(self.model)
        dialers = [WebSocketDialer(each, connection.tls) for each in ([url] if isinstance(url, str) else url)]
        self.room = check_room_name(_room_of(dialers, room) or claims.get("room") or DEFAULT_ROOM)
        engine = find_engine(codec.engine, self.model)
        self._voice = OutgoingVoice(
            self.model,
            self.format,
            codec.bandwidth,
            engine,
            codec.packets,
            dtx=codec.dtx,
            adapt=codec.adapt,
            first_sequence=secrets.randbelow(1 << 16),
            first_timestamp=secrets.randbelow(1 << 32),
        )
        together_frames = (playout or ReceiverSettings()).together_frames
        self._decoders = codec.decoders or make_decoders(self.model, engine, together_frames)
        self._voices = IncomingVoices(
            self.format,
            self._decoders,
            playout,
            clock=clock,
            on_reports=self._send_reports,
            impairment=connection.impairment,
        )
        self._clock = clock
        self._reports: dict[tuple[int, int], Report] = {}
        self._presence = Presence()
        self._link = Link(
            dialers,
            Hello(
                self.room,
                role,
                self.format,
                max_codebooks=connection.max_codebooks,
                name=None if connection.name is None else check_display_name(connection.name),
            ),
            token,
            on_packet=self._on_packet,
            on_control=self._on_control,
            give_up_s=connection.give_up_s,
            datagrams=connection.transport == "auto",
        )
        self._loop: asyncio.AbstractEventLoop | None = None  # the connection's, once the client is entered
        self._ended = False

    # -- the call -------------------------------------------------------------------------------------------

    @property
    def sender(self) -> int:
        """This client's number in the room; 0 for one that may not speak."""
        return 0 if self._link.welcome is None else self._link.welcome.sender

    @property
    def url(self) -> str:
        """Of the relay that is used, or tried at present."""
        return self._link.url

    @property
    def connected(self) -> bool:
        """False during an outage, which ends by itself."""
        return self._link.connected

    @property
    def over(self) -> bool:
        """Whether the call has ended for good."""
        return self._link.over

    def check(self) -> None:
        """Raise CallError if the call was ended by the relay or the network."""
        self._link.check()

    @property
    def round_trip_s(self) -> float:
        """To the relay and back, lately; 0 in the first seconds."""
        return self._link.round_trip_s

    @property
    def transport(self) -> str:
        """By which way voice leaves at present: "datagrams" or "websocket"."""
        return "websocket" if self._link.sends_ordered else "datagrams"

    @property
    def present(self) -> frozenset[int]:
        """Numbers of the others who may speak."""
        return self._presence.speakers

    @property
    def names(self) -> dict[int, str]:
        """What the others are called, by number, as far as they said so: foreign text, of 32 characters at most."""
        return self._presence.names

    @property
    def others_returning(self) -> bool:
        """Whether the relay was restarted and those who were there before may still be on the way back."""
        return self._presence.returning(self._clock())

    @property
    def speakers(self) -> tuple[int, ...]:
        """Those who are being heard, until the last of their sound was played."""
        return self._voices.mixer.speakers

    @property
    def bandwidth(self) -> float:
        """Of what is sent, in kbps; set it at any time, it takes effect at the next frame."""
        return self._voice.bandwidth

    @bandwidth.setter
    def bandwidth(self, kbps: float) -> None:
        self._voice.bandwidth = kbps

    @property
    def packet_samples(self) -> int:
        """Samples of the frames of a packet."""
        return self._voice.settings.frames_per_packet * self.format.frame_samples

    def layers(self, max_codebooks: int) -> None:
        """From now on the relay removes codebooks beyond this number from what this client receives."""
        self._link.set_layers(max_codebooks)

    @property
    def statistics(self) -> CallStatistics:
        """What happened so far."""
        return CallStatistics(
            link=self._link.counts,
            speakers=self._voices.mixer.statistics,
            playout_target_ms=self._voices.mixer.target_ms,
            packets_arrived=self._voices.packets_arrived,
            bad_packets=self._voices.mixer.bad_packets,
            reports=dict(self._reports),
        )

    # -- inside ---------------------------------------------------------------------------------------------

    def _check_new(self) -> None:
        """Raise CallError if this client was entered before."""
        if self._loop is not None:
            raise CallError(
                f"a {type(self).__name__} is good for one call, and this one was entered before: make another one",
                CallErrorReason.MISUSE,
            )

    def _check_running(self) -> asyncio.AbstractEventLoop:
        """The connection's event loop. Raises CallError before the call, and after it."""
        if self._loop is None:
            raise CallError(f"the call has not begun: use it within `{self._statement}`", CallErrorReason.MISUSE)
        if self._ended:
            raise CallError(
                f"this call has ended: make another {type(self).__name__} for the next one", CallErrorReason.MISUSE
            )
        return self._loop

    def _check_may_speak(self) -> None:
        self._link.check()
        self._check_running()
        if self.role == "subscribe":
            raise CallError(
                "this participant may only listen: join with role 'both', and a token that allows it",
                CallErrorReason.LISTEN_ONLY,
            )

    def _warm_up_encoder(self) -> None:
        """Encode a frame, so that the first real one is not the slow one."""
        if self.role != "subscribe":
            self._voice.warm_up()

    def _warm_up_decoders(self) -> None:
        if self.role != "publish":
            self._decoders.warm_up(self._voice.num_codebooks)

    def _on_packet(self, data: bytes) -> None:
        self._voices.on_packet(data, self._clock())

    def _on_control(self, message: ControlMessage) -> None:
        match message:
            case Welcome() | Joined() | Left():
                self._presence.update(message, self._clock())
                self._voices.on_control(message)
            case Report():
                if len(self._reports) < _MOST_REPORTS or (message.sender, message.listener) in self._reports:
                    self._reports[message.sender, message.listener] = message
                self._voice.on_report(message, self._clock(), ordered=self._link.sends_ordered)
            case _:
                pass

    def _send_reports(self, reports: list[Report]) -> None:
        # A simulated network loses and reorders, whatever the transport does.
        ordered = self._connection.impairment is None and self._link.hears_ordered
        for report in reports:
            self._in_loop(self._link.send_control, replace(report, ordered=ordered))

    def _in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the event loop call this soon. Thread-safe."""
        loop = self._check_running()
        # `suppress` would cost three calls a packet.
        try:
            if _running_loop() is loop:  # nobody has to be woken
                loop.call_soon(function, *arguments)
            else:
                loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # closed just now, and the call with it
            pass


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that this thread runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _room_of(dialers: Sequence[WebSocketDialer], room: str | None) -> str | None:
    """The room that is asked for, or that the URLs name. Raises ConfigError where they differ, and without a URL."""
    if not dialers:
        raise ConfigError("a client needs the URL of at least one relay", setting="url")
    for dialer in dialers:
        named = dialer.room
        if named is not None and room not in (None, named):
            raise ConfigError(f"{dialer.url} names the room {named!r}, not {room!r}: leave one out", setting="room")
        room = named if room is None else room
    return room
