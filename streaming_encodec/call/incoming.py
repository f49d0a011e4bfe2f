"""Everybody's voices on their way in: from the network's thread to the thread that plays them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial

from streaming_encodec.call.mixer import Mixer, SpeakerDecoder
from streaming_encodec.types import Pcm
from streaming_encodec.voice.network import NetworkImpairment
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.wire.control import Joined, Left, Report
from streaming_encodec.wire.hello import Welcome
from streaming_encodec.wire.packet import StreamFormat

_WAITING_EVENTS = 4096
"""The most packets that wait to be read: some seconds of a full room."""
_REPORT_S = 1.0
_SOON_S, _AGAIN_S = 0.2, 0.5
"""Between two reports where a queue grows on the way, and after such a report: they need a place on the line, too."""


class IncomingVoices:
    """A mixer behind a queue: the network's thread calls `on_packet` and `on_control`, another thread calls `read`.

    on_reports: called with the reports for the speakers, about once a second, in the thread that reads.
    impairment: packets that arrive go through it first.
    """

    def __init__(
        self,
        stream_format: StreamFormat,
        decoder: SpeakerDecoder,
        settings: ReceiverSettings | None,
        *,
        clock: Callable[[], float],
        on_reports: Callable[[list[Report]], None],
        impairment: NetworkImpairment | None = None,
    ) -> None:
        self.mixer = Mixer(stream_format, decoder, settings)
        self.packets_arrived = 0
        self._clock, self._on_reports, self._impairment = clock, on_reports, impairment
        self._gone: set[int] = set()  # those who have left, until the relay gives their numbers to others
        self._events: deque[Callable[[], None]] = deque(maxlen=_WAITING_EVENTS)
        self._report_at_s = clock() + _REPORT_S
        self._soon_s = _SOON_S
        self._news = False  # something came since `reports_are_due` was asked

    # -- the network's --------------------------------------------------------------------------------------

    def on_packet(self, data: bytes, now_s: float) -> None:
        """A packet arrived."""
        self.packets_arrived += 1
        if len(data) >= 6:  # a shorter one is no packet, and has no sender to count it for
            take = self._take if self._impairment is None else self._impairment.enter
            self._events.append(partial(take, data, now_s))

    def on_control(self, message: Welcome | Joined | Left) -> None:
        """The relay says who is in the room."""
        match message:
            case Welcome(resumed=True, speakers=speakers):
                self._events.append(partial(self._keep_only, speakers))
            case Welcome():  # another relay, or the same one restarted: from now on numbers mean other people
                self._events.append(self._forget_all)
            case Joined(sender):
                self._events.append(partial(self._gone.discard, sender))
            case Left(sender):
                self._events.append(partial(self._leave, sender))

    # -- the listener's -------------------------------------------------------------------------------------

    def read(self, count: int, now_s: float) -> Pcm:
        """The next `count` samples [C, count] of everybody; `now_s` is when the first will be heard."""
        self._let_in()
        return self.mixer.read(count, now_s)

    def read_whole(self, count: int, now_s: float, *, certain: bool) -> Pcm | None:
        """See `Mixer.read_whole`."""
        self._let_in()
        return self.mixer.read_whole(count, now_s, certain=certain)

    def _let_in(self) -> None:
        clock_s = self._clock()
        while self._events:
            self._events.popleft()()
            self._news = True
        if self._impairment is not None:
            for moment_s, data in self._impairment.leave(clock_s):
                self._take(data, moment_s)
                self._news = True
        wait_s = self._report_at_s - clock_s
        if wait_s <= 0 or (self._news and wait_s <= _REPORT_S - self._soon_s and self._is_news_urgent()):
            self._report_at_s = clock_s + _REPORT_S
            self._soon_s = _SOON_S if wait_s <= 0 else _AGAIN_S
            self._on_reports(self.mixer.reports())

    def _is_news_urgent(self) -> bool:
        self._news = False  # what has not come yet, cannot make it so
        return self.mixer.reports_are_due

    def _take(self, data: bytes, at_s: float) -> None:
        sender = int.from_bytes(data[4:6], "little")
        # `Left` can arrive before packets that are still queued; such packets must not re-create the speaker.
        if sender not in self._gone or sender in self.mixer.speakers:
            self.mixer.receive(sender, data, at_s)

    def _leave(self, sender: int) -> None:
        self._gone.add(sender)
        self.mixer.leave(sender)

    def _keep_only(self, speakers: tuple[int, ...]) -> None:
        """After an outage: the relay has not said who left during it."""
        self._gone.difference_update(speakers)
        for sender in set(self.mixer.speakers).difference(speakers):
            self._leave(sender)

    def _forget_all(self) -> None:
        self._gone.clear()
        if self._impairment is not None:
            self._impairment.leave(math.inf)  # these packets are of speakers of the room before
        for sender in self.mixer.speakers:
            self.mixer.forget(sender)
