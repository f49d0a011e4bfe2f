"""What strangers may take of a relay. Every limit has a reason beside it and an option in `serve`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from streaming_encodec.errors import ConfigError
from streaming_encodec.wire.fields import MAX_CONTROL_BYTES
from streaming_encodec.wire.hello import MAX_SPEAKERS

MAX_MESSAGE_BYTES = MAX_CONTROL_BYTES
"""Longest message the relay reads: a hello with its token. Packets have their own, tighter limit (913)."""

WRITE_LIMIT_BYTES = 1024
"""Beyond so many unsent bytes a listener's packets wait in its queue, where the oldest can be dropped."""

UNSENT_LIMIT_BYTES = 4096
"""The same for the kernel's buffer (TCP_NOTSENT_LOWAT), which holds minutes of voice if left alone."""

MOST_UNSENT_BYTES = 32_768
"""Beyond so many a connection is cut off. Only answers to pings come near: the WebSocket layer writes them at once."""

READ_BYTES = 256
"""Read from a connection at a time: what one turn of the event loop may spend on it. 42 pings fit, or two packets."""

FIRST_BYTES = 20_480
"""All that a connection may send before it has a seat: an HTTP request with its headers, and a hello."""

RECEIVE_BYTES = 65_536
"""The kernel's buffer for what a client sent and the relay has not read. Left alone it grows to megabytes."""

BACKLOG = 512
"""Connections that the kernel holds until they are accepted. The relay accepts one in each turn of its event loop."""

UNANSWERED_CONNECTIONS = 64
"""Beyond the caps on connections so many more get an HTTP answer; from there on they are just cut off."""

MAX_FRAME_RATE_HZ = 200.0
"""Frames a second that a stream's format may claim: the speed limit is a multiple of it."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Limits of one relay. Raises ConfigError for a limit that is not positive, or for too many speakers."""

    max_connections: int = 1000
    max_connections_per_address: int = 32
    """A household or an office behind one address."""
    max_rooms: int = 200
    max_peers: int = 250
    """Seats in one room."""
    max_speakers: int = 16
    """Seats in one room that may speak: every listener decodes all of them."""
    hello_s: float = 5.0
    idle_s: float = 15.0
    """A seat that may speak must show a sign of life so often; clients do so every `heartbeat_s`."""
    heartbeat_s: float = 5.0
    stall_s: float = 5.0
    """A listener that reads nothing for so long is put out."""
    resume_s: float = 30.0
    """So long a seat is kept for a client whose connection was lost."""
    queue_frames: int = 20
    """Frames of each speaker that wait for a slow listener: 267 ms; older voice is of no use."""
    speed: float = 1.25
    """Frames a second that a speaker may send, as a multiple of the frame rate: 94 where it is 75."""
    burst_s: float = 2.0
    """Frames that may come at once, in seconds of sound: 150 at 75 a second."""
    outage_s: float = 10.0
    """After an outage as many more may come at once as it held back, of at most so long an outage; see `Bucket`."""
    controls_per_s: float = 32.0
    """Control messages: a report a second on each speaker, and some."""
    upkeep_frames_per_s: float = 16.0
    """WebSocket frames that carry no whole message: pings, pongs, fragments. Twice as many at once."""
    bytes_per_s: float = 131_072.0
    """Bytes that a seat may send, eight times as many at once: above what the limits on messages allow a stream of
    75 frames a second."""
    max_token_ttl_s: float = 86_400.0
    """Tokens valid for longer are refused: the ids of used ones are remembered so long."""
    max_used_tokens: int = 100_000

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ConfigError(
                    f"the limit {field.name} must be positive, not {getattr(self, field.name)}", setting=field.name
                )
        if self.max_speakers > MAX_SPEAKERS:
            raise ConfigError(
                f"the limit max_speakers is at most {MAX_SPEAKERS}, not {self.max_speakers}", setting="max_speakers"
            )
