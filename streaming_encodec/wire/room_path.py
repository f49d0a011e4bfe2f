"""A room in the path of a relay's URL, `/r/ROOM`, so that a proxy can send all of a room to one relay. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from streaming_encodec.errors import ConfigError, PacketError
from streaming_encodec.wire.hello import check_room_name

_PREFIX = "/r/"
_SPELLED = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")  # one segment of a path: RFC 3986, 3.3
_DOTS = frozenset({".", ".."})
"""Steps in a path, however they are spelled: proxies and browsers take them out."""


def room_path(room: str) -> str:
    """The path of a room, spelled as `encodeURIComponent` of JavaScript spells it.

    Raises ConfigError for a name that no relay takes, and for `.` and `..`, which no path can hold.
    """
    if check_room_name(room) in _DOTS:
        raise ConfigError(f"a URL can't hold the room {room!r}: choose another name", setting="room")
    return _PREFIX + quote(room, safe="!'()*")


def room_of_path(path: str) -> str | None:
    """The room that a path names; None for the path `/` (and none at all), which names no room.

    path: without a query. Raises PacketError for any other path.
    """
    if path in ("", "/"):
        return None
    name = path.removeprefix(_PREFIX)
    if name == path or not _SPELLED.fullmatch(name):
        raise PacketError("a relay's path is / or /r/ROOM")
    try:
        room = check_room_name(unquote_to_bytes(name).decode("utf-8"))
    except (UnicodeDecodeError, ConfigError) as error:
        raise PacketError("the path names no room") from error
    if room in _DOTS:
        raise PacketError("a path can't name this room")
    return room


def room_of_url(path: str) -> str | None:
    """The room that the path of a client's URL names: what follows the last `/r/`. None where there is none.

    A proxy may serve the relay below a path of its own, which the relay never sees. Raises PacketError for a name that
    is no room's.
    """
    prefix, found, _ = path.rpartition(_PREFIX)
    return room_of_path(path[len(prefix) :]) if found else None
