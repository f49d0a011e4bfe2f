"""QUIC and HTTP/3 as datagram sessions need them: what aioquic leaves open is settled here, in one place.

Some of it has no public name in aioquic 1.7; each such use is marked, and tests fail where it changes.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # re-exported, though not by name
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import pull_quic_transport_parameters, push_quic_transport_parameters
from aioquic.quic.packet_builder import QuicSentPacket

from streaming_encodec.transport.self_signed import SelfSigned, sha256_of

IDLE_S = 30.0
"""Without a sign of the other end a connection is forgotten after so long; clients ping more often."""
SERVER_ID_BYTES = 6
"""Of the connection identifiers that clients write into each packet: unlikely to meet by chance among thousands."""
CLIENT_ID_BYTES = 4
"""The same towards a client, which has one connection on its socket."""
_ACK_DELAY_S = 0.08
"""Acknowledgements wait for so long for others: alone for each packet they would take as much of a line as the voice.
The other end is told (max_ack_delay, RFC 9000, 18.2)."""
_STREAM_BYTES = 16_384
"""The most that a stream may send before it was read: requests have some hundred bytes."""
_MOST_STREAMS = 8
_PARAMETERS_BYTES = 2048
_WINDOW_BYTES = 1 << 20
_MOST_DATAGRAM_BYTES = 65_536
_WT_MAX_SESSIONS = (0x14E9CD29, 0xC671706A)
"""SETTINGS_WT_MAX_SESSIONS of draft-ietf-webtrans-http3-13 and 14 (wanted by Safari 26.4), and of 07 to 12."""


class VoiceRate(QuicCongestionControl):
    """No window: what may be sent is decided above, where a packet's worth is known (`voice/rate.py`).

    QUIC's own control would hold voice back after each loss, and its pacing by whole datagrams would add tens of
    milliseconds to packets of 50 bytes. A speaker's rate is bounded by the relay, and answers to queues and loss
    by the listeners' reports; an end that does not answer gets next to nothing (`Answers`).
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.congestion_window = _WINDOW_BYTES

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """Uncount it."""
        self.bytes_in_flight -= packet.sent_bytes

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """Count it."""
        self.bytes_in_flight += packet.sent_bytes

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """Uncount them."""
        self.bytes_in_flight -= sum(packet.sent_bytes for packet in packets)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Uncount them."""
        self.bytes_in_flight -= sum(packet.sent_bytes for packet in packets)

    def on_persistent_congestion(self) -> None:
        """Nothing changes."""

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """Nothing changes."""


class VoiceQuic(QuicConnection):
    """A QUIC connection that bounds what its peer may open, and says what of its own waits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # aioquic has no settings for these; it announces them when the handshake begins.
        self._ack_delay = _ACK_DELAY_S
        self._local_max_streams_bidi.value = _MOST_STREAMS
        self._local_max_streams_uni.value = _MOST_STREAMS

    def _serialize_transport_parameters(self) -> bytes:
        parameters = pull_quic_transport_parameters(Buffer(data=super()._serialize_transport_parameters()))
        parameters.max_ack_delay = round(1000 * _ACK_DELAY_S)
        buffer = Buffer(capacity=_PARAMETERS_BYTES)
        push_quic_transport_parameters(buffer, parameters)
        return buffer.data

    @property
    def round_trip_s(self) -> float:
        """Smoothed, without the time that acknowledgements were held back; 0 before the first."""
        return self._loss._rtt_smoothed

    @property
    def is_blocked(self) -> bool:
        """Whether datagrams wait in the connection, because it may not send more now."""
        return bool(self._datagrams_pending)

    @property
    def peer_datagram_bytes(self) -> int:
        """The longest datagram frame that the peer takes; 0 where it takes none, or is not known yet."""
        return self._remote_max_datagram_frame_size or 0

    @property
    def peer_certificate_sha256(self) -> str | None:
        """The hash of the certificate that the peer has proven to own; None before that."""
        certificate = self.tls._peer_certificate
        return None if certificate is None else sha256_of(certificate)


class VoiceHttp(H3Connection):
    """HTTP/3 with WebTransport, in the dialects of today's browsers."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic, enable_webtransport=True)

    def _get_local_settings(self) -> dict[int, int]:
        # Until aioquic sends it itself (aioquic#644). One session, so that no flow control between several is due.
        return super()._get_local_settings() | dict.fromkeys(_WT_MAX_SESSIONS, 1)


def server_configuration(certificate: SelfSigned) -> QuicConfiguration:
    """For a relay."""
    return _configuration(
        is_client=False,
        certificate=certificate.certificate,
        private_key=certificate.key,
        connection_id_length=SERVER_ID_BYTES,
    )


def client_configuration(host: str) -> QuicConfiguration:
    """For a client, which compares the certificate's hash by itself."""
    return _configuration(
        is_client=True, server_name=host, verify_mode=ssl.CERT_NONE, connection_id_length=CLIENT_ID_BYTES
    )


def _configuration(**options: Any) -> QuicConfiguration:
    register_congestion_control("voice", VoiceRate)
    return QuicConfiguration(
        alpn_protocols=H3_ALPN,
        congestion_control_algorithm="voice",
        idle_timeout=IDLE_S,
        max_data=4 * _STREAM_BYTES,
        max_stream_data=_STREAM_BYTES,
        max_datagram_frame_size=_MOST_DATAGRAM_BYTES,
        **options,
    )
