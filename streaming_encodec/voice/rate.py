"""The sender's rate control: frames per packet, redundancy and codebooks, chosen from listeners' reports. Pure.

Loss and congestion are different things and want opposite cures:

- A queue that grows on the way is congestion: the line carries less than is sent. Reports tell it as one-way delay
  above the least of the last half minute (`Report.queue_ms`). The cure is fewer bits: first more frames a packet,
  because headers are most of the wire bitrate, then fewer codebooks. How much the line carries follows from how fast
  the queue grows, so one step usually is enough. Until the queue has drained, as little as possible is sent. If it does
  not shrink then, it is others', a download's: fewer bits do not help, longer packets add delay, and so the step is
  taken back. Not where a way keeps order: there each packet that a full queue drops holds up all that follow it.
- Packets that are missing while no queue stands are random loss: fewer bits would not help. The cure is redundancy, as
  long as the usual hole, with as many codebooks as the line has room for: then short holes are not heard. What a full
  queue dropped is no reason to send more, unless the queue is others'.
  Redundancy never takes more than a line was seen to carry.

On a path that keeps order (TCP all the way) a missing packet is only late. It is no loss, and redundancy for it would
arrive later still. Redundancy that a user asks for is sent all the same: a listener's own way may lose packets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from streaming_encodec.errors import StreamError
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.header import MAX_FRAMES, MAX_REDUNDANT_CODEBOOKS
from streaming_encodec.wire.packet import StreamFormat
from streaming_encodec.wire.wire_size import OVERHEAD_BYTES

_INTERVAL_S = 1.0
"""Between two reports of a listener, about."""
_LEAST_INTERVAL_S = 0.2
"""The same where a queue grows; on a bad line reports may arrive closer together than they were sent."""
_GROWS_MS_PER_S = 10.0
_SETTLE_S = 1.5
"""After a step down, until reports show what it did: an interval of reports and some more."""
_CARRIED_SHARE = 0.9
"""Of what the line was seen to carry, so much is used: the queue must drain."""
_LEAST_CARRIED = 0.3
"""Of what was sent, a line carries no less: a queue may have grown by a stall."""
_DRAIN_S = 4.0
"""For so long at most: a queue that stands for longer is others'."""
_ANSWER_S = 1.0
"""After a step down and the length of the queue, until reports tell whether the queue shrinks."""
_ANSWERS = 2
"""A queue is others' if so many reports after that do not find it shorter: one may be late."""
_LONGER, _LONGER_MS, _MISTAKEN_S = 1.5, 250.0, 60.0
"""Others' queue that gets so much longer, by factor and by time, was none. No other is supposed for so long."""
_CROWDED = 0.25
"""Where others' queue drops so much, too many share the line, and as little as possible is sent."""
_LONGEST_PATIENCE = 16.0
_KNOWN_PATIENCE = 4.0
"""Before a step up to more than the line was seen to carry: it may be another line by now."""


@dataclass(frozen=True, slots=True)
class RateSettings:
    """Bounds and thresholds of the rate control.

    ladder: codebook counts to choose from, rising (1.5 to 12 kbps by default).
    overhead_bytes: what lower layers add to a packet.
    budget_kbps: wire bitrate that redundancy never exceeds.
    most_frames: frames a packet may hold where the line is full.
    lossy, clean: smoothed loss above and below which redundancy is added and taken away.
    redundant_codebooks: of every redundant frame, at least. More of them, as the ladder goes, are sent where all
        redundant frames of a packet have at most most_redundant_codes: eight of 8 frames, four of 17.
    most_redundant_frames: 227 ms of the 24 kHz model's; longer holes are not covered.
    standing_ms: a queue above it that grows means congestion. full_ms: one above it does, unless it shrinks.
    patience_s: time without a queue before a step up; doubled at each step that failed before.
    forget_s: a listener that has not reported for so long no longer counts.
    """

    ladder: tuple[int, ...] = (2, 4, 8, 16)
    overhead_bytes: int = OVERHEAD_BYTES
    budget_kbps: float = 64.0
    most_frames: int = MAX_FRAMES
    lossy: float = 0.02
    clean: float = 0.005
    redundant_codebooks: int = 2
    most_redundant_codes: int = 68
    most_redundant_frames: int = 17
    standing_ms: float = 48.0
    full_ms: float = 120.0
    patience_s: float = 5.0
    forget_s: float = 10.0

    def __post_init__(self) -> None:
        if not self.ladder or list(self.ladder) != sorted(set(self.ladder)) or self.ladder[0] < 1:
            raise StreamError("the ladder of codebooks rises from at least 1")
        if not 0 <= self.clean < self.lossy < 1:
            raise StreamError("loss thresholds: 0 <= clean < lossy < 1")
        if not 0 < self.standing_ms <= self.full_ms:
            raise StreamError("queue thresholds: 0 < standing_ms <= full_ms")


