"""The networks that are measured, by name.

Every line has 10 ms one way, so that a packet takes 20 ms from the speaker to the listener; a condition changes one
person's line in both directions, or both persons'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from streaming_encodec.bench.network.impair import Impairment
from streaming_encodec.errors import ConfigError

_SETTLED_S = 12.0
"""Speech after the last event, in which the call has to come back."""


class Where(StrEnum):
    """Whose line is bad."""

    LISTENER = "listener"
    SPEAKER = "speaker"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Condition:
    """A bad network. new_address_s: when the listener gets another address. competing_s: from … to … somebody downloads
    over the listener's line."""

    says: str
    impairment: Impairment = field(default_factory=Impairment)
    where: Where = Where.LISTENER
    new_address_s: float | None = None
    competing_s: tuple[float, float] | None = None

    @property
    def least_seconds(self) -> float:
        """How much speech it takes to see what happens, and what follows."""
        ends = [end_s for _, end_s in self.impairment.down_s]
        ends += [] if self.competing_s is None else [self.competing_s[1]]
        return max(ends) + _SETTLED_S if ends else 10.0


def _rate(kbps: float) -> Condition:
    return Condition(f"{kbps:g} kbit/s, 1 s of queue", Impairment(rate_kbps=kbps))


def _loss(percent: float) -> Condition:
    return Condition(f"{percent:g} % of packets lost", Impairment(loss=percent / 100))


CONDITIONS: dict[str, Condition] = {
    "clean": Condition("nothing lost, 10 ms a line"),
    "loss1": _loss(1),
    "loss3": _loss(3),
    "loss5": _loss(5),
    "loss10": _loss(10),
    "burst10t": Condition("dead for 10 % of the time, 107 ms each", Impairment(burst_share=0.10)),
    "jitter30": Condition("40 ± 30 ms, in order", Impairment(delay_ms=40, jitter_ms=30)),
    "reorder30": Condition("40 ± 30 ms, out of order", Impairment(delay_ms=40, jitter_ms=30, reorders=True)),
    "rate64": _rate(64),
    "rate32": _rate(32),
    "rate24": _rate(24),
    "rate16": _rate(16),
    "bloat": Condition(
        "1 Mbit/s, 500 ms of queue, a download", Impairment(rate_kbps=1000, queue_ms=500), competing_s=(12.0, 26.0)
    ),
    "noudp": Condition("no UDP passes", Impairment(no_udp=True)),
    "outage2": Condition("no line for 2 s", Impairment(down_s=((15.0, 17.0),))),
    "outage6": Condition("no line for 6 s", Impairment(down_s=((15.0, 21.0),))),
    "handover": Condition("no line for 3 s, another address", Impairment(down_s=((15.0, 18.0),)), new_address_s=17.9),
    "train": Condition(
        "bursts, 40 ± 15 ms, 1.5 s without a line",
        Impairment(delay_ms=40, jitter_ms=15, burst_share=0.10, down_s=((20.0, 21.5),)),
        where=Where.BOTH,
    ),
}


def find_conditions(names: str, seconds: float) -> dict[str, Condition]:
    """The conditions of a list such as "clean,loss10", or all of them for "all".

    Raises:
        ConfigError: an unknown name, or too little speech for what happens in one of them.
    """
    wanted = list(CONDITIONS) if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in CONDITIONS:
            raise ConfigError(f"no condition {name!r}: take all, or of {', '.join(CONDITIONS)}", setting="conditions")
        least = CONDITIONS[name].least_seconds
        if seconds < least:
            raise ConfigError(f"{name} needs {least:g} s of speech, not {seconds:g}", setting="seconds")
    return {name: CONDITIONS[name] for name in wanted}
