"""Quick measurements during a run: log-mel distance, and PESQ-WB and STOI if they are installed.

The full report is ``streaming-encodec evaluate``; this one is offline, on few clips, to follow a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soxr
import torch

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.training.dataset import ClipStore
from streaming_encodec.training.decoding import write_flac
from streaming_encodec.training.losses import MelLoss
from streaming_encodec.training.recipe import Clip
from streaming_encodec.types import Pcm


def pick_clips(clips: Sequence[Clip], number: int, seconds: tuple[float, float] = (2.0, 8.0)) -> list[Clip]:
    """``number`` clips of suitable length, spread evenly over the list: the same ones at each call."""
    fitting = [clip for clip in clips if seconds[0] <= clip.seconds <= seconds[1]] or list(clips)
    chosen = np.linspace(0, len(fitting) - 1, min(number, len(fitting))).round().astype(int)
    return [fitting[i] for i in chosen]


@torch.no_grad()
def validate(
    model: EncodecModel,
    store: ClipStore,
    clips: Sequence[Clip],
    codebooks: Sequence[int],
    samples_folder: Path | None,
) -> dict[str, float]:
    """Means over ``clips`` by name, such as ``pesq_8`` for 8 codebooks; writes the first clips as audio."""
    device = next(model.parameters()).device
    mel = MelLoss(store.sample_rate, (1024,)).to(device)
    totals: dict[str, list[float]] = {}
    for number, clip in enumerate(clips):
        original = store.read(clip)
        x = torch.from_numpy(original)[None, None].to(device)
        latent = model.encoder(x)
        for count in codebooks:
            codes = model.quantizer.encode(latent, count)
            y = model.decoder(model.quantizer.decode(codes))[..., : x.shape[-1]]
            decoded = y[0, 0].cpu().numpy()
            totals.setdefault(f"mel_{count}", []).append(float(mel(y, x)))
            for name, value in speech_scores(original, decoded, store.sample_rate).items():
                totals.setdefault(f"{name}_{count}", []).append(value)
            if samples_folder is not None and number < 4:
                samples_folder.mkdir(parents=True, exist_ok=True)
                path = samples_folder / f"{number}_{count}.flac"
                write_flac(path, decoded, store.sample_rate)
    return {name: float(np.mean(values)) for name, values in totals.items()}


def speech_scores(original: Pcm, decoded: Pcm, sample_rate: int) -> dict[str, float]:
    """PESQ-WB and STOI at 16 kHz; a metric whose package is missing is left out."""
    scores: dict[str, float] = {}
    reference = soxr.resample(original, sample_rate, 16000)
    degraded = soxr.resample(np.clip(decoded, -1.0, 1.0), sample_rate, 16000)
    if find_spec("pesq") is not None:
        from pesq import NoUtterancesError, pesq

        try:
            scores["pesq"] = float(pesq(16000, reference, degraded, "wb"))
        except NoUtterancesError:
            # Silence has no utterance to score: the lower end of the scale.
            scores["pesq"] = 1.0
    if find_spec("pystoi") is not None:
        from pystoi import stoi

        scores["stoi"] = float(stoi(reference, degraded, 16000))
    return scores