@dataclass(slots=True)
class _Listener:
    reported_s: float
    loss: float = 0.0
    burst_frames: float = 0.0
    queue_ms: float = 0.0
    growth_ms_per_s: float = 0.0
    ordered: bool = False
    answers: int = 0
    """Reports since the step down that found its queue no shorter though little is sent."""
    others_ms: float | None = None
    """How long its queue was when it was found to be others'."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A step down: when, the rung, the wire bitrate and what the line was held to carry before it.

    How the queue grew, and whether by what is sent here.
    """

    at_s: float
    rung: int
    kbps: float
    carried_kbps: float
    growth_ms_per_s: float
    is_ours: bool


class RateControl:
    """Turns reports into `SenderSettings`. It has no clock of its own.

    start: what is sent where all is well: the fewest frames a packet, the most codebooks, the least redundancy.
    """

    def __init__(
        self, stream_format: StreamFormat, start: SenderSettings, settings: RateSettings | None = None
    ) -> None:
        self.settings = settings = settings or RateSettings()
        self._format, self._start = stream_format, start
        most_frames = max(start.frames_per_packet, settings.most_frames)
        fewer = [count for count in reversed(settings.ladder) if count < start.num_codebooks]
        # From the start to the least that can be sent: frames a packet first, then codebooks.
        base = start.frames_per_packet  # what the encoder computes at once; packets hold whole steps
        most_frames -= most_frames % base
        fuller = [frames for frames in range(base, most_frames + 1, base) if frames in (base, 2 * base, most_frames)]
        self._rungs = [(frames, start.num_codebooks) for frames in fuller]
        self._rungs += [(most_frames, count) for count in fewer]
        self._rung = 0
        self._least_frames = start.redundant_frames if start.has_redundancy else 0
        self._redundant_frames = self._least_frames
        self._listeners: dict[int, _Listener] = {}
        self._settled_s = self._drains_until_s = float("-inf")
        self._drains = False
        self._calm_since_s: float | None = None
        self._climbed_s = float("-inf")
        self._carried_kbps = math.inf  # what the line was seen to carry, as far as it limits
        self._stepped = _Step(-math.inf, 0, 0.0, math.inf, 0.0, is_ours=False)
        self._mistaken_s = -math.inf
        self._patience = [1.0] * len(self._rungs)  # how much longer than usual a step up to the rung waits

    def on_report(self, report: Report, now_s: float, *, ordered: bool = False) -> SenderSettings:
        """Take one listener's report. Returns the settings to send with from now on.

        ordered: the sender's own transport keeps order at present.
        """
        # A new listener's queue is as old as its first interval.
        listener = self._listeners.setdefault(report.listener, _Listener(now_s - _INTERVAL_S))
        interval_s = max(_LEAST_INTERVAL_S, now_s - listener.reported_s)
        listener.growth_ms_per_s = (report.queue_ms - listener.queue_ms) / interval_s
        listener.reported_s, listener.queue_ms = now_s, report.queue_ms
        listener.ordered = ordered and report.ordered
        listener.answers += self._stays(listener, now_s)
        is_others = listener.others_ms is not None or self._rung == len(self._rungs) - 1
        overflows = report.queue_ms > self.settings.standing_ms and (self._drains or not is_others)
        if not listener.ordered and not overflows:
            listener.loss += 0.4 * (report.fraction_lost - listener.loss)
            # No redundancy covers an outage. The holes of the usual length decide.
            covered = report.burst_frames if report.burst_frames <= self.settings.most_redundant_frames else 0.0
            listener.burst_frames = max(covered, 0.8 * listener.burst_frames)
        limit_s = now_s - self.settings.forget_s
        self._listeners = {number: one for number, one in self._listeners.items() if one.reported_s >= limit_s}
        self._choose_redundancy()
        self._choose_rung(now_s)
        return self.current()

    def current(self) -> SenderSettings:
        """The settings as they stand. Redundancy above the budget takes codebooks, and goes last itself."""
        redundant_frames = self._redundant_frames
        budget_kbps = min(self.settings.budget_kbps, _CARRIED_SHARE * self._carried_kbps)
        while True:
            last = len(self._rungs) - 1
            for rung in range(last if self._drains else self._rung, last + 1):
                for redundant_codebooks in self._redundant_codebooks(rung, redundant_frames):
                    made = self._made(rung, redundant_frames, redundant_codebooks)
                    if not redundant_frames or self._wire_kbps(made) <= budget_kbps:
                        return made
            redundant_frames //= 2

    def _redundant_codebooks(self, rung: int, redundant_frames: int) -> list[int]:
        """What may be sent of each redundant frame, the most first."""
        if not redundant_frames:
            return [0]
        if self._start.redundant_codebooks:
            return [self._start.redundant_codebooks]
        settings = self.settings
        most = min(self._rungs[rung][1], MAX_REDUNDANT_CODEBOOKS, settings.most_redundant_codes // redundant_frames)
        more = [count for count in reversed(settings.ladder) if settings.redundant_codebooks < count <= most]
        return [*more, settings.redundant_codebooks]

    def _made(self, rung: int, redundant_frames: int, redundant_codebooks: int) -> SenderSettings:
        frames, num_codebooks = self._rungs[rung]
        return replace(
            self._start,
            frames_per_packet=frames,
            num_codebooks=num_codebooks,
            redundant_codebooks=redundant_codebooks,
            redundant_frames=redundant_frames,
        )

    def _least_kbps(self, rung: int, redundant_frames: int) -> float:
        """On the wire, with as little of each redundant frame as may be sent."""
        return self._wire_kbps(
            self._made(rung, redundant_frames, self._redundant_codebooks(rung, redundant_frames)[-1])
        )

    def _wire_kbps(self, settings: SenderSettings) -> float:
        return settings.wire_kbps(self._format, self.settings.overhead_bytes)

    def _choose_redundancy(self) -> None:
        loss = max(one.loss for one in self._listeners.values())
        if loss > self.settings.lossy:
            packet = self._rungs[self._rung][0]
            burst_frames = max(one.burst_frames for one in self._listeners.values())
            # One and a half of the usual hole, and never less than two packets.
            wanted = max(2 * packet, round(1.5 * burst_frames) + packet)
            most = max(self.settings.most_redundant_frames, self._least_frames)
            self._redundant_frames = min(most, max(self._redundant_frames, wanted))
        elif loss < self.settings.clean:
            self._redundant_frames = self._least_frames

    def _choose_rung(self, now_s: float) -> None:
        settings = self.settings
        self._find_others(now_s)
        ours = [one for one in self._listeners.values() if one.others_ms is None]
        worst = max(ours, key=lambda one: one.queue_ms, default=_Listener(now_s))
        queue_ms, growth = worst.queue_ms, worst.growth_ms_per_s
        stands, shrinks = queue_ms > settings.standing_ms, growth <= -_GROWS_MS_PER_S
        self._drains = self._drains and stands and now_s < self._drains_until_s
        grows = stands and growth > _GROWS_MS_PER_S
        if grows or (queue_ms > settings.full_ms and not shrinks):
            self._calm_since_s = None
            if now_s >= self._settled_s and not self._drains:  # less is not sent anyway
                self._step_down(queue_ms, growth, now_s)
            elif growth > self._stepped.growth_ms_per_s:
                # Part of the interval before lay before the queue; this one is still of what was sent then.
                self._step_to(replace(self._stepped, growth_ms_per_s=growth))
        elif queue_ms > settings.standing_ms / 2 or len(ours) < len(self._listeners):
            self._calm_since_s = None
        else:
            self._step_up(now_s)

    def _stays(self, one: _Listener, now_s: float) -> bool:
        """Whether a queue is no shorter, though what is left of the time before the step down has passed."""
        is_answered = now_s >= self._stepped.at_s + one.queue_ms / 1000 + _ANSWER_S
        return self._drains and is_answered and one.growth_ms_per_s > -_GROWS_MS_PER_S

    def _find_others(self, now_s: float) -> None:
        """Which queues are others'. Where all that stand are found to be, the last step down was for nothing."""
        settings, step, standing = self.settings, self._stepped, list[_Listener]()
        for one in self._listeners.values():
            if one.others_ms is not None:
                if one.queue_ms > max(_LONGER * one.others_ms, one.others_ms + _LONGER_MS):
                    one.others_ms, self._mistaken_s = None, now_s
                elif one.loss > _CROWDED or one.queue_ms <= settings.standing_ms / 2:
                    one.others_ms = None
            elif one.queue_ms > settings.standing_ms:
                standing.append(one)
        if not (self._drains and standing and now_s - self._mistaken_s > _MISTAKEN_S):
            return
        if all(one.answers >= _ANSWERS and one.loss <= _CROWDED and not one.ordered for one in standing):
            self._rung, self._carried_kbps, self._drains = step.rung, step.carried_kbps, False
            for one in standing:
                one.others_ms = one.queue_ms

    def _step_down(self, queue_ms: float, growth_ms_per_s: float, now_s: float) -> None:
        if now_s - self._climbed_s < 2 * self.settings.patience_s:
            # The last step up was too much for the line.
            self._patience[self._rung] = min(_LONGEST_PATIENCE, 2 * self._patience[self._rung])
        self._climbed_s = float("-inf")
        may_fall = self._rung < len(self._rungs) - 1
        is_ours = may_fall and now_s >= self._drains_until_s  # else a queue grows by what others send
        kbps = self._wire_kbps(self.current())
        step = _Step(now_s, self._rung, kbps, self._carried_kbps, growth_ms_per_s, is_ours)
        if may_fall:
            for one in self._listeners.values():
                one.answers = 0
            self._drains, self._drains_until_s = True, now_s + _DRAIN_S
        self._step_to(step)
        self._settled_s = now_s + _SETTLE_S + queue_ms / 1000

    def _step_to(self, step: _Step) -> None:
        """The next rung that the line carries."""
        self._stepped = step
        # Where each second adds g seconds of queue, 1 - g seconds of voice have arrived.
        carried = step.kbps * max(_LEAST_CARRIED, 1 - max(0.0, step.growth_ms_per_s) / 1000)
        if step.is_ours:
            self._carried_kbps = carried
        last = len(self._rungs) - 1
        fits = (
            rung
            for rung in range(step.rung + 1, last)
            if self._least_kbps(rung, self._redundant_frames) <= _CARRIED_SHARE * carried
        )
        self._rung = min(last, next(fits, last))

    def _step_up(self, now_s: float) -> None:
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        if self._rung == 0:
            return
        patience_s = self.settings.patience_s * self._patience[self._rung - 1]
        if self._least_kbps(self._rung - 1, 0) > self._carried_kbps:
            patience_s *= _KNOWN_PATIENCE
        if now_s - self._calm_since_s >= patience_s:
            self._rung -= 1
            self._climbed_s = self._calm_since_s = now_s
            # It carries what is sent now, and so much more that a step is worth a try; at the top it has room.
            made_kbps = self._least_kbps(self._rung, 0) / _CARRIED_SHARE
            self._carried_kbps = max(self._carried_kbps, made_kbps) if self._rung else math.inf
