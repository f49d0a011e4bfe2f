"""The settings of a client, in groups: the codec here, playout in `ReceiverSettings`, the connection here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streaming_encodec.errors import ConfigError
from streaming_encodec.voice.sender import SenderSettings

if TYPE_CHECKING:
    import ssl

    from streaming_encodec.call.decoders import SpeakerDecoders
    from streaming_encodec.client.network_thread import NetworkThread
    from streaming_encodec.stepping.engine import EngineOrName
    from streaming_encodec.voice.network import NetworkImpairment


TRANSPORTS = ("auto", "websocket")


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """What a client encodes and decodes with, and what it sends.

    bandwidth: of what is sent, in kbps. engine: see `engines`.
    packets: frames and redundancy in each packet; the bandwidth sets the number of codebooks.
    dtx: send little while nobody speaks here.
    adapt: let the listeners' reports choose codebooks and redundancy.
    decoders: used in place of the engine's own, for example to measure them.
    """

    bandwidth: float | None = None
    engine: EngineOrName = "auto"
    packets: SenderSettings = field(default_factory=lambda: SenderSettings(frames_per_packet=1))
    dtx: bool = False
    adapt: bool = True
    decoders: SpeakerDecoders | None = None


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How a client reaches its relay, and what it asks of it.

    transport: "auto" sends voice as datagrams where the relay offers that and the network lets them through, and over
    the WebSocket elsewhere; "websocket" never tries.
    tls: for a relay whose certificate the system does not trust, see `client_tls`.
    give_up_s: after an outage of this length the call is over; None tries for ever.
    max_codebooks: the relay removes further codebooks from what this client receives.
    impairment: a simulated bad network that received packets pass through.
    name: what the others see this participant called, 1 to 32 characters.
    network: the thread in which a `ThreadedVoiceClient` connects; None gives it one of its own. A program with many
    clients shares one between them.

    Raises ConfigError for another transport.
    """

    tls: ssl.SSLContext | None = None
    give_up_s: float | None = 120.0
    max_codebooks: int | None = None
    impairment: NetworkImpairment | None = None
    name: str | None = None
    network: NetworkThread | None = None
    transport: str = "auto"

    def __post_init__(self) -> None:
        if self.transport not in TRANSPORTS:
            raise ConfigError(
                f"a transport is one of {', '.join(TRANSPORTS)}, not {self.transport!r}", setting="transport"
            )
