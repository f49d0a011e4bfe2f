"""Reads the hello and checks the token, which stands in a header (programs) or in the hello (browsers)."""

from __future__ import annotations

from collections.abc import Callable

from streaming_encodec.errors import PacketError
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.tokens import Grant, TokenChecker
from streaming_encodec.transport.base import ServerConnection
from streaming_encodec.transport.close_codes import CloseCode, Refused, not_allowed
from streaming_encodec.wire.control import parse_control
from streaming_encodec.wire.fields import Fields
from streaming_encodec.wire.header import PROTOCOL_VERSION
from streaming_encodec.wire.hello import Hello
from streaming_encodec.wire.room_path import room_of_path

_BEARER = "bearer "
_ANY_VERSION = 10**9


class Login:
    """Decides by the configuration which client may enter. `wall_clock` is Unix time, against which tokens expire."""

    def __init__(self, config: RelayConfig, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._checker = (
            None
            if config.token_key is None
            else TokenChecker(config.token_key, max_ttl_s=config.limits.max_token_ttl_s)
        )

    def read(self, connection: ServerConnection, message: str | bytes) -> tuple[Hello, str | None]:
        """The hello, and the token of the Authorization header if there is one. Raises Refused."""
        if not isinstance(message, str):
            raise Refused(CloseCode.BAD_MESSAGE, "the first message is a hello")
        hello = read_hello(message)
        if room_of_path(connection.path) not in (None, hello.room):
            raise Refused(CloseCode.WRONG_ROOM, "the URL names another room")
        return hello, bearer_token(connection)

    def check(self, hello: Hello, bearer: str | None) -> Grant:
        """What this client may do, if that includes what it asks for. Raises Refused, the same for every cause."""
        if self._checker is None:
            return Grant(hello.room, publish=True, subscribe=True)
        token = bearer or hello.token
        if token is None:
            raise not_allowed()
        grant = self._checker.check(token, self._wall_clock())
        if grant.room != hello.room or not grant.allows(hello.role):
            raise not_allowed()
        return grant


def read_hello(message: str) -> Hello:
    """Read a first message. Raises Refused, with a code of its own for another version of the protocol."""
    try:
        hello = parse_control(message)
    except PacketError as error:
        raise (_wrong_version(message) or Refused(CloseCode.BAD_MESSAGE, "not a hello")) from error
    if not isinstance(hello, Hello):
        raise Refused(CloseCode.BAD_MESSAGE, "the first message is a hello")
    return hello


def _wrong_version(message: str) -> Refused | None:
    try:
        version = Fields.read(message).whole("protocol", 0, _ANY_VERSION)
    except PacketError:
        return None
    if version == PROTOCOL_VERSION:
        return None
    return Refused(CloseCode.WRONG_VERSION, f"this relay speaks version {PROTOCOL_VERSION}, not {version}")


def bearer_token(connection: ServerConnection) -> str | None:
    """The token of `Authorization: Bearer …`, if the handshake had one (and only one)."""
    values = connection.headers.get_all("Authorization")
    if len(values) != 1 or not values[0].lower().startswith(_BEARER):
        return None
    return values[0][len(_BEARER) :].strip() or None
