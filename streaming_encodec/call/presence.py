"""Who else is in the room, as the relay says."""

from __future__ import annotations

from streaming_encodec.wire.control import Joined, Left
from streaming_encodec.wire.hello import Welcome

_RETURN_S = 15.0
"""How long the others may take to return to a relay that restarted: well above the longest pause between attempts."""


class Presence:
    """Numbers of the others who may speak, and whether those who were there before may still return."""

    def __init__(self) -> None:
        self._present: set[int] = set()
        self._names: dict[int, str] = {}
        self._missing_since_s: float | None = None

    @property
    def speakers(self) -> frozenset[int]:
        """Numbers of the others who may speak."""
        return frozenset(self._present)

    @property
    def names(self) -> dict[int, str]:
        """The names of those that gave one: foreign text."""
        return {number: name for number, name in self._names.items() if number in self._present}

    def returning(self, now_s: float) -> bool:
        """Whether the relay restarted, and speakers who were there before may still return."""
        since = self._missing_since_s
        return since is not None and now_s - since < _RETURN_S

    def update(self, message: Welcome | Joined | Left, now_s: float) -> None:
        """Follow a message of the relay."""
        match message:
            case Welcome():
                before, self._present = self._present, set(message.speakers)
                self._names = {**(self._names if message.resumed else {}), **message.names}
                if not message.resumed:
                    self._missing_since_s = now_s if before and not self._present else None
            case Joined(sender, name):
                self._present.add(sender)
                if name is not None:
                    self._names[sender] = name
                self._missing_since_s = None
            case Left(sender):
                self._present.discard(sender)
                self._names.pop(sender, None)
