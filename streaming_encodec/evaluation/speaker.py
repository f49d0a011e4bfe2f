"""Speaker similarity of the decoded voice and the original.

The network is Resemblyzer's (Apache-2.0; generalised end-to-end loss, Wan et al. 2018): three LSTM layers
over mel spectra. Only its weights are taken from the package: its front end imports librosa, and names that
scipy has removed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.extras import packaged_file
from streaming_encodec.evaluation.metric import WIDEBAND, Better, Score, mel_filters, power_spectrum, resample
from streaming_encodec.types import Pcm

_WINDOW, _HOP, _BANDS = 400, 160, 40  # 25 ms, 10 ms
_PART, _STEP = (
    160,
    77,
)  # frames of the network's input, and its hop: 1.6 s, 1.3 times a second
_TARGET_DB = -30.0  # quiet clips are raised to this level, as in the network's training


class SpeakerSimilarity:
    """Cosine of the two clips' speaker embeddings.

    1 is the same voice; different people have some 0.5 … 0.75.
    """

    name, title = "speaker", "speaker sim."
    family = name
    better: Better = "higher"
    absolute = False

    def __init__(self) -> None:
        # The package's dependencies break others: only its weights are used, so it installs without them.
        install = "pip install --no-deps resemblyzer"
        path = packaged_file("resemblyzer", "pretrained.pt", "speaker similarity", install)
        # Saved on a GPU; nothing but tensors is accepted from the file.
        weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        self._lstm = nn.LSTM(_BANDS, 256, num_layers=3, batch_first=True)
        self._linear = nn.Linear(256, 256)
        self._lstm.load_state_dict(_under(weights, "lstm."))
        self._linear.load_state_dict(_under(weights, "linear."))
        self._filters = mel_filters(WIDEBAND, _WINDOW, _BANDS)
        self._known: dict[Clip, npt.NDArray[np.float32]] = {}

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        if clip not in self._known:
            self._known[clip] = self.embed(clip.samples, clip.sample_rate)
        return Score(float(self._known[clip] @ self.embed(degraded, clip.sample_rate)))

    @torch.no_grad()
    def embed(self, samples: Pcm, sample_rate: int) -> npt.NDArray[np.float32]:
        """[T] → unit vector [256], the mean over overlapping parts of 1.6 s."""
        wide = resample(samples, sample_rate, WIDEBAND)
        level = 10 * np.log10(float(np.mean(wide**2)) + 1e-12)
        wide = wide * np.float32(10 ** (max(0.0, _TARGET_DB - level) / 20))
        mel = (power_spectrum(wide, _WINDOW, _HOP) @ self._filters.T).astype(np.float32)  # [frames, 40]
        starts = range(0, max(1, len(mel) - _PART // 4 * 3), _STEP)
        mel = np.pad(mel, ((0, max(0, starts[-1] + _PART - len(mel))), (0, 0)))
        parts = torch.from_numpy(np.stack([mel[s : s + _PART] for s in starts]))  # [parts, 160, 40]
        _, (hidden, _) = self._lstm(parts)
        raw = torch.relu(self._linear(hidden[-1]))
        vector = nn.functional.normalize(raw, dim=1).mean(dim=0)
        out: npt.NDArray[np.float32] = nn.functional.normalize(vector, dim=0).numpy()
        return out


def _under(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
