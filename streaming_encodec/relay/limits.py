"""What a client may use of a relay. Every limit has its reason beside it; `serve` has options for most."""

from __future__ import annotations

from dataclasses import dataclass

from streaming_encodec.errors import ConfigError
from streaming_encodec.transport.limits import ServerLimits
from streaming_encodec.wire.hello import MAX_SPEAKERS

MAX_FRAME_RATE_HZ = 200.0
"""Frames a second that a stream's format may claim: the speed limit is a multiple of it."""


@dataclass(frozen=True, slots=True)
class RelayLimits(ServerLimits):
    """Limits of one relay. Raises ConfigError for a limit that is not positive, or for too many speakers."""

    max_rooms: int = 200
    max_peers: int = 250
    """Participants of one room."""
    max_speakers: int = 16
    """Participants of one room that may speak: every listener decodes all of them."""
    idle_s: float = 15.0
    """A participant that may speak must send something so often; clients do so every `heartbeat_s`."""
    resume_s: float = 30.0
    """A participant whose connection was lost is kept for so long."""
    speed: float = 1.25
    """Frames a second that a speaker may send, as a multiple of the frame rate: 94 where it is 75."""
    burst_s: float = 2.0
    """Frames that may come at once, in seconds of sound: 150 at 75 a second."""
    outage_s: float = 10.0
    """After an outage as many more may come at once as it held back, of at most so long an outage; see `Bucket`."""
    controls_per_s: float = 32.0
    """Control messages: a report a second on each speaker, and some."""
    max_token_ttl_s: float = 86_400.0
    """Tokens valid for longer are refused: the ids of used ones are remembered so long."""
    max_used_tokens: int = 100_000
    file_bytes_per_s: float = 4_194_304.0
    """Of the web page's files, for one address; eight times as many at once, which is three first visits. All
    addresses together may take four times as many."""

    def __post_init__(self) -> None:
        ServerLimits.__post_init__(self)  # not `super()`: a dataclass with slots is a new class
        if self.max_speakers > MAX_SPEAKERS:
            raise ConfigError(
                f"the limit max_speakers is at most {MAX_SPEAKERS}, not {self.max_speakers}", setting="max_speakers"
            )
