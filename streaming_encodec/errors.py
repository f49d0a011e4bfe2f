"""The errors of the package: one family, each message says what to do."""

from __future__ import annotations

from enum import StrEnum


class StreamingEncodecError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(StreamingEncodecError, ValueError):
    """A setting, or a field of a model's configuration, has a value that cannot be used; the message names it.

    setting: the parameter to change, for a caller that knows it under another name (a command-line option).
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class BandwidthError(ConfigError):
    """A bandwidth that the model does not have; the message names those that it has."""


class CheckpointError(StreamingEncodecError):
    """A checkpoint is missing, damaged, or of another shape; the message names file and tensor."""


class StreamError(StreamingEncodecError, ValueError):
    """Samples, codes or a state that a stream cannot take; the message says what it takes."""


class PacketError(StreamingEncodecError, ValueError):
    """Bytes that are not a packet of this protocol; hostile bytes raise this and nothing else."""


class FileFormatError(StreamingEncodecError):
    """An audio or ``.ecdc`` file that is missing, damaged or not of a kind that can be read."""


class DeviceError(StreamingEncodecError):
    """An audio device is missing, busy, or refuses the rate; the message says how to get one."""


class CallErrorReason(StrEnum):
    """Why a call failed. A program decides by this what to do; the error's message tells a person."""

    UNREACHABLE = "unreachable"
    """Nothing answers at the address, or what answers speaks no HTTP (a relay that is just ending, for example)."""
    PROXY = "proxy"
    """The proxy that the connection goes through does not answer, or does not let it through."""
    NOT_A_RELAY = "not a relay"
    """Something answers that is no relay of this kind: another web server, or TLS on one side only."""
    UNTRUSTED = "untrusted"
    """This system does not trust the issuer of the relay's certificate: see `client_tls`."""
    TLS = "tls"
    """TLS fails, or the relay's certificate is for another host or another time."""
    NOT_ALLOWED = "not allowed"
    """The token is missing, malformed, used or expired, or the room does not exist: get a new token (4403)."""
    FULL = "full"
    """The room or the relay is full or busy: try later (1013; HTTP 429 and 5xx)."""
    WRONG_MODEL = "wrong model"
    """The speakers in the room use another model (4409)."""
    WRONG_ROOM = "wrong room"
    """The relay's URL names another room than the one that is asked for (4421)."""
    PROTOCOL = "protocol"
    """The two ends do not understand each other: update the older one (4426, 4400, 1002, 1007, 1009)."""
    REPLACED = "replaced"
    """Another connection took this place in the room (4001)."""
    LISTEN_ONLY = "listen only"
    """This participant may not speak."""
    LIMIT = "limit"
    """More than a limit allows: packets sent too fast (4429), too many speakers to decode."""
    NOT_KEEPING_UP = "not keeping up"
    """This program was silent, or did not read, for too long (4408, 4410)."""
    SLOW_MACHINE = "slow machine"
    """The machine is too slow for the model."""
    RELAY_ENDED = "relay ended"
    """The relay ended the call: it stops or restarts (1000, 1001, 1012)."""
    RELAY_FAILED = "relay failed"
    """A fault in the relay (1011)."""
    LOST = "lost"
    """The connection was lost for so long that the client gave up, or failed in an unexpected way."""
    CLUSTER = "cluster"
    """A relay cannot reach what it shares rooms by: a NATS server, or its JetStream."""
    CANNOT_LISTEN = "cannot listen"
    """A relay cannot have the address and port that it should listen on."""
    MISUSE = "misuse"
    """The program used a call in the wrong order, or after its end."""


class CallError(StreamingEncodecError):
    """A call, or the relay for it, cannot be set up or kept.

    reason: what a program reacts to. close_code: the code with which the relay closed the connection, None where it
    did not.
    """

    def __init__(self, message: str, reason: CallErrorReason, close_code: int | None = None) -> None:
        super().__init__(message, reason, close_code)
        self.reason = reason
        self.close_code = close_code

    def __str__(self) -> str:
        return str(self.args[0])


class BridgeError(StreamingEncodecError, ValueError):
    """A telephone breaks its protocol or a limit. Its call ends, the room goes on; the message says what it did."""


class FolderError(StreamingEncodecError):
    """A folder that a command would fill is in use by another run, or cannot be written."""


class MissingExtraError(StreamingEncodecError, ImportError):
    """An optional dependency is not installed; the message says how to install it."""
