"""What silence leaves behind in a model: the start of a live stream, without a start delay.

A live stream starts as if a fixed number of zero frames had gone before it. Encoding those gives the encoder's state
and the silence's codes; decoding these codes gives the decoder's state, one for each number of codebooks. Computed
once for a model and copied into every stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming.half import Half, HalfState, decoder_half, encoder_half
from streaming_encodec.streaming.state import map_tensors

# About a second: long enough for the LSTM to settle, and for the codes to repeat.
SILENCE_FRAMES = 64


@dataclass
class _Silence:
    weights: tuple[object, ...]  # what the rest was computed from
    frames: int
    codes: Tensor  # [1, num_quantizers, frames]
    encoder: HalfState
    decoders: dict[int, HalfState] = field(default_factory=dict)  # by number of codebooks


# A memo, not a setting: an entry goes with its model, and a model whose weights changed gets a new one.
_memo: WeakKeyDictionary[EncodecModel, _Silence] = WeakKeyDictionary()


def silence_frames(model: EncodecModel) -> int:
    """Zero frames that a silence start assumes: ``SILENCE_FRAMES``, or more where the model needs more to start."""
    encoder, decoder = encoder_half(model), decoder_half(model)
    needed = -(-encoder.start_inputs // encoder.inputs_per_frame)
    return max(SILENCE_FRAMES, needed, decoder.start_inputs)


def silence_codes(model: EncodecModel, num_codebooks: int) -> Tensor:
    """The codes [1, K, silence_frames] of the silence before a stream."""
    return _silence(model).codes[:, :num_codebooks].clone()


def encoder_after_silence(model: EncodecModel, half: Half, batch: int) -> HalfState:
    """The encoder's state after the silence, for ``batch`` streams."""
    return _fork(_silence(model).encoder, half, batch)


def decoder_after_silence(model: EncodecModel, half: Half, batch: int, num_codebooks: int) -> HalfState:
    """The decoder's state after the silence's codes with ``num_codebooks`` codebooks, for ``batch`` streams."""
    silence = _silence(model)
    if num_codebooks not in silence.decoders:
        with torch.no_grad():
            latent = model.quantizer.decode(silence.codes[:, :num_codebooks])
            silence.decoders[num_codebooks] = decoder_half(model).after(latent)
    return _fork(silence.decoders[num_codebooks], half, batch)


def _fork(state: HalfState, half: Half, batch: int) -> HalfState:
    pending = state.pending.repeat(batch, 1, 1)
    layers = map_tensors(lambda t: t.repeat(batch, *[1] * (t.dim() - 1)), state.layers)
    return replace(state, pending=pending, layers=half.stepper.enter(layers))


def _changes(weight: Tensor) -> int:
    # A model loaded under `torch.inference_mode()` keeps no count: changed in place, it would go unnoticed.
    return 0 if weight.is_inference() else weight._version


@torch.no_grad()
def _silence(model: EncodecModel) -> _Silence:
    weights = tuple((t.data_ptr(), t.dtype, _changes(t)) for t in model.state_dict(keep_vars=True).values())
    known = _memo.get(model)
    if known is None or known.weights != weights:
        frames = silence_frames(model)
        config = model.config
        parameter = next(model.parameters())
        zeros = parameter.new_zeros(1, config.audio_channels, frames * config.hop_length)
        codes = model.quantizer.encode(model.encoder(zeros), config.num_quantizers)
        known = _Silence(weights, frames, codes, encoder_half(model).after(zeros))
        _memo[model] = known
    return known
