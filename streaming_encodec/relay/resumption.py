"""Resumption tokens: secrets that restore a participant whose connection was lost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Holder = TypeVar("Holder", bound=Hashable)


class ResumptionTokens(Generic[Holder]):
    """Which participant (holder) each token belongs to. A token is replaced each time it is used.

    The welcome with the new token may be lost together with the connection. So the token that was used stays valid
    until the holder has sent something (`confirm`).
    """

    def __init__(self, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self._holders: dict[str, Holder] = {}
        self._held: dict[Holder, tuple[str, ...]] = {}  # the newest, and the one used to get it

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Holder]:
        return iter(self._held)

    def holder(self, token: str) -> Holder | None:
        """Whose token this is; None if it is unknown or no longer valid."""
        return self._holders.get(token)

    def issue(self, holder: Holder, *used: str) -> str:
        """A new token, in place of the used one if there is one."""
        self.revoke(holder)
        token = self._new_token()
        self._keep(holder, (token, *used))
        return token

    def confirm(self, holder: Holder) -> None:
        """The newest token has arrived: the one before it is no longer valid."""
        held = self._held.get(holder, ())
        if len(held) > 1:
            self.revoke(holder)
            self._keep(holder, held[:1])

    def revoke(self, holder: Holder) -> bool:
        """Forget a holder; False if it is unknown."""
        held = self._held.pop(holder, ())
        for token in held:
            del self._holders[token]
        return bool(held)

    def _keep(self, holder: Holder, tokens: tuple[str, ...]) -> None:
        self._held[holder] = tokens
        self._holders.update(dict.fromkeys(tokens, holder))
