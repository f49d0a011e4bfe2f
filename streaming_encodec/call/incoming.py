"""Everybody's voices on their way in: what the network's thread brings, for the thread that plays it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial

from streaming_encodec.call.mixer import FloatArray, Mixer, SpeakerDecoder
from streaming_encodec.voice.detour import Detour
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.wire.control import Joined, Left, Report
from streaming_encodec.wire.hello import StreamFormat, Welcome

_WAITING_EVENTS = 4096
"""Packets that wait for somebody to read: some seconds of a full room."""
_REPORT_S = 1.0


class IncomingVoices:
    """A mixer with a letter box: `arrived` and `told` are the network's, `read` is another thread's.

    on_reports: given what the speakers are to be told, about once a second, in the thread that reads.
    detour: what arrives goes through it first.
    """

    def __init__(
        self,
        stream_format: StreamFormat,
        decoder: SpeakerDecoder,
        settings: ReceiverSettings | None,
        *,
        clock: Callable[[], float],
        on_reports: Callable[[list[Report]], None],
        detour: Detour | None = None,
    ) -> None:
        self.mixer = Mixer(stream_format, decoder, settings)
        self.packets_arrived = 0
        self._clock, self._on_reports, self._detour = clock, on_reports, detour
        self._gone: set[int] = set()  # those who have left, until the relay gives their numbers to others
        self._events: deque[Callable[[], None]] = deque(maxlen=_WAITING_EVENTS)
        self._report_at_s = clock() + _REPORT_S

    # -- the network's --------------------------------------------------------------------------------------

    def arrived(self, data: bytes, now_s: float) -> None:
        """A packet has come."""
        self.packets_arrived += 1
        if len(data) >= 6:  # a shorter one is no packet, and has no sender to count it for
            take = self._take if self._detour is None else self._detour.enter
            self._events.append(partial(take, data, now_s))

    def told(self, message: Welcome | Joined | Left) -> None:
        """The relay says who is there."""
        match message:
            case Welcome(resumed=True, speakers=speakers):
                self._events.append(partial(self._keep_only, speakers))
            case Welcome():  # another relay, or the same one begun anew: from now on numbers mean other people
                self._events.append(self._forget_all)
            case Joined(sender):
                self._events.append(partial(self._gone.discard, sender))
            case Left(sender):
                self._events.append(partial(self._leave, sender))

    # -- the listener's -------------------------------------------------------------------------------------

    def read(self, count: int, now_s: float) -> FloatArray:
        """The next `count` samples [C, count] of everybody; `now_s` is when the first will be heard."""
        self._let_in()
        return self.mixer.read(count, now_s)

    def read_whole(self, count: int, now_s: float, *, certain: bool) -> FloatArray | None:
        """See `Mixer.read_whole`."""
        self._let_in()
        return self.mixer.read_whole(count, now_s, certain=certain)

    def _let_in(self) -> None:
        while self._events:
            self._events.popleft()()
        if self._detour is not None:
            for moment_s, data in self._detour.leave(self._clock()):
                self._take(data, moment_s)
        clock_s = self._clock()
        if clock_s >= self._report_at_s:
            self._report_at_s = clock_s + _REPORT_S
            self._on_reports(self.mixer.reports(clock_s))

    def _take(self, data: bytes, at_s: float) -> None:
        sender = int.from_bytes(data[4:6], "little")
        # Word that a speaker left overtakes what waits in the relay or in the detour, which brings nobody back.
        if sender not in self._gone or sender in self.mixer.speakers:
            self.mixer.receive(sender, data, at_s)

    def _leave(self, sender: int) -> None:
        self._gone.add(sender)
        self.mixer.leave(sender)

    def _keep_only(self, speakers: tuple[int, ...]) -> None:
        """After an outage: whoever left in it went without a word."""
        self._gone.difference_update(speakers)
        for sender in set(self.mixer.speakers).difference(speakers):
            self._leave(sender)

    def _forget_all(self) -> None:
        self._gone.clear()
        if self._detour is not None:
            self._detour.leave(math.inf)  # what is still on its way is theirs who are gone
        for sender in self.mixer.speakers:
            self.mixer.forget(sender)
