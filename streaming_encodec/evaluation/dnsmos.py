"""DNSMOS: a network that predicts listeners' opinion of a sound, without the original. No loss resembles it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.extras import packaged_file
from streaming_encodec.evaluation.metric import WIDEBAND, Better, Score, resample
from streaming_encodec.types import Pcm

_PART_S = 9.01
"""Length of the network's input; shorter sounds are repeated."""

_ASPECTS = ("signal", "background", "overall")
"""In the order of the network's outputs."""

# Polynomials from the network's scale to listeners', highest power first (DNS Challenge, Reddy et al. 2022).
_CURVES = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}


class DnsmosNetwork:
    """P.835 scores of the last sound, which three metrics read.

    Only the network is taken from the package ``speechmos`` (MIT): its code imports librosa and pandas.
    """

    def __init__(self) -> None:
        path = packaged_file("speechmos", "dnsmos_models/sig_bak_ovr.onnx", "DNSMOS")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._sound: Pcm | None = None
        self._found: dict[str, float] = {}

    def __call__(self, samples: Pcm, sample_rate: int) -> dict[str, float]:
        """[T] → aspect → 1 … 5."""
        if samples is not self._sound:
            self._sound, self._found = samples, self._judge(resample(samples, sample_rate, WIDEBAND))
        return self._found

    def _judge(self, wide: Pcm) -> dict[str, float]:
        part = int(_PART_S * WIDEBAND)
        wide = np.clip(wide, -1.0, 1.0).astype(np.float32)
        while len(wide) < part:
            wide = np.concatenate([wide, wide])
        # Whole seconds apart, as many as in the published script.
        starts = [second * WIDEBAND for second in range(int(len(wide) // WIDEBAND - _PART_S) + 1)]
        raw = [self._session.run(None, {"input_1": wide[None, s : s + part]})[0][0] for s in starts]
        return {
            aspect: float(np.mean(np.polyval(_CURVES[aspect], [scores[place] for scores in raw])))
            for place, aspect in enumerate(_ASPECTS)
        }


class Dnsmos:
    """One aspect of DNSMOS P.835, 1 … 5: how listeners of a noise suppression test would rate the sound."""

    better: Better = "higher"
    absolute = True
    family = "dnsmos"

    def __init__(self, network: DnsmosNetwork, aspect: str) -> None:
        self._network, self._aspect = network, aspect
        self.name, self.title = f"dnsmos_{aspect}", f"DNSMOS {aspect}"

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        return Score(self._network(degraded, clip.sample_rate)[self._aspect])


def dnsmos_metrics() -> list[Dnsmos]:
    """Overall, signal and background scores, from one network."""
    network = DnsmosNetwork()
    return [Dnsmos(network, aspect) for aspect in ("overall", "signal", "background")]
