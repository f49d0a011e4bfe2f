"""What both ends of a datagram session do alike: packets out at once or into a bounded queue, and pings among them."""

from __future__ import annotations

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.events import (
    ConnectionTerminated,
    DatagramFrameReceived,
    PingAcknowledged,
    QuicEvent,
    StopSendingReceived,
    StreamReset,
)

from streaming_encodec.transport.base import Sent
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.limits import Outbox
from streaming_encodec.transport.webtransport.answers import GIVE_UP_S, PING_S, THIN_S, Answers
from streaming_encodec.transport.webtransport.quic import VoiceHttp, VoiceQuic

PATH = "/datagrams"
"""Of the request that opens a session; `?key=` and the key follow."""
PROTOCOLS = (b"webtransport", b"webtransport-h3")
"""`:protocol` of the request: in drafts up to 14, and from 15 on."""
_CLOSE_SESSION = 0x2843
"""Capsule type CLOSE_WEBTRANSPORT_SESSION (draft-ietf-webtrans-http3, 6)."""
_FRAME_BYTES = 4
"""A datagram frame's type, its length and the number of its session, at most."""


class DatagramSession(QuicConnectionProtocol):
    """A `transport.base.PacketSession`: one WebTransport session on a QUIC connection of its own."""

    ordered = False
    reliable = False
    lingers = False  # after the close code, for a moment

    def __init__(self, quic: VoiceQuic, queue_frames: int) -> None:
        super().__init__(quic)
        self._voice_quic = quic
        self._http: VoiceHttp | None = None
        self._stream_id: int | None = None  # of the request; set when the session is open
        self._prefix = b""
        self._answers = Answers()
        self._tried_s = float("-inf")
        self._outbox = Outbox(queue_frames)
        self._reported = 0
        self._over = False
        self._over_s = float("inf")

    # -- packets --------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether packets may be sent."""
        return self._stream_id is not None and not self._over

    @property
    def is_certain(self) -> bool:
        """Whether the other end answers."""
        return self.is_open and self._answers.is_certain(self._loop.time())

    @property
    def round_trip_s(self) -> float:
        """Of recent packets, without the time that the other end gathers what it answers; 0 before the first."""
        return self._voice_quic.round_trip_s

    def send_packet(self, sender: int, frames: int, packet: bytes) -> Sent:
        """Send a packet, or queue it; see `transport.base.PacketSession`."""
        if not self.is_open or len(packet) + _FRAME_BYTES > self._voice_quic.peer_datagram_bytes:
            return Sent.NO
        now_s = self._loop.time()
        sent = Sent.YES if self._answers.is_certain(now_s) else Sent.PERHAPS
        if sent is Sent.PERHAPS and self._answers.is_lost(now_s):
            sent = Sent.NO
            if now_s - self._tried_s < THIN_S:
                return sent
            self._tried_s = now_s
        if self._voice_quic.is_blocked:
            self._outbox.put(sender, frames, packet, now_s)
        else:
            self._voice_quic.send_datagram_frame(self._prefix + packet)
        if self._answers.since_asked_s(now_s) >= PING_S:
            self._voice_quic.send_ping(self._answers.ask(now_s))
        self.transmit()
        return sent

    def take_dropped(self) -> int:
        """How many packets were dropped since this was last asked."""
        dropped, self._reported = self._outbox.dropped - self._reported, self._outbox.dropped
        return dropped

    def transmit(self) -> None:
        """Send what may be sent: first what QUIC has, then what waits."""
        super().transmit()
        while self._outbox and not self._voice_quic.is_blocked:
            packet = self._outbox.pop(self._loop.time())
            if packet is None:
                return
            self._voice_quic.send_datagram_frame(self._prefix + packet)
            super().transmit()

    def ping(self) -> None:  # type: ignore[override]  # aioquic's waits for the answer
        """Ask for a sign of life, and thereby show one."""
        self._voice_quic.send_ping(self._answers.ask(self._loop.time()))
        self.transmit()

    # -- the end --------------------------------------------------------------------------------------------

    def close(self, error_code: int = CloseCode.NORMAL, reason_phrase: str = "") -> None:
        """End the session with a close code."""
        if self._over:
            return
        if self._http is not None and self._stream_id is not None:
            reason = reason_phrase.encode()
            capsule = encode_uint_var(_CLOSE_SESSION) + encode_uint_var(4 + len(reason))
            capsule += int(error_code).to_bytes(4, "big") + reason
            self._http.send_data(self._stream_id, capsule, end_stream=True)
            self.transmit()
            # A browser that sees the connection end first does not read the code: a relay ends it a little later.
            if self.lingers:
                self._end()
                return
        self.abort()

    def abort(self) -> None:
        """End the connection at once, without a word to the session."""
        super().close(ErrorCode.H3_NO_ERROR)
        self._end()

    def has_given_up(self, now_s: float) -> bool:
        """Whether the other end has not answered for so long that the session is no use."""
        return self._answers.waited_s(now_s) > GIVE_UP_S

    def _end(self) -> None:
        """The session is over, once."""
        if not self._over:
            self._over = True
            self._over_s = self._loop.time()
            self._ended()

    # -- what comes -------------------------------------------------------------------------------------------

    def quic_event_received(self, event: QuicEvent) -> None:
        """Take an event of the QUIC connection."""
        if isinstance(event, DatagramFrameReceived):
            prefix = self._prefix
            if prefix and not self._over and event.data.startswith(prefix):
                self._arrived(event.data[len(prefix) :])
        elif isinstance(event, PingAcknowledged):
            self._answers.answered(event.uid, self._loop.time())
        elif isinstance(event, ConnectionTerminated):
            self._end()
        elif isinstance(event, StreamReset | StopSendingReceived) and event.stream_id == self._stream_id:
            self.abort()
        elif self._http is not None and not self._over:
            for one in self._http.handle_event(event):
                self._take(one)

    def _take(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self._headers(event)
        elif isinstance(event, WebTransportStreamDataReceived):
            self.close(CloseCode.BAD_MESSAGE, "a session has no streams")
        elif isinstance(event, DataReceived) and event.stream_ended and event.stream_id == self._stream_id:
            self.close()

    def _opened(self, stream_id: int) -> None:
        """The session is open."""
        self._stream_id = stream_id
        self._prefix = encode_uint_var(stream_id // 4)

    # -- for each end -----------------------------------------------------------------------------------------

    def _headers(self, event: HeadersReceived) -> None:
        raise NotImplementedError

    def _arrived(self, packet: bytes) -> None:
        raise NotImplementedError

    def _ended(self) -> None:
        raise NotImplementedError
