"""The settings of a bridge, and their checks."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streaming_encodec.bridges.admission import Admission
from streaming_encodec.bridges.asterisk_websocket import AsteriskWebSocket
from streaming_encodec.bridges.audiosocket import AudioSocket
from streaming_encodec.bridges.media_streams import DIALECTS, MediaStream
from streaming_encodec.bridges.protocol import PhoneProtocol
from streaming_encodec.errors import ConfigError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL
from streaming_encodec.relay.tokens import TokenKey
from streaming_encodec.transport.addresses import is_loopback
from streaming_encodec.wire.hello import check_room_name

if TYPE_CHECKING:
    from streaming_encodec.client.token_source import TokenSource
    from streaming_encodec.model.find import AnyModel

KINDS = (*DIALECTS, "audiosocket", "asterisk-ws")
CALL_PLACEHOLDER = "{call}"
_MOST_ROOM_OF_CALL = 48


@dataclass(frozen=True, slots=True)
class BridgeLimits:
    """What one call, and all of them, may take.

    max_calls: at once. start_s: from the connection to the call's start. silent_s: without any message.
    speed: sound, as a multiple of real time, `burst_s` of it at once: a network, or this machine, that stood still so
    long does not end the call. messages_per_s: of any kind, four times as many at once.
    """

    max_calls: int = 20
    start_s: float = 5.0
    silent_s: float = 30.0
    speed: float = 1.5
    burst_s: float = 10.0
    messages_per_s: float = 200.0

    def __post_init__(self) -> None:
        for name in ("max_calls", "start_s", "silent_s", "speed", "burst_s", "messages_per_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"the limit {name} must be positive, not {getattr(self, name)}", setting=name)


@dataclass(frozen=True, slots=True)
class BridgeConfig:
    """Settings of one bridge: telephones of a kind on one side, a room of a relay on the other.

    kind: one of `KINDS`. room: where all callers meet; with `{call}` in it, each call has its own.
    url: the relay's, or those of several relays that share rooms.
    host, port: where telephones connect; port 0 takes a free one. admission: who may call.
    tls: a server context, see `server_tls`. insecure: listen to other machines although anybody may call, or although
    what admits can be read on the way: a proxy in front provides it.
    token: for one call; token_key: the relay's, makes a token for each call. relay_tls: see `client_tls`.
    model, bandwidth, frames_per_packet, dtx: as in any call.
    threads: that encode and decode; with one the event loop does it, and all calls take one core at most.

    Raises ConfigError for a kind that does not exist, or an address that anybody can reach and call.
    """

    kind: str
    room: str
    url: str | Sequence[str]
    host: str = "127.0.0.1"
    port: int = 0
    admission: Admission = field(default_factory=Admission)
    tls: ssl.SSLContext | None = None
    insecure: bool = False
    token: TokenSource | None = None
    token_key: TokenKey | None = None
    relay_tls: ssl.SSLContext | None = None
    model: AnyModel = DEFAULT_MODEL
    bandwidth: float | None = None
    frames_per_packet: int = 2
    dtx: bool = False
    threads: int = 1
    limits: BridgeLimits = field(default_factory=BridgeLimits)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"a bridge is one of {', '.join(KINDS)}, not {self.kind!r}", setting="kind")
        check_room_name(self.room_of("0" * _MOST_ROOM_OF_CALL))
        if not self.is_websocket and (self.admission.needs_tls or self.tls is not None):
            raise ConfigError(
                "an AudioSocket has no path, no signature and no TLS: name the addresses that may call", setting="allow"
            )
        if self.admission.auth_token is not None and self.kind != "twilio":
            raise ConfigError(f"only Twilio signs its requests, {self.kind} does not", setting="auth_token")
        if self.insecure or is_loopback(self.host):
            return
        where = f"{self.host or 'every address'} can be reached from other machines"
        if self.admission.is_open:
            raise ConfigError(
                f"{where}, and anybody could call: that needs a secret in the path, Twilio's signature or a list of "
                "addresses, or insecure=True if something in front of the bridge checks who calls",
                setting="admission",
            )
        if self.admission.needs_tls and self.tls is None:
            raise ConfigError(
                f"{where}, and what admits could be read on the way: that needs tls, or insecure=True if a proxy in "
                "front of the bridge provides it",
                setting="bridge_tls",
            )

    @property
    def is_websocket(self) -> bool:
        """Whether telephones connect by WebSocket."""
        return self.kind != "audiosocket"

    @property
    def protocol(self) -> Callable[[], PhoneProtocol]:
        """Makes the protocol of one call."""
        if self.kind == "audiosocket":
            return AudioSocket
        if self.kind == "asterisk-ws":
            return AsteriskWebSocket
        return lambda: MediaStream(self.kind)

    def room_of(self, call: str) -> str:
        """The room of a call of this name."""
        plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in call)
        return self.room.replace(CALL_PLACEHOLDER, plain[:_MOST_ROOM_OF_CALL])
