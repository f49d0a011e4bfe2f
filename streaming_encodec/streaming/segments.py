"""Models that need a whole segment at once (48 kHz): streaming by segments, in bounded memory.

Equal to the offline ``encode`` and ``decode``. The delay is honest: nothing leaves before a segment is full.
Needs torch, and imports it with the first object.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

from streaming_encodec.errors import StreamError
from streaming_encodec.model.find import AnyModel, find_model, torch_model
from streaming_encodec.samples import MAX_AMPLITUDE
from streaming_encodec.stepping.arrays import Arrays
from streaming_encodec.stepping.checks import check_count
from streaming_encodec.streaming.io import Form, take_codes, take_samples
from streaming_encodec.types import AnyArray

if TYPE_CHECKING:
    from torch import Tensor

    from streaming_encodec.model.encodec import EncodecModel

P = ParamSpec("P")
R = TypeVar("R")


def _without_gradients(method: Callable[P, R]) -> Callable[P, R]:
    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        import torch

        with torch.no_grad():
            return method(*args, **kwargs)

    return called


class Segment(NamedTuple):
    """The codes of one segment, numpy or torch as the samples were."""

    codes: AnyArray  # int64 [B, K, F], or [K, F] for unbatched numpy
    scale: AnyArray | None  # [B, 1], or [1] for unbatched numpy; None where the model does not normalise


class SegmentEncoder:
    """Samples in, a ``Segment`` out whenever one is full.

    Args:
        model: a model with ``chunk_length_s``.
        bandwidth: kbps, one of the model's; None is the nearest to 6. Set it at any time for the next segment.
        batch_size: streams in step.

    Raises:
        StreamError: the model has no segments. ConfigError: the bandwidth is not one of the model's.
    """

    def __init__(self, model: AnyModel, bandwidth: float | None = None, batch_size: int = 1) -> None:
        self.model = torch_model(find_model(model))
        self._arrays = _arrays_of(self.model)
        self.batch_size = check_count("batch_size", batch_size)
        self.segment_samples, self.stride_samples = segment_shape(self.model)
        self.bandwidth = bandwidth
        self._pending: Tensor  # [B, C, n]
        self._form: Form
        self.reset()

    @_without_gradients
    def push(self, pcm: AnyArray) -> list[Segment]:
        """Take samples as ``StreamingEncoder.push`` does; give the segments that they complete, often none."""
        samples, form = take_samples(pcm, self.batch_size, self.model.config, self._arrays)
        self._form = form
        segments = []
        # Piece by piece, so that a long push needs no second copy of itself.
        for piece in samples.split(self.segment_samples, dim=-1):
            self._pending = self._arrays.join((self._pending, piece))
            while self._pending.shape[-1] >= self.segment_samples:
                segments.append(self._encode(self._pending[..., : self.segment_samples]))
                self._pending = self._pending[..., self.stride_samples :].clone()
        return segments

    @_without_gradients
    def flush(self) -> list[Segment]:
        """End the stream: the segments still owed (none, one, or several where they overlap by half or more)."""
        segments = []
        while self._pending.shape[-1]:
            segments.append(self._encode(self._pending[..., : self.segment_samples]))
            self._pending = self._pending[..., self.stride_samples :]
        self.reset()
        return segments

    def reset(self) -> None:
        """Forget everything heard."""
        self._pending = self._arrays.zeros(self.batch_size, self.model.config.audio_channels, 0)
        self._form = Form(is_numpy=False)

    @property
    def bandwidth(self) -> float:
        """Target bandwidth in kbps."""
        return self._bandwidth

    @bandwidth.setter
    def bandwidth(self, kbps: float | None) -> None:
        self._bandwidth = self.model.config.usual_bandwidth if kbps is None else kbps
        self._num_codebooks = self.model.config.num_codebooks_for(self._bandwidth)

    @property
    def delay_samples(self) -> int:
        """Samples of a segment that must be there before its first one's code comes, beyond that one's frame."""
        return self.segment_samples - self.model.config.hop_length

    def _encode(self, samples: Tensor) -> Segment:
        codes, scale = self.model.encode_segment(samples, self._num_codebooks)
        return Segment(self._form.give(codes), None if scale is None else self._form.give(scale))


class SegmentDecoder:
    """Segments in, samples out as soon as no later segment overlaps them."""

    def __init__(self, model: AnyModel, batch_size: int = 1) -> None:
        self.model = torch_model(find_model(model))
        self._arrays = _arrays_of(self.model)
        self.batch_size = check_count("batch_size", batch_size)
        self.segment_samples, self.stride_samples = segment_shape(self.model)
        self._sum: Tensor  # [B, C, n], weighted samples that later segments may add to
        self._weight_sum: Tensor  # [n]
        self._weights: Tensor | None
        self._form: Form
        self.reset()

    @_without_gradients
    def push(self, segment: Segment) -> AnyArray:
        """Take the next segment, give the samples [B, C, n] (numpy [C, n] for unbatched numpy) before the next one.

        Raises:
            StreamError: codes or scale that do not fit, or a segment after one that was not full.
        """
        config = self.model.config
        codes, form = take_codes(segment.codes, self.batch_size, config, self._arrays)
        full_frames = -(-self.segment_samples // config.hop_length)
        if codes.shape[-1] == 0 or codes.shape[-1] > full_frames:
            raise StreamError(f"a segment holds 1 to {full_frames} frames, got {codes.shape[-1]}")
        scale = self._scale(segment.scale)
        self._form = form

        samples = self.model.decode_segment(codes, scale)
        length = samples.shape[-1]
        if self._weights is None:  # the first segment's length sets the triangle, as offline
            from streaming_encodec.model.segments import fade_weights

            self._weights = fade_weights(length, samples)
        if length > self._weights.shape[-1]:
            raise StreamError("a segment that is longer than the first one: the first segment was not full")
        grow = max(0, length - self._sum.shape[-1])
        batch, channels, _ = self._sum.shape
        self._sum = self._arrays.join((self._sum, self._arrays.zeros(batch, channels, grow)))
        self._weight_sum = self._arrays.join((self._weight_sum, self._arrays.zeros(grow)))
        self._sum[..., :length] += self._weights[:length] * samples
        self._weight_sum[:length] += self._weights[:length]
        return form.give(self._take(min(self.stride_samples, self._sum.shape[-1])))

    @_without_gradients
    def flush(self) -> AnyArray:
        """End the stream: the samples that were held for an overlap."""
        samples, form = self._take(self._sum.shape[-1]), self._form
        self.reset()
        return form.give(samples)

    def reset(self) -> None:
        """Forget everything decoded."""
        self._sum = self._arrays.zeros(self.batch_size, self.model.config.audio_channels, 0)
        self._weight_sum = self._arrays.zeros(0)
        self._weights = None
        self._form = Form(is_numpy=False)

    @property
    def delay_samples(self) -> int:
        """Samples at the end of a segment that wait for the next one."""
        frames = -(-self.segment_samples // self.model.config.hop_length)
        return frames * self.model.config.hop_length - self.stride_samples

    def _scale(self, scale: AnyArray | None) -> Tensor | None:
        if not self.model.config.normalize:
            return None
        if scale is None:
            raise StreamError("this model normalises: a segment needs its scale")
        import torch

        try:
            tensor: Tensor = self._arrays.floats(torch.as_tensor(scale)).reshape(-1, 1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise StreamError(f"a segment's scale must be {self.batch_size} numbers, got {scale!r}") from error
        # A root mean square of samples, so no louder than they may be; a few roundings are forgiven.
        fits = (tensor >= 0) & (tensor <= 1.01 * MAX_AMPLITUDE)
        if tensor.shape[0] != self.batch_size or not bool(fits.all()):
            raise StreamError(
                f"a segment's scale must be {self.batch_size} finite numbers from 0 to {MAX_AMPLITUDE:g}, got {scale!r}"
            )
        return tensor

    def _take(self, n: int) -> Tensor:
        out = self._sum[..., :n] / self._weight_sum[:n]
        self._sum, self._weight_sum = self._sum[..., n:].clone(), self._weight_sum[n:].clone()
        return out


def _arrays_of(model: EncodecModel) -> Arrays:
    from streaming_encodec.stepping.torch_arrays import TorchArrays

    return TorchArrays(next(model.parameters()))


def segment_shape(model: EncodecModel) -> tuple[int, int]:
    """Length and stride of a segment in samples; ``StreamError`` where the model has none."""
    config = model.config
    if config.chunk_length is None or config.chunk_stride is None:
        better = "StreamingEncoder and StreamingDecoder" if config.streams_by_sample else "EncodecModel.encode"
        raise StreamError(f"this model has no segments (chunk_length_s is not set): use {better}")
    return config.chunk_length, config.chunk_stride
