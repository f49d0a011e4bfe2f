"""When sound is sent to a telephone: by its clock, with a small stock there, and never more than that for long.

Two clocks differ by some 100 ppm, 0.2 s in half an hour: sound that is sent by another clock than it is played by
runs out, or piles up. Pure: the time is handed in.
"""

from __future__ import annotations

import math
from collections import deque

from streaming_encodec.transport.limits import MAX_VOICE_AGE_S

_WINDOW_S = 4.0
"""The fastest message of so long a time shows the telephone's clock: the others were late."""
_STEP_S = 0.005
"""A clock does not go on or back by so much between two windows: the way became shorter or longer, or the first
messages were late. What the telephone holds is the same as before, so no frame more or less is sent."""
_SLOWDOWN = 0.005
"""Seconds by which the clock that is read is put back in a second, at most: the rate of sound changes unnoticed."""
_GAP_S = 0.3
"""Later than this, a message is behind a stalled network, or the telephone was silent before it."""
_STALL_S = 2.0
"""After so long it was silent."""
_EARLY_S = 0.002
"""A timer that ends so much too early is on time."""
_NUDGE_S = 2.0
"""A frame is left out or added so often at most."""
_STOCKS = 3
"""As many answers in a row must say that too much waits, where they are not exact: each may be late by itself."""


class PeerClock:
    """The telephone's time, by its sound: messages come late by varying times, never early."""

    def __init__(self) -> None:
        self._position_s = 0.0  # the end of the last sound, in its time
        self._shift_s = 0.0  # added to the times that messages tell
        self._offset_s: float | None = None  # its time less ours, as it is read
        self._best = self._best_before = -math.inf
        self._window_s = self._read_s = -math.inf
        self._apart_since_s: float | None = None

    def heard(self, seconds: float, now_s: float, end_s: float | None = None) -> None:
        """So much sound came. `end_s`: its end in the telephone's time, where the message has it."""
        self._position_s = self._position_s + seconds if end_s is None else end_s + self._shift_s
        offset_s = self._position_s - now_s
        if self._offset_s is None:
            self._offset_s = offset_s
            self._restart(offset_s, now_s)
            return
        apart_s = offset_s - max(self._best, self._best_before)
        if apart_s > _STEP_S:
            self._restart(offset_s, now_s)
            return
        if apart_s < -_GAP_S:
            # A network that stood still delivers what it held, and then all is as before. After a silence the
            # caller's time goes on from here.
            if self._apart_since_s is None:
                self._apart_since_s = now_s
            if now_s - self._apart_since_s > _STALL_S:
                self._restart(offset_s, now_s)
            return
        self._apart_since_s = None
        if now_s - self._window_s >= _WINDOW_S:
            longer_s = max(0.0, self._best_before - self._best)
            if longer_s > _STEP_S:
                self._shift_s += longer_s
                self._position_s += longer_s
                offset_s += longer_s
                self._best += longer_s
            self._best_before, self._best, self._window_s = self._best, offset_s, now_s
        self._best = max(self._best, offset_s)

    def now(self, now_s: float) -> float | None:
        """The telephone's time; it goes on where nothing comes. None before anything came."""
        if self._offset_s is None:
            return None
        slowest_s = self._offset_s - _SLOWDOWN * max(0.0, now_s - self._read_s)
        self._offset_s = max(self._best, self._best_before, slowest_s)
        self._read_s = now_s
        return now_s + self._offset_s

    def _restart(self, offset_s: float, now_s: float) -> None:
        """What is read goes on smoothly: from here on messages are that much earlier or later."""
        assert self._offset_s is not None
        apart_s = offset_s - self._offset_s
        self._shift_s -= apart_s
        self._position_s -= apart_s
        self._best = self._best_before = self._offset_s
        self._window_s = now_s
        self._read_s = max(self._read_s, now_s)
        self._apart_since_s = None


