"""What `demo` and `talk` share: devices, and a live loop with a picture and keys until it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.live import Live

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.audio.files.writer import AudioWriter
from streaming_encodec.cli.shared.console import err, name_device, note
from streaming_encodec.cli.shared.interrupt import Interrupt
from streaming_encodec.cli.shared.keyboard import Keyboard
from streaming_encodec.cli.shared.live_view import History, Look, panel
from streaming_encodec.cli.shared.loading import LoadedModel
from streaming_encodec.client.threaded import ThreadedVoiceClient
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.live.capture import CaptureSettings, capture_chooser
from streaming_encodec.live.feedback import FeedbackSuppressor
from streaming_encodec.live.figures import CallFigures
from streaming_encodec.live.file_card import FileCard
from streaming_encodec.live.loop import LiveLoop
from streaming_encodec.live.speed import TIGHT, measure_speed
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.types import Pcm

_LOOK_S = 0.2
_PAINT_HZ = 5


def check_speed(loaded: LoadedModel, engine: Engine, bandwidth: float, *, must: bool = True) -> None:
    """Before a call: note a tight fit of model and machine.

    Raises:
        CallError: the machine is too slow for the model and ``must`` keep up; the message offers what is faster.
    """
    speed = measure_speed(loaded.model, engine, bandwidth)
    usual, deadline = f"{speed.usual_ms:.1f}", f"{speed.deadline_ms:.1f}"
    faster = "" if loaded.name == DEFAULT_MODEL else f"; --model {DEFAULT_MODEL} is much lighter"
    if must and speed.usual_ms > speed.deadline_ms:
        raise CallError(
            f"this machine needs {usual} ms for a frame of {deadline} ms with {loaded.name}: "
            f"too slow for a call. Close other programs{faster}",
            CallErrorReason.SLOW_MACHINE,
        )
    if speed.usual_ms > TIGHT * speed.deadline_ms:
        note(f"a frame takes {usual} of {deadline} ms here: expect drop-outs{faster}")


def open_card(sample_rate: int, input_device: str | None, output_device: str | None) -> SoundCard:
    """Microphone and loudspeaker, with their names on stderr. Raises DeviceError where one is missing."""
    card = SoundCard(sample_rate, input_device=input_device, output_device=output_device)
    for kind, name in card.names.items():
        name_device(kind, name)
    return card


def read_clip(reader: AudioReader, sample_rate: int, seconds: float | None = None) -> Pcm:
    """A sound file as one array [1, n], of its first ``seconds``. Closes the file."""
    with reader:
        reader.convert(sample_rate, 1)
        sound = np.concatenate([np.zeros((1, 0), np.float32), *reader], axis=1)
    return sound if seconds is None else sound[:, : round(seconds * sample_rate)]


@contextmanager
def live_session(
    card: SoundCard | FileCard,
    speaker: ThreadedVoiceClient,
    listener: ThreadedVoiceClient,
    figures: Callable[[], CallFigures],
    *,
    record: Path | None,
    capture: CaptureSettings,
    settings: Callable[[], str],
    keys: str,
    on_key: Callable[[str], None],
) -> Iterator[LiveSession]:
    """A session of a call; what is heard in it goes to the file ``record``, too."""
    rate = speaker.format.sample_rate
    with ExitStack() as stack:
        loop = LiveLoop(
            card,
            speaker,
            listener,
            figures,
            feedback=FeedbackSuppressor(rate) if isinstance(card, SoundCard) else None,
            choose_capture=capture_chooser(capture, speaker.format.frame_samples, rate),
            on_output=None if record is None else stack.enter_context(AudioWriter(record, rate)).write,
        )
        yield LiveSession(loop, settings=settings, keys=keys, on_key=on_key)


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

    def run(self, seconds: float | None = None) -> dict[str, Any]:
        """Until the end. Returns the call in numbers; raises what the loop raises, and `facts` has them then."""
        begin, card = self._clock(), self.loop.card
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
                    or (isinstance(card, FileCard) and card.done)
                )

            try:
                self.loop.run(stop, lambda: self._attend(self._clock() - begin))
            finally:
                # Now, not later: the card plays on, and with nothing more to play it counts underruns.
                self._seconds, self._counts = self._clock() - begin, replace(card.counts)
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


def change_bandwidth(key: str, known: tuple[float, ...], speaker: ThreadedVoiceClient) -> None:
    """For the keys + and - (= and _ on the same caps): the next of a model's bandwidths; other keys change nothing."""
    if key in "+-=_":
        speaker.bandwidth = next_bandwidth(known, speaker.bandwidth, key in "+=")


def next_bandwidth(known: tuple[float, ...], now: float, up: bool) -> float:
    """The model's next bandwidth in that direction, or the same at the end."""
    ladder = sorted(known)
    at = ladder.index(now)
    return ladder[min(len(ladder) - 1, at + 1) if up else max(0, at - 1)]
