"""A picture of a call: spectrograms of input and output, and delay over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streaming_encodec.audio.files.atomic import write_by
from streaming_encodec.cli.shared.live_view import History
from streaming_encodec.extras import needs_extra
from streaming_encodec.types import Pcm

_WINDOW, _HOP = 512, 128


def spectrogram_db(sound: Pcm) -> Pcm:
    """[n] → decibels [257, frames], at least 60 below the loudest."""
    padded = np.concatenate([sound, np.zeros(max(0, _WINDOW - len(sound)), np.float32)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)).T ** 2
    levels = 10 * np.log10(power + 1e-12)
    shown: Pcm = np.maximum(levels, levels.max() - 60).astype(np.float32)
    return shown


def draw_call(path: Path, said: Pcm, heard: Pcm, sample_rate: int, history: History) -> None:
    """Write the PNG: two spectrograms of [n] sounds, and delay over time by part.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("the picture", "matplotlib", "plot"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 8), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    for axes, title, sound in ((top, "said", said), (middle, "heard", heard)):
        extent = (0, len(sound) / sample_rate, 0, sample_rate / 2000)
        axes.imshow(spectrogram_db(sound), origin="lower", aspect="auto", extent=extent, cmap="magma")
        axes.set_title(title)
        axes.set_ylabel("kHz")
    if history.seconds:
        bottom.stackplot(history.seconds, *history.parts.values(), labels=list(history.parts))
        bottom.legend(loc="upper left", ncols=len(history.parts), fontsize="small")
        bottom.set_ylim(0, 1.25 * bottom.get_ylim()[1])  # room for the legend
    bottom.set_title("mouth to ear")
    bottom.set_ylabel("ms")
    bottom.set_xlabel("s")
    write_by(path, lambda temporary: figure.savefig(temporary, format="png", dpi=100))
