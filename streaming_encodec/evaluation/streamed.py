"""The codec under test: clips through the streaming path, block by block, with or without lost frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streaming_encodec.evaluation.clips import Clip, Samples
from streaming_encodec.evaluation.losses import Lost, conceal
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming import StreamingDecoder, StreamingEncoder

BLOCK_SAMPLES = 480
"""What the encoder is handed at a time: 20 ms, no multiple of the frame, so that every alignment is met."""

FRAMES_PER_STEP = 4
"""Frames that go through the network at once: cheaper than single ones, and equal to them to rounding (the
streaming laws are tests of their own)."""


@dataclass(frozen=True)
class CodedClips:
    """Codes [B, K, F] of clips in step, and how many frames of each row are its own."""

    codes: Tensor
    frames: tuple[int, ...]
    lengths: tuple[int, ...]
    kbps: float


def encode_clips(
    model: EncodecModel,
    clips: Sequence[Clip],
    bandwidth: float,
    block_samples: int = BLOCK_SAMPLES,
) -> CodedClips:
    """Encode clips as streams in step (rows of one batch never meet), each in blocks of ``block_samples``.

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
def decode_clips(model: EncodecModel, coded: CodedClips, lost: Sequence[Lost] | None = None) -> list[Samples]:
    """Decode frame by frame.

    Lost frames, one mask a clip, are concealed as the receiver does. Returns [T] each.
    """
    decoder = StreamingDecoder(model, batch_size=len(coded.frames), frames_per_step=FRAMES_PER_STEP)
    latent = model.quantizer.decode(coded.codes)  # [B, D, F]
    if lost is not None:
        mask = np.zeros((latent.shape[0], latent.shape[2]), np.bool_)
        for row, one in enumerate(lost):
            mask[row, : len(one)] = one
        latent = conceal(latent, mask)
    num_codebooks = coded.codes.shape[1]
    pieces = [decoder.push_latent(frame, num_codebooks) for frame in torch.split(latent, 1, dim=-1)]
    pcm = torch.cat([*pieces, torch.as_tensor(decoder.flush())], dim=-1)  # [B, C, T]
    mono = pcm.mean(dim=1).float().numpy()
    return [mono[row, :length].copy() for row, length in enumerate(coded.lengths)]
