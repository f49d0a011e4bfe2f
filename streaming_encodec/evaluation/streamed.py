"""The codec under test: clips through the streaming path, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.types import Pcm

T = TypeVar("T")

BLOCK_SAMPLES = 480
"""Length of the encoder's input blocks: 20 ms, not a multiple of the frame, so that every alignment occurs."""

FRAMES_PER_STEP = 4
"""Frames in one step: cheaper than single ones, and equal to them up to rounding (other tests check the
streaming laws)."""


GROUP_SECONDS = 600.0
"""Seconds of sound in one batch, padded to the longest clip: bounds the memory."""


@dataclass(frozen=True)
class CodedClips:
    """Codes [B, K, F] of a batch of clips, and the number of frames of each row."""

    codes: Tensor
    frames: tuple[int, ...]
    lengths: tuple[int, ...]
    kbps: float


@dataclass(frozen=True)
class CodedSet:
    """Clips of any lengths, coded in groups of similar length; ``groups`` holds their indices."""

    groups: tuple[tuple[int, ...], ...]
    coded: tuple[CodedClips, ...]

    @property
    def frames(self) -> list[int]:
        """The frames of each clip, in the clips' order."""
        return [frames for _, frames in sorted(self._each(coded.frames for coded in self.coded))]

    @property
    def kbps(self) -> float:
        return self.coded[0].kbps

    def decode(self, model: EncodecModel) -> list[Pcm]:
        """All clips as `decode_clips` gives them, in their order."""
        sounds = (decode_clips(model, coded) for coded in self.coded)
        found = dict(self._each(sounds))
        return [found[place] for place in range(len(found))]

    def _each(self, values: Iterable[Sequence[T]]) -> Iterator[tuple[int, T]]:
        for group, of_group in zip(self.groups, values, strict=True):
            yield from zip(group, of_group, strict=True)


def like_lengths(clips: Sequence[Clip], seconds: float = GROUP_SECONDS) -> tuple[tuple[int, ...], ...]:
    """Indices of clips, longest first, in groups of at most ``seconds`` when padded, or of a single clip."""
    groups: list[list[int]] = []
    for place in sorted(range(len(clips)), key=lambda place: -len(clips[place].samples)):
        last = groups[-1] if groups else []
        if last and (len(last) + 1) * clips[last[0]].seconds <= seconds:
            last.append(place)
        else:
            groups.append([place])
    return tuple(tuple(group) for group in groups)


def encode_set(
    model: EncodecModel, clips: Sequence[Clip], bandwidth: float, block_samples: int = BLOCK_SAMPLES
) -> CodedSet:
    """Encode clips of any lengths, see `encode_clips`."""
    groups = like_lengths(clips)
    coded = (encode_clips(model, [clips[place] for place in group], bandwidth, block_samples) for group in groups)
    return CodedSet(groups, tuple(coded))


def encode_clips(
    model: EncodecModel,
    clips: Sequence[Clip],
    bandwidth: float,
    block_samples: int = BLOCK_SAMPLES,
) -> CodedClips:
    """Encode clips as the rows of one batch, in blocks of ``block_samples``.

    Raises:
        StreamError: the model cannot stream by samples.
    """
    config = model.config
    lengths = tuple(len(clip.samples) for clip in clips)
    frames = tuple(-(-length // config.hop_length) for length in lengths)
    batch = torch.zeros(len(clips), config.audio_channels, max(frames) * config.hop_length)
    for row, clip in enumerate(clips):
        batch[row, :, : lengths[row]] = torch.from_numpy(clip.samples)
    encoder = StreamingEncoder(model, bandwidth=bandwidth, batch_size=len(clips), frames_per_step=FRAMES_PER_STEP)
    dtype = next(model.parameters()).dtype
    pieces = [torch.as_tensor(encoder.push(block)) for block in torch.split(batch.to(dtype), block_samples, dim=-1)]
    codes = torch.cat([*pieces, torch.as_tensor(encoder.flush())], dim=-1)
    kbps = codes.shape[1] * config.bits_per_codebook * config.sampling_rate / config.hop_length / 1000
    return CodedClips(codes, frames, lengths, kbps)


@torch.no_grad()
def decode_clips(model: EncodecModel, coded: CodedClips) -> list[Pcm]:
    """Decode frame by frame. Returns [T] each."""
    decoder = StreamingDecoder(model, batch_size=len(coded.frames), frames_per_step=FRAMES_PER_STEP)
    latent = model.quantizer.decode(coded.codes)  # [B, D, F]
    num_codebooks = coded.codes.shape[1]
    pieces = [decoder.push_latent(frame, num_codebooks) for frame in torch.split(latent, 1, dim=-1)]
    pcm = torch.cat([*pieces, torch.as_tensor(decoder.flush())], dim=-1)  # [B, C, T]
    mono = pcm.mean(dim=1).float().numpy()
    return [mono[row, :length].copy() for row, length in enumerate(coded.lengths)]
