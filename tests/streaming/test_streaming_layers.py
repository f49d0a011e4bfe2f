"""Every layer keeps the contract, also in shapes that EnCodec itself never uses."""

from __future__ import annotations

import torch
from contract import verify_layer
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import small_config, streaming_configs

from streaming_encodec.model.architecture import encoder_timing
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.conv import StreamableConv1d, StreamableConvTranspose1d, pad1d
from streaming_encodec.model.layers import Elu, ResidualLstm, ResnetBlock
from streaming_encodec.model.seanet import SeanetDecoder, SeanetEncoder


def _randomise(layer: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    layer.double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) * 0.3)
    return layer


def _noise(channels: int, length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, length, generator=generator, dtype=torch.float64)


@settings(max_examples=200)
@given(data=st.data())
def test_conv_equals_offline(data: st.DataObject) -> None:
    config = data.draw(streaming_configs())
    stride = data.draw(st.integers(1, 6))
    dilation = data.draw(st.integers(1, 4)) if stride == 1 else 1
    # EnCodec has kernel = 2 * stride; any kernel that covers the stride must do
    kernel = data.draw(st.integers(max(1, (stride - 1) // dilation + 1), 3 * stride + 4))
    layer = _randomise(StreamableConv1d(config, 3, 2, kernel, stride, dilation), kernel)
    x = _noise(3, data.draw(st.integers(1, 80)), kernel)
    verify_layer(layer, x, stride * data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)))


@settings(max_examples=100)
@given(data=st.data())
def test_conv_transpose_equals_offline(data: st.DataObject) -> None:
    config = data.draw(streaming_configs())
    stride = data.draw(st.integers(1, 6))
    kernel = data.draw(st.integers(stride, 4 * stride))
    layer = _randomise(StreamableConvTranspose1d(config, 3, 2, kernel, stride), kernel)
    x = _noise(3, data.draw(st.integers(1, 20)), kernel)
    verify_layer(layer, x, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)))


@settings(max_examples=60)
@given(config=streaming_configs(), length=st.integers(1, 60), step=st.integers(1, 4), dilation=st.integers(1, 4))
def test_other_layers_equal_offline(config: EncodecConfig, length: int, step: int, dilation: int) -> None:
    x = _noise(4, length, length)
    verify_layer(Elu(), x, step, 2)
    verify_layer(_randomise(ResidualLstm(4, 2), length), x, step, 2)
    verify_layer(_randomise(ResnetBlock(config, 4, dilation), length), x, step, 2)


@settings(max_examples=60)
@given(config=streaming_configs(), frames=st.integers(1, 30), extra=st.integers(0, 500), step=st.integers(1, 3))
def test_stacks_equal_offline(config: EncodecConfig, frames: int, extra: int, step: int) -> None:
    hop = config.hop_length
    encoder = _randomise(SeanetEncoder(config), frames)
    verify_layer(encoder, _noise(config.audio_channels, frames * hop + extra % hop, 1), step * hop, 2)
    decoder = _randomise(SeanetDecoder(config), frames)
    verify_layer(decoder, _noise(config.hidden_size, frames, 2), step, 2)


def test_step_of_one_latent_frame_is_shorter_than_the_history_it_needs() -> None:
    """The k=7 convolution at the latent rate sees one input a step and six of history."""
    layer = StreamableConv1d(small_config(), 1, 1, 7)
    assert layer.history_length == 6
    verify_layer(_randomise(layer, 0), _noise(1, 30, 0), 1, 3)


def test_pad1d_reflects_inputs_shorter_than_the_padding() -> None:
    x = torch.tensor([[[1.0, 2.0]]])
    # zeros are put behind the input, reflected with it, and their length is cut off again
    assert pad1d(x, 3, 0, "reflect").tolist() == [[[0.0, 0.0, 2.0, 1.0, 2.0]]]
    assert pad1d(x, 1, 1, "reflect").tolist() == [[[2.0, 1.0, 2.0, 1.0]]]


def test_lookahead_is_that_of_the_receptive_field() -> None:
    """Half of each layer's padding, in samples at the input: 32 kHz-like ratios and kernels."""
    config = small_config(
        upsampling_ratios=(8, 5, 4, 4), use_causal_conv=False, num_residual_layers=1, dilation_growth_rate=2
    )
    # first conv 3; per stage residual 1 and downsampling ratio // 2, at 1, 4, 16, 80 samples; last conv 3 at 640
    wanted = 3 + (1 + 2) + (1 + 2) * 4 + (1 + 2) * 16 + (1 + 4) * 80 + 3 * 640
    assert encoder_timing(config).lookahead_inputs == wanted
    assert encoder_timing(small_config()).lookahead_inputs == 0
