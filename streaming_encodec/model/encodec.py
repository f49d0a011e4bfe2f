"""The offline EnCodec model, on whole inputs. Equal to ``transformers.EncodecModel``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streaming_encodec.errors import StreamError
from streaming_encodec.model.checkpoints.pretrained import is_original
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.model.quantizer import ResidualVectorQuantizer
from streaming_encodec.model.seanet import SeanetDecoder, SeanetEncoder
from streaming_encodec.model.segments import overlap_add, segment_scale
from streaming_encodec.model.size import check_size
from streaming_encodec.model.values import check_tensor_amplitude, checked_codes
from streaming_encodec.model.weights import PlainWeights


class Encoded(NamedTuple):
    """Result of ``encode``, and input of ``decode``. Its first three fields are those of ``transformers``."""

    audio_codes: Tensor  # [segments, B, K, F], int64
    audio_scales: list[Tensor | None]  # per segment [B, 1] where the model normalises, else None
    last_frame_pad_length: int  # frames that only fill up the last segment
    segment_frames: tuple[int, ...]  # frames of each segment that are not mere filling

    def __getitem__(self, key: Any) -> Any:
        """A field, by its place or by its name."""
        return _field(self, key)

    def to_tuple(self) -> tuple[Tensor, list[Tensor | None], int]:
        """The fields that ``transformers`` has."""
        return self.audio_codes, self.audio_scales, self.last_frame_pad_length


class Decoded(NamedTuple):
    """Result of ``decode``."""

    audio_values: Tensor  # [B, C, T]

    def __getitem__(self, key: Any) -> Any:
        """A field, by its place or by its name."""
        return _field(self, key)

    def to_tuple(self) -> tuple[Tensor]:
        """As a plain tuple."""
        return (self.audio_values,)


class EncodecOutput(NamedTuple):
    """Result of ``forward``."""

    audio_codes: Tensor  # [segments, B, K, F], int64
    audio_values: Tensor  # [B, C, T]

    def __getitem__(self, key: Any) -> Any:
        """A field, by its place or by its name."""
        return _field(self, key)

    def to_tuple(self) -> tuple[Tensor, Tensor]:
        """As a plain tuple."""
        return self.audio_codes, self.audio_values


def _field(output: Any, key: Any) -> Any:
    if isinstance(key, str):
        if key not in output._fields:
            raise KeyError(key)
        return getattr(output, key)
    return tuple.__getitem__(output, key)


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

    # -- codec: names, order and shapes of transformers' EncodecModel --------------------------------------

    def encode(
        self, input_values: Tensor, padding_mask: Tensor | None = None, bandwidth: float | None = None
    ) -> Encoded:
        """Samples to codes.

        Args:
            input_values: [B, C, T] in the model's dtype, T ≥ 1, nominally within -1 to 1.
            padding_mask: [B, T] or [B, 1 or C, T]; samples where it is false count as zero.
            bandwidth: kbps, one of ``config.target_bandwidths``; None is the lowest, as in ``transformers``.

        Raises:
            ConfigError: the bandwidth is not one of the model's.
            StreamError: a shape does not fit the model; samples that are not finite or beyond ``MAX_AMPLITUDE``.
        """
        num_codebooks = self.config.num_codebooks_for(bandwidth)
        x = self._masked(self._checked_samples(input_values), padding_mask)
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
        return Encoded(torch.stack(filled), scales, frames[0] - frames[-1], frames)

    def decode(
        self,
        audio_codes: Tensor | Encoded,
        audio_scales: Sequence[Tensor | None] | Tensor | None = None,
        padding_mask: Tensor | None = None,
        *,
        last_frame_pad_length: int = 0,
    ) -> Decoded:
        """Codes to samples [B, C, T].

        Args:
            audio_codes: the result of ``encode``, or integers [segments, B, K, F], or [B, K, F] for one segment.
            audio_scales: one a segment, if the model normalises.
            padding_mask: the result is cut to its last axis' length.
            last_frame_pad_length: padding frames at the end of the last segment.

        Raises:
            StreamError: codes out of range or of a shape that does not fit; scales missing.
        """
        frames: tuple[int, ...] = ()
        if isinstance(audio_codes, Encoded):
            audio_scales, frames = audio_codes.audio_scales, audio_codes.segment_frames
            audio_codes = audio_codes.audio_codes
        codes = checked_codes(audio_codes[None] if audio_codes.dim() == 3 else audio_codes, self.config)
        if self.config.chunk_length is None and len(codes) != 1:
            raise StreamError(f"this model takes one segment, got {len(codes)}: decode them one by one")
        scales = self._checked_scales(audio_scales, codes)
        longest = codes.shape[-1]
        if not 0 <= last_frame_pad_length <= longest:
            raise StreamError(f"last_frame_pad_length must be from 0 to the {longest} frames of a segment")
        if not frames:
            frames = (longest,) * (len(codes) - 1) + (longest - last_frame_pad_length,)
        segments = [self.decode_segment(c[..., :n], s) for c, n, s in zip(codes, frames, scales, strict=True)]
        values = overlap_add(segments, self.config.chunk_stride or 1)
        if padding_mask is not None:
            values = values[..., : padding_mask.shape[-1]]
        return Decoded(values)

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        bandwidth: float | None = None,
        audio_codes: Tensor | None = None,
        audio_scales: Sequence[Tensor | None] | Tensor | None = None,
        *,
        last_frame_pad_length: int = 0,
    ) -> EncodecOutput:
        """Encode (unless ``audio_codes`` are given) and decode; the samples are cut to the input's length.

        Arguments and errors as in ``encode`` and ``decode``.
        """
        if audio_codes is None:
            encoded = self.encode(input_values, padding_mask, bandwidth)
            audio_codes, values = encoded.audio_codes, self.decode(encoded).audio_values
        else:
            values = self.decode(audio_codes, audio_scales, last_frame_pad_length=last_frame_pad_length).audio_values
        return EncodecOutput(audio_codes, values[..., : input_values.shape[-1]])

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
        return y if scale is None else y * scale.reshape(-1, 1, 1)

    def _checked_samples(self, x: object) -> Tensor:
        channels = self.config.audio_channels
        if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise StreamError(f"encode takes a tensor of samples within -1 to 1, got {kind}")
        if x.dim() != 3 or x.shape[1] != channels or x.shape[2] == 0:
            raise StreamError(f"encode takes [B, {channels}, T] samples with T ≥ 1, got {list(x.shape)}")
        dtype = next(self.parameters()).dtype
        if x.dtype != dtype:
            raise StreamError(
                f"encode takes samples in the model's {dtype}, got {x.dtype}: convert them with x.to(dtype)"
            )
        if not torch.compiler.is_compiling():  # a traced graph cannot branch on values
            check_tensor_amplitude(x)
        return x

    def _masked(self, x: Tensor, mask: object) -> Tensor:
        if mask is None:
            return x
        batch, channels, length = x.shape
        shapes = ((batch, length), (batch, 1, length), (batch, channels, length))
        if not isinstance(mask, Tensor):
            hint = (
                f"; the bandwidth is a keyword, encode(x, bandwidth={mask!r})" if isinstance(mask, int | float) else ""
            )
            raise StreamError(f"padding_mask must be a tensor [{batch}, {length}], got {type(mask).__name__}{hint}")
        if tuple(mask.shape) not in shapes:
            raise StreamError(f"padding_mask must be [{batch}, {length}] or as the samples, got {list(mask.shape)}")
        return x * mask.reshape(batch, -1, length).bool()

    def _checked_scales(
        self, scales: Sequence[Tensor | None] | Tensor | None, codes: Tensor
    ) -> Sequence[Tensor | None]:
        given = [None] * len(codes) if scales is None else list(scales)
        fits = len(given) == len(codes) and all(s is None or s.numel() == codes.shape[1] for s in given)
        if not fits or (self.config.normalize and any(s is None for s in given)):
            raise StreamError(f"decode needs one scale for each of the {len(codes)} segments: pass encode's scales")
        return given

    # -- files ----------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name: str | Path) -> EncodecModel:
        """Load weights: a folder in Hugging Face layout, an original ``.th`` file, a bundled name, or a hub id.

        In float32; float64 where the file is.

        Raises:
            CheckpointError: not found, no network, or a file that does not fit; the message says what to do.
        """
        if is_original(name):
            return cls.from_original(name)
        with ModelFolder.from_pretrained(name).weights() as weights:
            return cls.from_weights(weights)

    @classmethod
    def from_original(cls, path: str | Path, config: EncodecConfig | None = None) -> EncodecModel:
        """Load an original ``.th`` file; ``config`` where it is no relative of a published model.

        Raises:
            CheckpointError: the file is missing, damaged, holds more than tensors, or does not fit.
        """
        from streaming_encodec.model.checkpoints.original import read_original

        return cls.from_weights(read_original(path, config))

    @classmethod
    def from_weights(cls, weights: PlainWeights) -> EncodecModel:
        """A model that holds copies of these weights. Raises ``CheckpointError`` for one that is not finite."""
        with torch.device("meta"):  # neither memory nor random numbers for weights that are about to be replaced
            model = cls(weights.config)
        dtype = torch.float64 if weights.is_double else torch.float32
        tensors = {name: torch.from_numpy(weights[name]).to(dtype, copy=True).contiguous() for name in weights}
        model.load_state_dict(tensors, assign=True)
        return model.eval()

    def save_pretrained(
        self, folder: str | Path, dtype: torch.dtype | None = None, training_buffers: bool = True
    ) -> None:
        """Write ``config.json`` and ``model.safetensors`` so that ``transformers`` loads them too.

        ``dtype`` is that of the file (``torch.float16`` halves its size); None keeps the model's. Without
        ``training_buffers`` the file omits tables of zeros that only training would fill.

        Raises:
            CheckpointError: a weight is not finite in that dtype, or the folder cannot be written.
        """
        from streaming_encodec.model.checkpoints.folder import save_folder

        save_folder(self.config, self.state_dict(), folder, dtype, training_buffers)

    # -- random weights -------------------------------------------------------------------------------------

    @torch.no_grad()
    def _init_codebooks(self) -> None:
        # Spread like a residual that shrinks from codebook to codebook, so that untrained codes use their range.
        for k, codebook in enumerate(self.quantizer.codebooks):
            if codebook.embed.is_meta:
                return  # a checkpoint's values are about to come, and torch would import its compiler for this
            codebook.embed.normal_(std=0.1 * 0.8**k)
