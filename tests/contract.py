"""What every layer, every half and every model must keep; one place, called for all of them.

The oracle is always the offline face: ``forward`` over the whole input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.streaming.stream import silence_codes

TOLERANCE = 1e-9  # float64, relative to the signal


def assert_close(got: Tensor, wanted: Tensor, what: str) -> None:
    """Same shape, and equal to ``TOLERANCE`` of the larger of 1 and the peak."""
    assert got.shape == wanted.shape, f"{what}: shape {list(got.shape)}, offline {list(wanted.shape)}"
    if wanted.numel():
        error = float((got - wanted).abs().max())
        assert error <= TOLERANCE * max(1.0, float(wanted.abs().max())), f"{what}: off by {error}"


@torch.no_grad()
def verify_layer(layer: Any, x: Tensor, step: int, split: int) -> None:
    """``start`` + ``step``s of ``step`` inputs + ``flush`` == ``forward``, and state is a value.

    ``x`` [B, C, T] float64. ``split``: at which step the state is kept and the rest run twice from it. ``step`` must be
    a multiple of the layer's stride.
    """
    total = x.shape[-1]
    begin = next((n for n in range(1, total + 1) if layer.start_outputs(n) is not None), None)
    if begin is None:
        return
    y, state = layer.start(x[..., :begin])
    assert y.shape[-1] == layer.start_outputs(begin), "start_outputs must foretell what start gives"
    outputs, kept = [y], None
    position = begin
    while position + step <= total:
        if len(outputs) == split:
            kept = (position, state, _copy(state), len(outputs))
        y, state = layer.step(x[..., position : position + step], state)
        position += step
        outputs.append(y)
    tail = layer.flush(x[..., position:], state)
    assert_close(torch.cat([*outputs, tail], dim=-1), layer(x), type(layer).__name__)

    if kept is not None:
        position, state, before, count = kept
        assert _equal(state, before), "a step changed the state that it was given"
        again = []
        while position + step <= total:
            y, state = layer.step(x[..., position : position + step], state)
            position += step
            again.append(y)
        for one, other in zip(again, outputs[count:], strict=True):
            assert torch.equal(one, other), "a state gave another output the second time"


@torch.no_grad()
def offline_codes(model: EncodecModel, x: Tensor, bandwidth: float, start: str) -> Tensor:
    """The codes that laws 2 and 3 ask for."""
    if start == "exact":
        return model.encode(x, bandwidth=bandwidth).audio_codes[0]
    frames = StreamingEncoder(model, bandwidth, engine="eager").silence_frames
    silence = x.new_zeros(*x.shape[:2], frames * model.config.hop_length)
    return model.encode(torch.cat((silence, x), dim=-1), bandwidth=bandwidth).audio_codes[0][..., frames:]


@torch.no_grad()
def offline_sound(model: EncodecModel, codes: Tensor, start: str) -> Tensor:
    """The sound that laws 2 and 3 ask for."""
    if start == "exact":
        return model.decode(codes).audio_values
    silence = silence_codes(model, codes.shape[1], "eager").expand(codes.shape[0], -1, -1)
    return model.decode(torch.cat((silence, codes), dim=-1)).audio_values[
        ..., silence.shape[-1] * model.config.hop_length :
    ]


def run(stream: StreamingEncoder | StreamingDecoder, x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Push ``x`` in blocks of these sizes, flush, join."""
    pieces = [stream.push(block) for block in x.split(list(sizes), dim=-1)]
    return torch.cat([*pieces, stream.flush()], dim=-1)


def verify_codec(
    model: EncodecModel,
    x: Tensor,
    bandwidth: float,
    start: str,
    frames_per_step: int,
    sizes: Sequence[int],
    code_sizes: Sequence[int] | None = None,
) -> Tensor:
    """Laws 2 and 3 for encoder and decoder, float64; returns the codes."""
    batch = x.shape[0]
    encoder = StreamingEncoder(model, bandwidth, start, batch, frames_per_step, "eager")
    codes = run(encoder, x, sizes)
    wanted = offline_codes(model, x, bandwidth, start)
    assert codes.shape == wanted.shape, f"codes {list(codes.shape)}, offline {list(wanted.shape)}"
    assert torch.equal(codes, wanted), "codes differ from the offline model's"

    decoder = StreamingDecoder(model, start, batch, frames_per_step, "eager")
    sound = run(decoder, codes, code_sizes or [1] * codes.shape[-1])
    assert_close(sound, offline_sound(model, codes, start), "sound")
    return codes


def _copy(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.clone()
    return tuple(_copy(branch) for branch in tree)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return all(_equal(a, b) for a, b in zip(one, other, strict=True))
