"""What silence leaves behind in a model: the start of a live stream, without a start delay.

A live stream starts as if a fixed number of zero frames had gone before it. Encoding those gives the encoder's state
and the silence's codes; decoding these codes gives the decoder's state, one for each number of codebooks. Computed
once for a model and copied into every stream: by the layers, or by an engine that computes streams' starts itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.stepping.half import Half, HalfState, decoder_half, encoder_half
from streaming_encodec.stepping.tree import map_tensors

# About a second: long enough for the LSTM to settle, and for the codes to repeat.
SILENCE_FRAMES = 64


@dataclass
class _Silence:
    codes: Tensor  # [1, num_quantizers, frames]
    encoder: HalfState  # with the layers' own state, as the decoders'
    decoders: dict[int, HalfState] = field(default_factory=dict)  # by number of codebooks
    weights: tuple[object, ...] = ()  # what the rest was computed from


# Memos, not settings: an entry goes with its model or engine, and a model whose weights changed gets a new one.
_of_models: WeakKeyDictionary[EncodecModel, _Silence] = WeakKeyDictionary()
_of_engines: WeakKeyDictionary[Engine, _Silence] = WeakKeyDictionary()


def silence_frames(model: EncodecModel) -> int:
    """Zero frames that a silence start assumes: ``SILENCE_FRAMES``, or more where the model needs more to start."""
    encoder, decoder = encoder_half(model), decoder_half(model)
    needed = -(-encoder.start_inputs // encoder.inputs_per_frame)
    return max(SILENCE_FRAMES, needed, decoder.start_inputs)


def silence_codes(model: EncodecModel, num_codebooks: int) -> Tensor:
    """The codes [1, K, silence_frames] of the silence before a stream."""
    return _silence_of_model(model).codes[:, :num_codebooks].clone()


def encoder_after_silence(engine: Engine, half: Half, batch: int) -> HalfState:
    """The encoder's state after the silence, for ``batch`` streams."""
    return _fork(_silence(engine).encoder, half, batch)


def decoder_after_silence(engine: Engine, half: Half, batch: int, num_codebooks: int) -> HalfState:
    """The decoder's state after the silence's codes with ``num_codebooks`` codebooks, for ``batch`` streams."""
    silence = _silence(engine)
    if num_codebooks not in silence.decoders:
        with torch.no_grad():
            codes, model = silence.codes[:, :num_codebooks], engine.model
            if engine.has_phases:
                own = decoder_half(model, stepper=engine.decoder)
                silence.decoders[num_codebooks] = _in_layers(own, own.after(engine.quantizer.decode(codes)))
            else:
                silence.decoders[num_codebooks] = decoder_half(model).after(model.quantizer.decode(codes))
    return _fork(silence.decoders[num_codebooks], half, batch)


def _fork(state: HalfState, half: Half, batch: int) -> HalfState:
    pending = state.pending.repeat(batch, 1, 1)
    layers = map_tensors(lambda t: t.repeat(batch, *[1] * (t.dim() - 1)), state.layers)
    return replace(state, pending=pending, layers=half.stepper.enter(layers))


def _in_layers(half: Half, state: HalfState) -> HalfState:
    return replace(state, layers=half.stepper.leave(state.layers))


def _changes(weight: Tensor) -> int:
    # A model loaded under `torch.inference_mode()` keeps no count: changed in place, it would go unnoticed.
    return 0 if weight.is_inference() else weight._version


def _silence(engine: Engine) -> _Silence:
    return _silence_of_engine(engine) if engine.has_phases else _silence_of_model(engine.model)


@torch.no_grad()
def _silence_of_model(model: EncodecModel) -> _Silence:
    weights = tuple((t.data_ptr(), t.dtype, _changes(t)) for t in model.state_dict(keep_vars=True).values())
    known = _of_models.get(model)
    if known is None or known.weights != weights:
        zeros = _zeros(model)
        codes = model.quantizer.encode(model.encoder(zeros), model.config.num_quantizers)
        known = _Silence(codes, encoder_half(model).after(zeros), weights=weights)
        _of_models[model] = known
    return known


@torch.no_grad()
def _silence_of_engine(engine: Engine) -> _Silence:
    """By the engine alone: where its bits are the same on every machine, so is the start of its streams."""
    known = _of_engines.get(engine)
    if known is None:
        model, zeros = engine.model, _zeros(engine.model)
        half = encoder_half(model, stepper=engine.encoder)
        latents, state = half.advance(half.begin(1), zeros)
        rest = half.finish(state)
        latent = torch.cat(latents if rest is None else [*latents, rest], dim=-1)
        codes = engine.quantizer.encode(latent, model.config.num_quantizers)
        known = _Silence(codes, _in_layers(half, half.after(zeros)))
        _of_engines[engine] = known
    return known


def _zeros(model: EncodecModel) -> Tensor:
    samples = silence_frames(model) * model.config.hop_length
    return next(model.parameters()).new_zeros(1, model.config.audio_channels, samples)
