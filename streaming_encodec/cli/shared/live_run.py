"""What `demo` and `talk` share: a live loop with a picture and keys, until somebody has had enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.live import Live

from streaming_encodec.cli.shared.console import err, note
from streaming_encodec.cli.shared.interrupt import Interrupt
from streaming_encodec.cli.shared.keyboard import Keyboard
from streaming_encodec.cli.shared.live_view import History, Look, panel
from streaming_encodec.cli.shared.loading import LoadedModel
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.live.loop import LiveLoop
from streaming_encodec.live.meters import percentile
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.streaming import StreamingDecoder, StreamingEncoder

_LOOK_S = 0.1
_PAINT_HZ = 8
_TRIAL_FRAMES = 40
_WARM_UP_FRAMES = 5
_TIGHT = 0.7
"""Share of the deadline above which a busy moment on this machine will be heard."""


def measure_frame_ms(loaded: LoadedModel, engine: Engine, bandwidth: float) -> tuple[float, float]:
    """Milliseconds to encode and decode one frame here: the median, and the 95th percentile.

    At the pace of a call, for half a second: between two frames the caches fill with other things, and a step after a
    pause takes two or three times what it takes in a row.
    """
    encoder = StreamingEncoder(loaded.model, bandwidth, engine=engine)
    decoder = StreamingDecoder(loaded.model, engine=engine)
    sound = np.zeros((loaded.config.audio_channels, loaded.config.hop_length), np.float32)
    times = []
    for _ in range(_TRIAL_FRAMES):
        begin = time.perf_counter()
        decoder.push(encoder.push(sound))
        took = time.perf_counter() - begin
        times.append(1000 * took)
        time.sleep(max(0.0, loaded.config.frame_ms / 1000 - took))
    settled = times[_WARM_UP_FRAMES:]
    return percentile(settled, 50), percentile(settled, 95)


def check_speed(loaded: LoadedModel, engine: Engine, bandwidth: float, *, must: bool = True) -> None:
    """Before a call: note a tight fit of model and machine.

    Raises:
        CallError: the machine is too slow for the model (unless it need not keep up); the message offers
            what is faster.
    """
    usual, _ = measure_frame_ms(loaded, engine, bandwidth)
    deadline = loaded.config.frame_ms
    faster = "" if loaded.name == DEFAULT_MODEL else f"; --model {DEFAULT_MODEL} is much lighter"
    if must and usual > deadline:
        raise CallError(
            f"this machine needs {usual:.1f} ms for a frame of {deadline:.1f} ms with {loaded.name}: "
            f"too slow for a call. Close other programs{faster}",
            CallErrorReason.SLOW_MACHINE,
        )
    if usual > _TIGHT * deadline:
        note(f"a frame takes {usual:.1f} of {deadline:.1f} ms here: expect drop-outs{faster}")


class LiveSession:
    """Runs a loop and looks at it; Ctrl-C, `q`, a time or the end of a file stops it."""

    def __init__(
        self,
        loop: LiveLoop,
        *,
        settings: Callable[[], str],
        keys: str,
        on_key: Callable[[str], None],
        keyboard: Keyboard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop, self.history = loop, History()
        self._settings, self._keys, self._on_key = settings, keys, on_key
        self._keyboard = keyboard or Keyboard()
        self._clock = clock
        self._quit = False
        self._looked = -_LOOK_S
        self._look: Look | None = None
        self._seconds = 0.0
        self._counts = loop.card.counts

    def run(self, seconds: float | None = None, done: Callable[[], bool] | None = None) -> dict[str, Any]:
        """Until the end. Returns the call in numbers; raises what the line raises, and `facts` has them then."""
        begin = self._clock()
        console = err()
        with ExitStack() as stack:
            interrupt = stack.enter_context(Interrupt())
            stack.enter_context(self._keyboard)
            if console.is_terminal:
                stack.enter_context(_painted(console, self._picture))

            def stop() -> bool:
                passed = self._clock() - begin
                return (
                    self._quit
                    or interrupt.requested
                    or (seconds is not None and passed >= seconds)
                    or (done is not None and done())
                )

            try:
                self.loop.run(stop, lambda: self._attend(self._clock() - begin))
            finally:
                # Now, not later: the card plays on, and with nothing more to play it counts underruns.
                self._seconds, self._counts = self._clock() - begin, replace(self.loop.card.counts)
        return self.facts()

    def facts(self) -> dict[str, Any]:
        """The call in numbers, as it was when the loop ended, for whatever cause."""
        return self.history.facts(self.loop, self._seconds, self._counts)

    def _attend(self, passed: float) -> None:
        if passed - self._looked < _LOOK_S:
            return
        self._looked = passed
        for key in self._keyboard.poll():
            if key == "q":
                self._quit = True
            elif key == "m":
                self.loop.muted = not self.loop.muted
            else:
                self._on_key(key)
        self._look = self.history.look(passed, self.loop)

    def _picture(self) -> RenderableType:
        look = self._look
        return "" if look is None else panel(look, self._settings(), self._keys)


@contextmanager
def _painted(console: Console, picture: Callable[[], RenderableType]) -> Iterator[None]:
    """The picture on the terminal, painted in a thread of its own: it takes longer than a frame may wait."""
    live = Live(console=console, get_renderable=picture, refresh_per_second=_PAINT_HZ, transient=True)
    live.start()
    try:
        yield
    finally:
        with suppress(OSError):  # the terminal was closed meanwhile, and what was recorded is to be kept
            live.stop()


def next_bandwidth(known: tuple[float, ...], now: float, up: bool) -> float:
    """The model's next bandwidth in that direction, or the same at the end."""
    ladder = sorted(known)
    at = ladder.index(now)
    return ladder[min(len(ladder) - 1, at + 1) if up else max(0, at - 1)]
