"""What a call was like, from the time lines of both ends and the recording. Pure: arrays in, figures out.

`send --trace` says when each sample was spoken, `listen --trace` which frame was heard when and how much was made up.
Frames are numbered from a random start, so where the first one belongs is found by ear: pieces of the recording are
looked for in what the codec gives on a clean line. That checks the time line too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming_encodec.errors import StreamingEncodecError
from streaming_encodec.types import Pcm

Times = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_PIECE_S = 0.5
_MOST_PIECES = 24
_ALIKE = 0.6
"""Correlation from which on a piece counts as found. In other speech nothing has it; in the same speech a wrong place
may have up to 0.7, but there the right one has more."""
_LOUD = 0.01
_OLD_MS = 400
_CALM_S = 1.0
_CALM_MS = 40
"""A call has recovered where it goes on for so long with nothing made up and at most so much more delay than before."""


@dataclass(frozen=True)
class Speech:
    """When samples were spoken: blocks in order, first_sample [n] and the offset [n] of their clock in seconds."""

    first_sample: Times
    offset_s: Times
    rate: int

    @classmethod
    def read(cls, blocks: list[dict[str, Any]], rate: int) -> Speech:
        """From the blocks of a trace of `send`; a block is handed over when its last sample was spoken."""
        first = np.array([block["first_sample"] for block in blocks], np.float64)
        end = first + [block["samples"] for block in blocks]
        return cls(first, _steady([block["at_s"] for block in blocks], end / rate), rate)

    def spoken_s(self, samples: Times) -> Times:
        """When these samples [m] were spoken."""
        block = np.clip(np.searchsorted(self.first_sample, samples, "right") - 1, 0, None)
        spoken: Times = self.offset_s[block] + samples / self.rate
        return spoken


@dataclass(frozen=True)
class Playback:
    """What was heard, one entry a block [n] from the first real one to the last.

    first_sample: in the recording `sound` [T]. due_s: when its first sample was heard. frame, heard_s: the newest frame
    of the speaker's and when it was heard. made_up: the block holds no voice that came, but concealment, or nothing.
    """

    first_sample: Times
    due_s: Times
    frame: Times
    heard_s: Times
    made_up: Flags
    sound: Pcm
    rate: int
    block_samples: int

    @classmethod
    def read(cls, blocks: list[dict[str, Any]], sound: Pcm, rate: int) -> Playback:
        """From the blocks of a trace of `listen` and its recording [T].

        Raises:
            StreamingEncodecError: no voice was heard.
        """
        first = np.array([block["first_sample"] for block in blocks], np.float64)
        due_s = _steady([block["at_s"] for block in blocks], first / rate) + first / rate
        played, concealed = (
            np.array([sum(speaker[name] for speaker in block["speakers"]) for block in blocks], np.int64)
            for name in ("played_samples", "concealed_samples")
        )
        came = np.diff(played - concealed, prepend=0) > 0
        invented = np.diff(concealed, prepend=0) > 0
        # A stretched frame fills more than a block: one in which nothing came may still be voice, but for pure silence.
        silent = np.array(
            [not sound[int(block["first_sample"]) :][: block["samples"]].any() for block in blocks], np.bool_
        )
        if not came.any():
            raise StreamingEncodecError("nothing of what was said was heard")
        last = int(np.flatnonzero(came)[-1]) + 1  # noise after the last word is no gap in what was said
        newest = [max(block["speakers"], key=lambda speaker: float(speaker["heard_s"])) for block in blocks[:last]]
        return cls(
            first[:last],
            due_s[:last],
            np.array([speaker["frame"] for speaker in newest], np.float64),
            np.array([speaker["heard_s"] for speaker in newest], np.float64),
            (~came & (invented | silent))[:last],
            sound,
            rate,
            int(blocks[0]["samples"]),
        )

    @property
    def position(self) -> Times:
        """Where in the recording each block's frame begins, samples [n]."""
        position: Times = self.first_sample + (self.heard_s - self.due_s) * self.rate
        return position


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The blocks of a trace, in order."""
    return [entry for entry in read_events(path) if entry["event"] == "block"]


def read_events(path: Path) -> list[dict[str, Any]]:
    """All that a trace tells, in order; without a last line that is not written to its end."""
    whole, _, _ = path.read_text(encoding="ascii").rpartition("\n") if path.exists() else ("", "", "")
    return [json.loads(line) for line in whole.splitlines()]


def find_first_frame(playback: Playback, clean: Pcm) -> tuple[int, float]:
    """The number of the frame that `clean` [T], the codec's output of the speech on a clean line, begins with.

    Returns it and the share of the pieces found that lie where it says, 0..1; far below 1 means that the time line is
    wrong. (Pieces with gaps in them, or bent in time, are not found.)

    Raises:
        StreamingEncodecError: the recording is not of this speech.
    """
    found = []
    search = _Search(clean, round(_PIECE_S * playback.rate))
    for block in _pieces(playback):
        begin = int(playback.first_sample[block])
        likeness, place = search.find(playback.sound[begin : begin + search.length])
        if likeness >= _ALIKE:
            ahead = (begin - playback.position[block]) / playback.block_samples
            found.append(playback.frame[block] + ahead - place / playback.block_samples)
    if not found:
        raise StreamingEncodecError("the recording holds nothing of what was said that could be recognised")
    first = round(float(np.median(found)))
    return first, float(np.mean(np.abs(np.array(found) - first) < 2))


def figures(playback: Playback, speech: Speech, first_frame: int, down_s: tuple[float, float] | None) -> dict[str, Any]:
    """The call in numbers: shares in percent, delays from mouth to ear in ms.

    down_s: when the line was dead, on the clock of both traces.
    """
    real = ~playback.made_up
    delay_ms = delays_ms(playback, speech, first_frame)
    p50, p95, most = (float(value) for value in np.percentile(delay_ms[real], [50, 95, 100]))
    result: dict[str, Any] = {
        "concealed_percent": 100 * float(np.mean(playback.made_up)),
        "delay_p50_ms": p50,
        "delay_p95_ms": p95,
        "delay_max_ms": most,
        "above_400_percent": 100 * float(np.mean(delay_ms[real] > _OLD_MS)),
        "longest_gap_ms": 1000 * _longest_run(playback.made_up) * playback.block_samples / playback.rate,
    }
    return result if down_s is None else result | _recovery(playback, delay_ms, *down_s)


def delays_ms(playback: Playback, speech: Speech, first_frame: int) -> Times:
    """From mouth to ear, of the frame in each block [n]."""
    spoken_s = speech.spoken_s((playback.frame - first_frame) * playback.block_samples)
    delay: Times = 1000 * (playback.heard_s - spoken_s)
    return delay


def _recovery(playback: Playback, delay_ms: Times, down_s: float, up_s: float) -> dict[str, float | None]:
    due_s, real = playback.due_s, ~playback.made_up
    before = real & (due_s < down_s)
    after = real & (due_s >= up_s)
    usual_ms = float(np.median(delay_ms[before])) if before.any() else 0.0
    good = ~playback.made_up & (delay_ms < usual_ms + _CALM_MS)
    calm = round(_CALM_S * playback.rate / playback.block_samples)
    # Blocks from each on that are all good: a sum over a window of them.
    run = np.convolve(good, np.ones(calm), "full")[calm - 1 :]
    back = np.flatnonzero((due_s >= up_s) & (run >= calm))
    return {
        "first_voice_s": float(due_s[after][0] - up_s) if after.any() else None,
        "recovered_s": float(due_s[back[0]] - up_s) if back.size else None,
        "oldest_voice_s": float(delay_ms[after].max()) / 1000 if after.any() else None,
    }


def _steady(at_s: list[float], ideal_s: Times) -> Times:
    """The offset [n] of an even clock from what was written, at times late, never early; the clock may jump ahead."""
    late: Times = np.minimum.accumulate((np.array(at_s) - ideal_s)[::-1])[::-1]
    return late


def _longest_run(flags: Flags) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _pieces(playback: Playback) -> list[int]:
    """Blocks at which a piece begins that is loud and nowhere made up, spread over the recording."""
    blocks = round(_PIECE_S * playback.rate / playback.block_samples) + 1
    begins = []
    for block in range(0, len(playback.frame) - blocks, blocks):
        begin = int(playback.first_sample[block])
        piece = playback.sound[begin : begin + round(_PIECE_S * playback.rate)]
        if not playback.made_up[block : block + blocks].any() and np.sqrt(np.mean(piece**2)) > _LOUD:
            begins.append(block)
    return begins[:: max(1, len(begins) // _MOST_PIECES)]


class _Search:
    """Finds pieces of `length` samples in a long sound [T] by normalised cross-correlation."""

    def __init__(self, sound: Pcm, length: int) -> None:
        self.length = length
        self._size = 1 << (len(sound) + length).bit_length()
        self._spectrum = np.fft.rfft(sound, self._size)
        energy = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
        self._energy = energy[length:] - energy[:-length]

    def find(self, piece: Pcm) -> tuple[float, int]:
        """The likeness, up to 1, at the best place, and that place."""
        product = np.fft.irfft(self._spectrum * np.conj(np.fft.rfft(piece, self._size)), self._size)
        likeness = product[: len(self._energy)] / np.sqrt(self._energy * float(np.sum(piece**2)) + 1e-9)
        place = int(np.argmax(likeness))
        return float(likeness[place]), place
