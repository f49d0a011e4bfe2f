"""The sender's rate control: codebooks and redundancy up and down, by what receivers report.

Loss and congestion look alike in a loss figure and need opposite answers: random loss needs redundancy, a full line
needs fewer bits. Delay tells them apart: a queue that fills shows as rising jitter or playout delay before it drops
packets. So loss without a rise in delay adds redundancy, in place of codebooks, as the bitrate stays within its budget.
A rise in delay takes codebooks away; calm times give them back one step at a time, later after each failed attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from streaming_encodec.errors import StreamError
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.header import MAX_REDUNDANT_FRAMES
from streaming_encodec.wire.hello import StreamFormat


@dataclass(frozen=True, slots=True)
class RateSettings:
    """Settings of the rate control.

    ladder: codebook counts to choose from, rising (1.5 to 12 kbps by default).
    budget_kbps: the highest bitrate of packets, headers included; only the lowest step may exceed it.
    lossy, clean: smoothed loss above which redundancy is added, and below which it is taken away.
    queue_ms: rise in jitter or playout delay over the calm value that means congestion.
    patience_s: calm time before a step up.
    forget_s: a listener that has not reported for so long no longer counts.
    """

    ladder: tuple[int, ...] = (2, 4, 8, 16)
    budget_kbps: float = 24.0
    lossy: float = 0.02
    clean: float = 0.005
    queue_ms: float = 120.0
    patience_s: float = 5.0
    forget_s: float = 10.0
    redundant_codebooks: int = 2

    def __post_init__(self) -> None:
        if not self.ladder or list(self.ladder) != sorted(set(self.ladder)) or self.ladder[0] < 1:
            raise StreamError("the ladder of codebooks rises from at least 1")
        if not 0 <= self.clean < self.lossy < 1:
            raise StreamError("loss thresholds: 0 <= clean < lossy < 1")


@dataclass(slots=True)
class _Listener:
    heard_s: float
    loss: float = 0.0
    burst: float = 0.0
    calm_ms: float = field(default=float("inf"))
    queue_ms: float = 0.0


class RateControl:
    """Turns reports into `SenderSettings`.

    start: the settings while all is well: the most codebooks, and the least redundancy.
    """

    def __init__(
        self, stream_format: StreamFormat, start: SenderSettings, settings: RateSettings | None = None
    ) -> None:
        self.settings = settings or RateSettings()
        self._format = stream_format
        self._base = start
        ladder = self.settings.ladder
        self._step = max((i for i, k in enumerate(ladder) if k <= start.num_codebooks), default=0)
        self._top = self._step
        self._least_frames = start.redundant_frames if start.has_redundancy else 0
        self._redundant_frames = self._least_frames
        self._listeners: dict[int, _Listener] = {}
        self._calm_since_s: float | None = None
        self._patience = self.settings.patience_s
        self._climbed_at_s: float | None = None

    def on_report(self, report: Report, now_s: float) -> SenderSettings:
        """Take one listener's report. Returns the settings to send with from now on."""
        listener = self._listeners.setdefault(report.listener, _Listener(now_s))
        listener.heard_s = now_s
        listener.loss += 0.4 * (report.fraction_lost - listener.loss)
        listener.burst = max(report.burst_frames, 0.8 * listener.burst)
        delay = report.jitter_ms + report.playout_delay_ms
        # The calm value falls at once and follows a lasting change of route within some fifty reports.
        # A line that is full from the first report on would pass for calm, so the first value is bounded.
        first = min(delay, self.settings.queue_ms)
        calm = first if listener.calm_ms == float("inf") else listener.calm_ms
        listener.calm_ms = min(delay, calm + 0.02 * max(0.0, delay - calm))
        listener.queue_ms = delay - listener.calm_ms
        self._forget(now_s)
        self._decide(now_s)
        return self.current()

    def current(self) -> SenderSettings:
        """The settings as they stand: the step of the ladder, lowered until all fits the budget."""
        codebooks = self._base.redundant_codebooks or self.settings.redundant_codebooks
        for step in range(self._step, -1, -1):
            made = replace(
                self._base,
                num_codebooks=self.settings.ladder[step],
                redundant_codebooks=codebooks if self._redundant_frames else 0,
                redundant_frames=self._redundant_frames,
            )
            if made.wire_kbps(self._format) <= self.settings.budget_kbps:
                return made
        return replace(made, redundant_codebooks=0, redundant_frames=0)

    def _forget(self, now_s: float) -> None:
        limit = now_s - self.settings.forget_s
        self._listeners = {k: v for k, v in self._listeners.items() if v.heard_s >= limit}

    def _decide(self, now_s: float) -> None:
        worst_queue = max(v.queue_ms for v in self._listeners.values())
        loss = max(v.loss for v in self._listeners.values())
        if worst_queue > self.settings.queue_ms:
            self._step_down(now_s)
            return
        self._choose_redundancy(loss)
        if loss > self.settings.lossy:
            self._calm_since_s = None
            return
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        if now_s - self._calm_since_s >= self._patience and self._step < self._top:
            self._step += 1
            self._climbed_at_s = self._calm_since_s = now_s

    def _step_down(self, now_s: float) -> None:
        if self._climbed_at_s is not None and now_s - self._climbed_at_s < 2 * self.settings.patience_s:
            self._patience = min(8 * self.settings.patience_s, 2 * self._patience)
        self._climbed_at_s = None
        self._calm_since_s = None
        self._step = max(0, self._step - 1)
        for listener in self._listeners.values():
            listener.calm_ms += listener.queue_ms / 2  # give the step time to show before the next one

    def _choose_redundancy(self, loss: float) -> None:
        if loss > self.settings.lossy:
            packet = self._base.frames_per_packet
            burst = max(v.burst for v in self._listeners.values())
            # Enough for one and a half of the bursts seen and never less than two packets.
            wanted = max(2 * packet, round(1.5 * burst) + packet)
            self._redundant_frames = min(MAX_REDUNDANT_FRAMES, max(self._redundant_frames, wanted))
        elif loss < self.settings.clean:
            self._redundant_frames = self._least_frames
