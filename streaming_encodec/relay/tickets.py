"""Tickets: the secrets by which a client that lost its connection takes its seat again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Holder = TypeVar("Holder", bound=Hashable)


class Tickets(Generic[Holder]):
    """The holder of each ticket. A holder has one, which changes each time it is used.

    The welcome that brings the new one may be lost on the way, with the connection: so the ticket that was shown
    stays good until its holder is heard from (`confirm`).
    """

    def __init__(self, new_ticket: Callable[[], str]) -> None:
        self._new_ticket = new_ticket
        self._holders: dict[str, Holder] = {}
        self._held: dict[Holder, tuple[str, ...]] = {}  # the newest, and the one shown for it

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Holder]:
        return iter(self._held)

    def holder(self, ticket: str) -> Holder | None:
        """The holder of a ticket; None if it is unknown or no longer valid."""
        return self._holders.get(ticket)

    def issue(self, holder: Holder, *shown: str) -> str:
        """A new ticket, for the one that was shown if there was one."""
        self.revoke(holder)
        ticket = self._new_ticket()
        self._keep(holder, (ticket, *shown))
        return ticket

    def confirm(self, holder: Holder) -> None:
        """The newest ticket has arrived: the one before it is no longer valid."""
        held = self._held.get(holder, ())
        if len(held) > 1:
            self.revoke(holder)
            self._keep(holder, held[:1])

    def revoke(self, holder: Holder) -> bool:
        """Forget a holder; False where there is none."""
        held = self._held.pop(holder, ())
        for ticket in held:
            del self._holders[ticket]
        return bool(held)

    def _keep(self, holder: Holder, tickets: tuple[str, ...]) -> None:
        self._held[holder] = tickets
        self._holders.update(dict.fromkeys(tickets, holder))
