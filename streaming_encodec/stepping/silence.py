"""What silence leaves behind in a model: the start of a live stream, without a start delay.

A live stream starts as if a fixed number of zero frames had gone before it. Encoding those gives the encoder's state
and the silence's codes; decoding these codes gives the decoder's state, one for each number of codebooks. Computed
once for a model and copied into every stream: by the layers, or by an engine whose bits are its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from streaming_encodec.model.architecture import decoder_timing, encoder_timing
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.stepping.half import Half, HalfState, decoder_half, encoder_half
from streaming_encodec.stepping.tree import map_arrays
from streaming_encodec.types import AnyArray

# About a second: long enough for the LSTM to settle, and for the codes to repeat.
SILENCE_FRAMES = 64


@dataclass
class _Silence:
    codes: AnyArray  # [1, num_quantizers, frames]
    encoder: HalfState  # with the layers' own state, as the decoders'
    weights: tuple[object, ...]  # what it was computed from
    decoders: dict[int, HalfState] = field(default_factory=dict)  # by number of codebooks


# A memo, not a setting: an entry goes with its model or engine, and a model whose weights changed gets a new one.
_known: WeakKeyDictionary[object, _Silence] = WeakKeyDictionary()


def silence_frames(config: EncodecConfig) -> int:
    """Zero frames that a silence start assumes: ``SILENCE_FRAMES``, or more where the model needs more to start."""
    needed = -(-encoder_timing(config).start_inputs // config.hop_length)
    return max(SILENCE_FRAMES, needed, decoder_timing(config).start_inputs)


def silence_codes(engine: Engine, num_codebooks: int) -> AnyArray:
    """The codes [1, K, silence_frames] of the silence before an engine's streams."""
    return _silence(engine.reference).codes[:, :num_codebooks]


def encoder_after_silence(engine: Engine, half: Half, batch: int) -> HalfState:
    """The encoder's state after the silence, for ``batch`` streams."""
    return _fork(_silence(engine.reference).encoder, half, batch)


def decoder_after_silence(engine: Engine, half: Half, batch: int, num_codebooks: int) -> HalfState:
    """The decoder's state after the silence's codes with ``num_codebooks`` codebooks, for ``batch`` streams."""
    reference = engine.reference
    silence = _silence(reference)
    if num_codebooks not in silence.decoders:
        own = decoder_half(reference)
        latent = reference.quantizer.decode(silence.codes[:, :num_codebooks])
        silence.decoders[num_codebooks] = _in_layers(own, own.after(latent))
    return _fork(silence.decoders[num_codebooks], half, batch)


def _fork(state: HalfState, half: Half, batch: int) -> HalfState:
    def rows(x: AnyArray) -> AnyArray:
        return half.arrays.repeat(half.arrays.floats(x), batch)

    return replace(state, pending=rows(state.pending), layers=half.stepper.enter(map_arrays(rows, state.layers)))


def _in_layers(half: Half, state: HalfState) -> HalfState:
    return replace(state, layers=half.stepper.leave(state.layers))


def _silence(engine: Engine) -> _Silence:
    owner, weights = engine.weights_now
    known = _known.get(owner)
    if known is None or known.weights != weights:
        config, half = engine.config, encoder_half(engine)
        zeros = engine.arrays.zeros(1, config.audio_channels, silence_frames(config) * config.hop_length)
        codes = engine.quantizer.encode(half.stepper.whole(zeros), config.num_quantizers)
        known = _known[owner] = _Silence(codes, _in_layers(half, half.after(zeros)), weights)
    return known
