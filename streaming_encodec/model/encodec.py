"""The offline EnCodec model: whole inputs in, codes out, and back. Equal to ``transformers.EncodecModel``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streaming_encodec.errors import StreamError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.quantizer import ResidualVectorQuantizer
from streaming_encodec.model.seanet import SeanetDecoder, SeanetEncoder
from streaming_encodec.model.segments import overlap_add, segment_scale
from streaming_encodec.model.size import check_size
from streaming_encodec.model.values import check_codes, check_tensor_amplitude


class Encoded(NamedTuple):
    """What ``encode`` gives; ``decode`` takes it as it is."""

    audio_codes: Tensor  # [segments, B, K, F], int64
    audio_scales: list[Tensor | None]  # per segment [B, 1] where the model normalises, else None
    segment_frames: tuple[int, ...]  # frames of each segment that are not mere filling

    @property
    def last_frame_pad_length(self) -> int:
        """Frames that only fill up the last segment, as ``transformers`` counts them."""
        return self.audio_codes.shape[-1] - self.segment_frames[-1]


class EncodecOutput(NamedTuple):
    """What ``forward`` gives."""

    audio_codes: Tensor  # [segments, B, K, F], int64
    audio_values: Tensor  # [B, C, T]


class EncodecModel(nn.Module):
    """EnCodec for inference, weight norm folded into plain weights.

    A new model has random weights: see ``from_pretrained`` for trained ones. It is left in evaluation mode.

    Raises:
        ConfigError: the model would be larger than ``model/size.py`` allows (2^28 parameters).
    """

    def __init__(self, config: EncodecConfig | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else EncodecConfig()
        check_size(self.config)
        self.encoder = SeanetEncoder(self.config)
        self.decoder = SeanetDecoder(self.config)
        self.quantizer = ResidualVectorQuantizer(self.config)
        self._init_codebooks()
        self.eval()

    # -- codec ----------------------------------------------------------------------------------------------

    def encode(self, x: Tensor, bandwidth: float | None = None, padding_mask: Tensor | None = None) -> Encoded:
        """Samples to codes.

        Args:
            x: [B, C, T] in the model's dtype, T ≥ 1, nominally within -1 to 1.
            bandwidth: kbps, one of ``config.target_bandwidths``; None is the lowest, as in ``transformers``.
            padding_mask: [B, T] or [B, 1 or C, T]; where false, samples count as zero.

        Raises:
            ConfigError: the bandwidth is not one of the model's.
            StreamError: the shape does not fit the model.
        """
        num_codebooks = self.config.num_codebooks_for(bandwidth)
        if x.dim() != 3 or x.shape[1] != self.config.audio_channels or x.shape[2] == 0:
            channels = self.config.audio_channels
            raise StreamError(f"encode takes [B, {channels}, T] samples with T ≥ 1, got {list(x.shape)}")
        if not torch.compiler.is_compiling():  # a traced graph cannot branch on values
            check_tensor_amplitude(x)
        if padding_mask is not None:
            x = x * padding_mask.reshape(x.shape[0], -1, x.shape[-1]).bool()

        length = self.config.chunk_length or x.shape[-1]
        stride = self.config.chunk_stride or x.shape[-1]
        codes, scales = [], []
        for offset in range(0, x.shape[-1], stride):
            segment_codes, scale = self.encode_segment(x[..., offset : offset + length], num_codebooks)
            codes.append(segment_codes)
            scales.append(scale)
        frames = tuple(segment.shape[-1] for segment in codes)
        # transformers fills up the last segment alone, and fails where the one before it is short as well.
        filled = [F.pad(c, (0, frames[0] - n)) for c, n in zip(codes, frames, strict=True)]
        return Encoded(torch.stack(filled), scales, frames)

    def decode(
        self,
        codes: Tensor | Encoded,
        scales: Sequence[Tensor | None] | None = None,
        padding_mask: Tensor | None = None,
        last_frame_pad_length: int = 0,
    ) -> Tensor:
        """Codes to samples [B, C, T].

        Args:
            codes: what ``encode`` gave, or int64 [segments, B, K, F], or [B, K, F] for a single segment.
            scales: one a segment, where the model normalises.
            padding_mask: the result is cut to its last axis' length.
            last_frame_pad_length: frames at the end of the last segment that are only filling.

        Raises:
            StreamError: codes out of range or of a shape that does not fit; scales missing.
        """
        frames: tuple[int, ...] = ()
        if isinstance(codes, Encoded):
            codes, scales, frames = codes
        if codes.dim() == 3:
            codes = codes[None]
        check_codes(codes, self.config)
        if scales is None:
            scales = [None] * len(codes)
        if len(scales) != len(codes) or (self.config.normalize and any(s is None for s in scales)):
            raise StreamError(f"decode needs one scale for each of the {len(codes)} segments: pass encode's scales")
        if self.config.chunk_length is None and len(codes) != 1:
            raise StreamError(f"this model takes one segment, got {len(codes)}: decode them one by one")

        if not frames:
            longest = codes.shape[-1]
            frames = (longest,) * (len(codes) - 1) + (longest - last_frame_pad_length,)
        segments = [self.decode_segment(c[..., :n], s) for c, n, s in zip(codes, frames, scales, strict=True)]
        values = overlap_add(segments, self.config.chunk_stride or 1)
        if padding_mask is not None:
            values = values[..., : padding_mask.shape[-1]]
        return values

    def forward(self, x: Tensor, bandwidth: float | None = None, padding_mask: Tensor | None = None) -> EncodecOutput:
        """Encode and decode; the samples are cut to the input's length. Shapes as in ``encode`` and ``decode``."""
        encoded = self.encode(x, bandwidth, padding_mask)
        return EncodecOutput(encoded.audio_codes, self.decode(encoded)[..., : x.shape[-1]])

    def encode_segment(self, x: Tensor, num_codebooks: int) -> tuple[Tensor, Tensor | None]:
        """One segment [B, C, n] → codes [B, K, ceil(n / hop)] and its scale [B, 1] (None if not ``normalize``)."""
        scale = None
        if self.config.normalize:
            scale = segment_scale(x)
            x = x / scale[..., None]
        return self.quantizer.encode(self.encoder(x), num_codebooks), scale

    def decode_segment(self, codes: Tensor, scale: Tensor | None) -> Tensor:
        """One segment's codes [B, K, F] → samples [B, C, F * hop]."""
        y: Tensor = self.decoder(self.quantizer.decode(codes))
        return y if scale is None else y * scale[..., None]

    # -- files ----------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name: str | Path) -> EncodecModel:
        """Load weights: a folder in Hugging Face layout, an original ``.th`` file, a bundled name, or a hub id.

        Raises:
            CheckpointError: nothing there, no network, or a file that does not fit; the message says what to do.
        """
        from streaming_encodec.model.pretrained import load_pretrained

        return load_pretrained(name)

    def save_pretrained(
        self, folder: str | Path, dtype: torch.dtype | None = None, training_buffers: bool = True
    ) -> None:
        """Write ``config.json`` and ``model.safetensors`` so that ``transformers`` loads them too.

        ``dtype`` is that of the file (``torch.float16`` halves it); None keeps the model's. Without
        ``training_buffers`` the file leaves out tables of zeros that only training would fill.

        Raises:
            CheckpointError: a weight is not finite in that dtype, or the folder cannot be written.
        """
        from streaming_encodec.model.checkpoint import save_folder

        save_folder(self, folder, dtype, training_buffers)

    # -- random weights -------------------------------------------------------------------------------------

    @torch.no_grad()
    def _init_codebooks(self) -> None:
        # Spread like a residual that shrinks from codebook to codebook, so that untrained codes use their range.
        for k, codebook in enumerate(self.quantizer.codebooks):
            if codebook.embed.is_meta:
                return  # a checkpoint's values are about to come, and torch would import its compiler for this
            codebook.embed.normal_(std=0.1 * 0.8**k)
