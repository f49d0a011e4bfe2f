"""What a room may be called."""

from __future__ import annotations

from streaming_encodec.errors import CallError
from streaming_encodec.wire.fields import is_visible
from streaming_encodec.wire.hello import MAX_ROOM_CHARACTERS


def check_room_name(name: object) -> str:
    """The name. Raises CallError for one that no relay takes."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_ROOM_CHARACTERS or not is_visible(name):
        raise CallError(f"a room's name has 1 to {MAX_ROOM_CHARACTERS} visible characters")
    return name
