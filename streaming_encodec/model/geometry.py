"""Receptive field, lookahead and history of convolutions: integers, without torch.

Shared by the layers (``conv.py``) and by the engine that computes without them (``engines/kernel``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from streaming_encodec.model.config import EncodecConfig


@dataclass(frozen=True)
class ConvGeometry:
    """Of a convolution padded so that T inputs give ``ceil(T / stride)`` outputs; causal, or centred."""

    kernel: int
    stride: int
    dilation: int
    causal: bool
    pad_mode: str

    @property
    def span(self) -> int:
        """Inputs that one output depends on."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def padding_total(self) -> int:
        """Inputs that padding adds on both sides together."""
        return self.span - self.stride

    @property
    def lookahead(self) -> int:
        """Inputs beyond an output's own stride that it waits for."""
        return 0 if self.causal else self.padding_total // 2

    @property
    def padding_left(self) -> int:
        """Inputs that padding adds before the first."""
        return self.padding_total - self.lookahead

    @property
    def reflected(self) -> int:
        """Inputs that *reflect* needs: below, the offline model pads in its way for short inputs."""
        return max(self.padding_left, self.lookahead + self.stride - 1) + 1

    @property
    def history_length(self) -> int:
        """Inputs that a stream keeps: for the next outputs, and for the padding at its end."""
        return max(self.padding_total, self._flush_history())

    def _flush_history(self) -> int:
        # Reflecting p inputs needs p + 1 of them; with u new ones in the flush, the history must hold the rest.
        if self.pad_mode == "constant":
            return 0
        if self.pad_mode == "replicate":
            return 1 if self.lookahead else 0
        needs = []
        for u in range(self.span + self.stride):
            right = self.lookahead + (-(self.lookahead + u) % self.stride)
            needs.append(right + 1 - u if right else 0)
        return max(needs)


def trim_right(config: EncodecConfig, padding_total: int) -> int:
    """The part of ``padding_total`` trimmed on the right of a transposed convolution; the rest is on the left."""
    if config.use_causal_conv:
        return math.ceil(padding_total * config.trim_right_ratio)
    return padding_total // 2