class SendPace:
    """How many frames of sound are due.

    frame_s: of each message. lead_s: sent ahead of the telephone's time.
    """

    def __init__(self, frame_s: float, lead_s: float) -> None:
        self._frame_s, self._lead_s = frame_s, lead_s
        self._peer = PeerClock()
        self._position_s: float | None = None  # sound sent so far, in the telephone's time
        self._held = False
        self._nudged_s = -math.inf
        self._least_queued_s = math.inf
        self._over_s: deque[float] = deque(maxlen=_STOCKS)
        # What waits there if all that was sent came at once, in the telephone's time, and the least of it lately.
        self._plays_until_s = -math.inf
        self._least_waiting_s, self._looked_s = math.inf, -math.inf
        self._counts = False  # the telephone counts what waits: no need to reckon it
        self.skipped_frames = 0
        """Frames that were past when this program, or the telephone, could go on."""

    def heard(self, seconds: float, now_s: float, end_s: float | None = None) -> None:
        """Sound came from the telephone, see `PeerClock.heard`."""
        self._peer.heard(seconds, now_s, end_s)

    def hold(self, on: bool) -> None:
        """The telephone takes no sound, or takes it again."""
        self._held = on

    def wait_s(self, now_s: float) -> float:
        """Seconds until a frame is due; a frame's length where that is not known."""
        if self._held or (due_s := self._due_s(now_s)) is None:
            return self._frame_s
        assert self._position_s is not None
        return max(0.0, self._position_s - due_s)

    def take(self, now_s: float) -> int:
        """How many frames are due; they count as sent."""
        due_s = self._due_s(now_s)
        if due_s is None:
            return 0
        assert self._position_s is not None
        late_s = due_s - self._position_s
        if self._held:
            self._skip(math.floor(late_s / self._frame_s) + 1)
            return 0
        if late_s > self._lead_s + MAX_VOICE_AGE_S:
            # The telephone has played its stock: send a new one.
            late_s -= self._skip(math.floor((late_s - self._lead_s) / self._frame_s))
        if late_s < -_EARLY_S:
            return 0
        frames = math.floor((late_s + _EARLY_S) / self._frame_s) + 1
        self._position_s += frames * self._frame_s
        self._least_waiting_s = min(self._least_waiting_s, max(0.0, self._plays_until_s - due_s))
        self._plays_until_s = max(self._plays_until_s, due_s) + frames * self._frame_s
        self._trim(now_s)
        return frames

    def _trim(self, now_s: float) -> None:
        """What was sent late and then together, or by a clock that was read late at first, waits there for good: leave
        a frame or two out now and then, until what waits is the lead. Where lateness comes again and again, nothing
        waits at its worst, and so all stays."""
        if now_s - self._looked_s < _NUDGE_S:
            return
        over_s = self._least_waiting_s - self._lead_s
        if math.inf > over_s > 0.75 * self._frame_s and not self._counts:
            self._skip(self._step(over_s))
        self._least_waiting_s, self._looked_s = math.inf, now_s

    def _step(self, over_s: float) -> int:
        """How many frames are left out at once where so much too much waits."""
        return 1 if over_s < 5 * self._frame_s else 2

    def _skip(self, frames: int) -> float:
        assert self._position_s is not None
        past_s = max(0, frames) * self._frame_s
        self._position_s += past_s
        self.skipped_frames += max(0, frames)
        return past_s

    def queued(self, seconds: float, now_s: float, *, exact: bool, round_trip_s: float | None = None) -> bool:
        """So much waits there. Returns whether it is too much, and to be cleared.

        exact: counted there; then single frames are left out or added, so that the stock stays. Otherwise the time of
        two messages is in it, of which the smallest so far stands for the usual. round_trip_s: what that takes at
        present, where it is known: what is beyond both is left out, frame by frame. What is left out waits in the
        room's jitter buffers, which shorten the speech unheard.
        """
        self._counts = self._counts or exact
        self._least_queued_s = min(self._least_queued_s, seconds)
        usual_s = self._lead_s if exact else max(self._lead_s, self._least_queued_s)
        if self._position_s is None:
            return False
        if seconds > usual_s + MAX_VOICE_AGE_S:
            self._position_s -= self._lead_s  # a new stock
            self._over_s.clear()
            return True
        if not exact and round_trip_s is not None:
            # The way became longer, or more waits there? The one is in the round trip, too.
            self._leave_out(seconds - max(usual_s, self._lead_s + round_trip_s))
        if exact and now_s - self._nudged_s >= _NUDGE_S:
            if seconds > self._lead_s + 1.5 * self._frame_s:
                self._position_s += self._frame_s
                self._nudged_s = now_s
            elif seconds < self._lead_s - 0.5 * self._frame_s:
                self._position_s -= self._frame_s
                self._nudged_s = now_s
        return False

    def _leave_out(self, over_s: float) -> None:
        """An answer says that so much more waits than should."""
        self._over_s.append(over_s)
        least_s = min(self._over_s)
        if len(self._over_s) == _STOCKS and least_s > 1.5 * self._frame_s:
            left_out_s = self._frame_s * self._step(least_s)
            assert self._position_s is not None
            self._position_s += left_out_s
            # The answers so far were of before.
            self._over_s = deque((each_s - left_out_s for each_s in self._over_s), _STOCKS)

    def _due_s(self, now_s: float) -> float | None:
        due_s = self._peer.now(now_s)
        if due_s is not None and self._position_s is None:
            self._position_s = due_s - self._lead_s
        return due_s
