"""The loop of a live end: microphone to call a packet at a time, call to loudspeaker a frame or two at a time.

It runs in one thread that is not the sound card's. Time is handed in, so tests run hours of it in seconds.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.resample import mix_channels
from streaming_encodec.client.threaded import ThreadedVoiceClient
from streaming_encodec.live.capture import CaptureChoice, CaptureChooser
from streaming_encodec.live.feedback import FeedbackSuppressor
from streaming_encodec.live.figures import CallFigures
from streaming_encodec.live.file_card import FileCard
from streaming_encodec.live.meters import Delays, LevelMeter, percentile
from streaming_encodec.types import Pcm
from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.receiver import ReceiverSettings

_TOGETHER_FRAMES = 2
"""This many frames are made at once, and go through the decoder in one step, if nothing can change them any more."""
LIVE_PLAYOUT = ReceiverSettings(
    delay=DelaySettings(minimum_frames=0.5, initial_frames=1, trial_buckets=4, bins_per_frame=8, spare_frames=0),
    shorten_above_frames=0.125,
    stretch_below_frames=0.25,
    together_frames=_TOGETHER_FRAMES,
)
"""Playout next to a sound card. The microphone's blocks spread arrivals by less than a frame; steps of a whole frame
would make two of that. When a frame is due the next one is usually here: both go through the decoder at once."""

_LONGEST_REST_S = 0.030
_SHORTEST_REST_S = 0.0002
_SWITCH_S = 0.001
"""How soon the sound card's callback gets its turn while this thread computes; Python's default is 5 ms."""
_MAINTAIN_S = 0.1
_PATIENCE_S = 0.006
"""A frame that is due and not here is waited for so long, less the time that a frame takes: what the card's margin
allows. Then it is made up."""
_FIRST_SLOWEST_S = 0.006
_SLOWEST_FORGETS = 0.995
_LATE_S = 0.25
"""A loop that stood still for longer (a laptop asleep) does not catch up, it goes on from now."""
_RECENT = 256


class LiveLoop:
    """Joins a card and a call.

    Args:
        card: microphone and loudspeaker.
        speaker, listener: the call's clients, in a conversation one and the same.
        figures: those of the call, see `CallMeter`.
        feedback: silences acoustic feedback; None for headphones and files.
        choose_capture: says what is done to the microphone's sound, at first and after each change of devices; None
            leaves it as it is.
        on_output: gets every block that goes to the loudspeaker, for recording.
        clock: seconds.
    """

    def __init__(
        self,
        card: SoundCard | FileCard,
        speaker: ThreadedVoiceClient,
        listener: ThreadedVoiceClient,
        figures: Callable[[], CallFigures],
        *,
        feedback: FeedbackSuppressor | None = None,
        choose_capture: CaptureChooser | None = None,
        on_output: Callable[[Pcm], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.card, self.figures, self.feedback = card, figures, feedback
        self.sample_rate = speaker.format.sample_rate
        self.muted = False
        self.choice: CaptureChoice | None = None
        """What is done to the microphone's sound, and why."""
        self._choose_capture, self._seen_changes = choose_capture, -1
        self.input_level, self.output_level = LevelMeter(self.sample_rate), LevelMeter(self.sample_rate)
        self._speaker, self._listener = speaker, listener
        self._on_output, self._clock = on_output, clock
        self._frame_samples, self._packet_samples = speaker.format.frame_samples, speaker.packet_samples
        self._frame_s = speaker.format.frame_seconds
        self._encode_ms: deque[float] = deque(maxlen=_RECENT)
        self._decode_ms: deque[float] = deque(maxlen=_RECENT)
        self._wait_ms: deque[float] = deque(maxlen=_RECENT)
        self._unsent: Pcm = np.zeros((1, 0), np.float32)  # the beginning of the next packet
        self._maintained_s = -_MAINTAIN_S
        # Time that frames lately took to be made; forgets slowly. A speaker's first takes several times the usual.
        self._slowest_s = _FIRST_SLOWEST_S
        self._due_s: float | None = None  # when the next frame is due while there is no loudspeaker

    def step(self) -> None:
        """One turn: make sound for the loudspeaker, which is urgent, and send that of the microphone."""
        now_s = self._clock()
        if now_s - self._maintained_s >= _MAINTAIN_S:
            self._maintained_s = now_s
            self.card.maintain()
            self._meet_devices()
        self._listen()
        self._speak()

    def run(self, stop: Callable[[], bool], every_turn: Callable[[], None] | None = None) -> None:
        """Turn until `stop` says so. Raises what the clients raise when the call is over."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._listener.on_packet(lambda packet, now_s: self.card.wake())
        self._meet_devices()
        self.card.read()  # sound from before the call would be heard late
        try:
            while not stop():
                self.step()
                if every_turn is not None:
                    every_turn()
                self.card.wait(*self._rest())
        finally:
            sys.setswitchinterval(before)

    # -- figures --------------------------------------------------------------------------------------------

    def frame_ms(self) -> tuple[float, float]:
        """Encoding and decoding of one frame, the 95th percentile lately; together they must fit a frame."""
        frames = self._packet_samples / self._frame_samples
        return percentile(self._encode_ms, 95) / frames, percentile(self._decode_ms, 95)

    @property
    def deadline_ms(self) -> float:
        """Length of a frame."""
        return 1000 * self._frame_s

    def delays(self, figures: CallFigures | None = None) -> Delays:
        """Mouth to ear, by part, at this moment; ``figures`` are the call's, if they are at hand."""
        figures = figures or self.figures()
        return Delays(
            microphone_ms=self.card.input_latency_ms,
            echo_ms=0.0 if self.choice is None or self.choice.capture is None else self.choice.capture.delay_ms,
            packet_ms=1000 * self._packet_samples / self.sample_rate,
            encode_ms=percentile(self._encode_ms, 50),
            network_ms=figures.network_ms,
            buffer_ms=figures.buffer_ms,
            decode_ms=percentile(self._decode_ms, 50),
            speaker_ms=max(0.0, percentile(self._wait_ms, 50)) + self.card.output_latency_ms,
        )

    # -- inside ---------------------------------------------------------------------------------------------

    def _rest(self) -> tuple[float, int]:
        """How long to sleep, and how many samples of the microphone end it earlier.

        Until the next frame is due, or if it is and is not here, until it can be waited for no longer. A packet that
        arrives or can be said ends the sleep.
        """
        ahead_s = self.card.ahead_s
        if ahead_s is None:
            return _LONGEST_REST_S, self._missing
        rest_s = ahead_s - self.card.target_s
        if rest_s <= 0:
            rest_s += self._patience_s
        return min(max(rest_s, _SHORTEST_REST_S), _LONGEST_REST_S), self._missing

    @property
    def _patience_s(self) -> float:
        return max(0.0, _PATIENCE_S - self._slowest_s)

    @property
    def _missing(self) -> int:
        """Samples of the microphone that the next packet still wants."""
        held = 0 if self.choice is None or self.choice.capture is None else self.choice.capture.held_samples
        return self._packet_samples - int(self._unsent.shape[1]) - held

    def _meet_devices(self) -> None:
        """Other devices, another echo: what was learned of the old ones is worth nothing."""
        card = self.card
        if self._choose_capture is None or not isinstance(card, SoundCard) or card.changes == self._seen_changes:
            return
        self._seen_changes = card.changes
        self.choice = self._choose_capture(card)
        card.forget_reference()

    def _hear(self) -> Pcm:
        """The microphone's sound, as it is to be sent."""
        capture = None if self.choice is None else self.choice.capture
        if capture is None or not isinstance(self.card, SoundCard):
            return self.card.read()
        if capture.wants_reference:
            return capture.process(*self.card.read_with_reference())
        near = self.card.read()
        return capture.process(near, np.zeros_like(near))

    def _speak(self) -> None:
        # Nothing can be sent of less than a packet, and each call costs something.
        if not self.card.has(self._missing):
            return
        pcm = self._hear()
        self.input_level.add(pcm)
        if self.muted:
            pcm = np.zeros_like(pcm)  # the stream goes on, so that the other end's buffer keeps its place
        pcm = np.concatenate([self._unsent, pcm], axis=1)
        packets = pcm.shape[1] // self._packet_samples
        whole = packets * self._packet_samples
        self._unsent = pcm[:, whole:]
        if not packets:  # the beginning of a frame went with devices that were changed
            return
        begin_s = self._clock()
        self._speaker.send(mix_channels(pcm[:, :whole], self._speaker.format.channels))
        self._encode_ms.append(1000 * (self._clock() - begin_s) / packets)

    def _listen(self) -> None:
        ahead_s = self.card.ahead_s
        if ahead_s is None:
            self._listen_without_loudspeaker()
            return
        self._due_s = None
        target_s = self.card.target_s
        # The moment at which exactly the target was left, or will be: it moves with the card's clock, not with this
        # thread's luck, and so the jitter buffer also sees the two cards' drift.
        while self._make_next(self._clock() + ahead_s - target_s):
            self._wait_ms.append(1000 * target_s - self._decode_ms[-1])
            now_ahead_s = self.card.ahead_s
            if now_ahead_s is None or now_ahead_s <= ahead_s - self._frame_s:
                break  # the loudspeaker went away, or takes more than can be made: the next turn will see
            ahead_s = now_ahead_s

    def _make_next(self, due_s: float) -> bool:
        """Make two frames that no packet to come can change, up to their own length before they are due; or one that is
        due. Returns whether something was made.

        So a packet's frames are made when it arrives, and neither the network nor this machine can delay them any more.
        """
        wait_s = due_s - self._clock()
        if wait_s >= _TOGETHER_FRAMES * self._frame_s:
            return False
        if self._make(due_s, _TOGETHER_FRAMES, certain=True):
            return True
        return wait_s <= 0 and self._make(due_s, 1, certain=wait_s > -self._patience_s)

    def _listen_without_loudspeaker(self) -> None:
        """The call goes on while the loudspeaker is away; what is said then is lost."""
        now_s = self._clock()
        if self._due_s is None or now_s - self._due_s > _LATE_S:
            self._due_s = now_s
        while self._due_s <= now_s:
            self._make(self._due_s, 1, certain=False)
            self._due_s += self._frame_s

    def _make(self, due_s: float, frames: int, *, certain: bool) -> bool:
        begin_s = self._clock()
        whole = frames * self._frame_samples
        sound = self._listener.read_whole(whole, due_s, certain=certain)
        if sound is None:
            return False
        pcm = mix_channels(sound, 1)
        took_s = self._clock() - begin_s
        self._slowest_s = max(took_s, self._slowest_s * _SLOWEST_FORGETS)
        self._decode_ms.append(1000 * took_s / frames)
        if self.feedback is not None:
            pcm = self.feedback.process(pcm)
        self.output_level.add(pcm)
        if self._on_output is not None:
            self._on_output(pcm)
        self.card.write(pcm[:, :whole])
        if pcm.shape[1] > whole:
            self.card.write(pcm[:, whole:], usual=False)
        return True
