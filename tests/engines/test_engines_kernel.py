"""Laws 2 to 6 for ``kernel``; and that its bits depend on nothing but the samples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import Ledger
from contract import offline_codes, offline_sound, run
from engines.stepper_checks import error, same, verify_step
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import lengths, partitions, random_model, random_samples, small_config, streaming_configs

import streaming_encodec as se
from streaming_encodec.engines import make_engine, make_live_engine
from streaming_encodec.engines.kernel.engine import KernelEngine
from streaming_encodec.errors import StreamError
from streaming_encodec.model.architecture import make_parts, zero_state
from streaming_encodec.stepping.half import decoder_half, encoder_half
from streaming_encodec.stepping.tree import named_arrays

SEEDS = st.integers(0, 2**16)

# Of the signal's norm: float32 sums of a few hundred terms in another order, through a dozen layers.
ROUNDING = 2e-5


@settings(max_examples=150)
@given(config=streaming_configs(), seed=SEEDS, batch=st.integers(1, 3), frames=st.integers(1, 3))
def test_the_step_is_the_layers_step(
    config: se.EncodecConfig, seed: int, batch: int, frames: int, ledger: Ledger
) -> None:
    model = random_model(config, seed, torch.float32)
    engine = make_engine("kernel", model)
    x = random_samples(config, batch, 4 * frames * config.hop_length, seed).float()
    latents = torch.randn(batch, config.hidden_size, 4 * frames, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        verify_step(model.encoder, engine, engine.encoder, list(x.chunk(4, dim=-1)), ROUNDING)
        verify_step(model.decoder, engine, engine.decoder, list(latents.chunk(4, dim=-1)), ROUNDING)
    ledger.count("law 6, kernel equals the layers (float32)")


@settings(max_examples=150)
@given(data=st.data(), config=streaming_configs(), seed=SEEDS, batch=st.integers(1, 2))
def test_start_and_flush_are_the_layers(
    data: st.DataObject, config: se.EncodecConfig, seed: int, batch: int, ledger: Ledger
) -> None:
    model = random_model(config, seed, torch.float32)
    engine = make_engine("kernel", model)
    halves = (encoder_half(engine), model.encoder), (decoder_half(engine), model.decoder)
    for half, stack in halves:
        stepper = half.stepper
        generator = torch.Generator().manual_seed(seed)
        owed = data.draw(st.integers(0, half.inputs_per_frame - 1))
        x = torch.randn(batch, half.channels, half.start_inputs + half.step_inputs + owed, generator=generator)
        first, then, last = x.split([half.start_inputs, half.step_inputs, owed], dim=-1)
        with torch.no_grad():
            wanted, layers = stack.start(first)
            got, state = stepper.start(first.numpy())
            assert error(got, wanted) <= ROUNDING
            left = dict(named_arrays(stepper.leave(state), "layers"))
            for name, tensor in named_arrays(layers, "layers"):
                assert error(left[name], tensor) <= ROUNDING, name
            _, layers = stack.step(then, layers)
            _, state = stepper.step(then.numpy(), state)
            assert error(stepper.flush(last.numpy(), state), stack.flush(last, layers)) <= ROUNDING
    ledger.count("law 6, kernel's start and flush equal the layers' (float32)")


@settings(max_examples=150)
@given(
    data=st.data(),
    config=streaming_configs(),
    seed=SEEDS,
    start=st.sampled_from(["silence", "exact"]),
    steps=st.sampled_from([1, 1, 2, 5]),
)
def test_streams_equal_offline_however_they_are_cut(
    data: st.DataObject, config: se.EncodecConfig, seed: int, start: str, steps: int, ledger: Ledger
) -> None:
    model = random_model(config, seed, torch.float32)
    engine = make_engine("kernel", model)
    x = random_samples(config, data.draw(st.sampled_from([1, 1, 3])), data.draw(lengths(config, 20)), seed).float()
    bandwidth = config.target_bandwidths[-1]

    def encoder(steps: int) -> se.StreamingEncoder:
        return se.StreamingEncoder(model, bandwidth, start, len(x), steps, engine)

    def decoder(steps: int) -> se.StreamingDecoder:
        return se.StreamingDecoder(model, start, len(x), steps, engine)

    codes = run(encoder(1), x, [x.shape[-1]])
    assert torch.equal(codes, run(encoder(steps), x, data.draw(partitions(x.shape[-1], config.hop_length))))
    sound = run(decoder(1), codes, [codes.shape[-1]])
    # Stronger than the law asks: nor do the bits depend on how many frames go through at once.
    assert torch.equal(sound, run(decoder(steps), codes, data.draw(partitions(codes.shape[-1], 2))))

    wanted = offline_codes(model, x, bandwidth, start)
    assert codes.shape == wanted.shape
    ledger.agreement("codes, kernel against offline (float32)", *same(codes, wanted))
    assert error(sound, offline_sound(model, codes, start)) <= ROUNDING
    ledger.count("laws 2 and 3, kernel equals offline (float32)")


@settings(max_examples=60)
@given(data=st.data(), config=streaming_configs(), seed=SEEDS, start=st.sampled_from(["silence", "exact"]))
def test_states_go_from_engine_to_engine_and_back(
    data: st.DataObject, config: se.EncodecConfig, seed: int, start: str, ledger: Ledger
) -> None:
    model = random_model(config, seed, torch.float32)
    x = random_samples(config, 1, data.draw(lengths(config, frames=12)), seed).float()
    bandwidth = config.target_bandwidths[-1]
    engines = [make_engine(name, model) for name in ("kernel", "eager", "kernel", "fused")]
    encoders = [se.StreamingEncoder(model, bandwidth, start, engine=engine) for engine in engines]
    decoders = [se.StreamingDecoder(model, start, engine=engine) for engine in engines]
    reference, alone = se.StreamingEncoder(model, bandwidth, start), se.StreamingDecoder(model, start)
    codes, sounds = [], []
    for i, block in enumerate(x.split(data.draw(partitions(x.shape[-1], config.hop_length)), dim=-1)):
        here, there = encoders[i % 4], encoders[(i + 1) % 4]
        codes.append(here.push(block))
        ledger.agreement("codes, kernel and others in turn (float32)", *same(codes[-1], reference.push(block)))
        there.load_state(here.state())
    codes.append(encoders[(i + 1) % 4].flush())
    together = torch.cat(codes, dim=-1)
    for i, block in enumerate(together.split(2, dim=-1)):
        here, there = decoders[i % 4], decoders[(i + 1) % 4]
        sounds.append(here.push(block))
        there.load_state(here.state())
    sounds.append(decoders[(i + 1) % 4].flush())
    wanted = torch.cat([alone.push(together), alone.flush()], dim=-1)
    assert error(torch.cat(sounds, dim=-1), wanted) <= ROUNDING
    ledger.count("law 4, streams go on in the kernel and out of it")


@settings(max_examples=40)
@given(config=streaming_configs(), seed=SEEDS, start=st.sampled_from(["silence", "exact"]))
def test_a_row_of_a_pool_is_a_stream_alone_to_the_last_bit(config: se.EncodecConfig, seed: int, start: str) -> None:
    model = random_model(config, seed, torch.float32)
    engine = make_engine("kernel", model)
    low, _, high = config.target_bandwidths
    voices = [random_samples(config, 1, n * config.hop_length + n, n).float() for n in (3, 9)]
    pool = se.StreamPool(model, 3, bandwidth=low, start=start, engine=engine)
    slots = [pool.open(high), pool.open()]
    shouting = pool.open()
    pieces: dict[int, list[torch.Tensor]] = {slot: [] for slot in (*slots, shouting)}
    for slot, voice in zip(slots, voices, strict=True):
        pool.push(slot, voice)
    # Law 5. A pool refuses such samples; this is for what a state may hold all the same.
    pool._open[shouting].pending = np.full((1, config.audio_channels, 9 * config.hop_length), 3e38, np.float32)
    while pool.ready:
        for slot, codes in pool.tick().items():
            pieces[slot].append(codes)
    for slot, voice, bandwidth in zip(slots, voices, (high, low), strict=True):
        codes = torch.cat([*pieces[slot], pool.flush(slot)], dim=-1)
        alone = se.StreamingEncoder(model, bandwidth, start, engine=engine)
        assert torch.equal(codes, run(alone, voice, [voice.shape[-1]]))
        decoders = se.StreamPool(model, 2, kind="decoder", start=start, engine=engine)
        slot = decoders.open()
        decoders.push(slot, codes)
        sound = []
        while decoders.ready:
            sound.append(decoders.tick()[slot])
        sound.append(decoders.flush(slot))
        decoder = se.StreamingDecoder(model, start, engine=engine)
        assert torch.equal(torch.cat(sound, dim=-1), run(decoder, codes, [codes.shape[-1]]))


@settings(max_examples=40)
@given(data=st.data(), config=streaming_configs(), seed=SEEDS)
def test_arrays_go_round_torch_to_the_same_bits(data: st.DataObject, config: se.EncodecConfig, seed: int) -> None:
    model = random_model(config, seed, torch.float32)
    engine = make_engine("kernel", model)
    x = random_samples(config, 1, data.draw(lengths(config, frames=10)), seed).float()
    encoders = [se.StreamingEncoder(model, None, engine=engine) for _ in range(2)]
    decoders = [se.StreamingDecoder(model, engine=engine) for _ in range(2)]
    for block in x.split(data.draw(partitions(x.shape[-1], config.hop_length)), dim=-1):
        codes, arrays = encoders[0].push(block), encoders[1].push(block[0].numpy())
        assert np.array_equal(codes[0].numpy(), arrays)
        assert np.array_equal(decoders[0].push(codes)[0].numpy(), decoders[1].push(arrays))
    for one, other in (encoders, decoders):
        here, there = one.state(), other.state()
        assert all(torch.equal(tensor, there.tensors[name]) for name, tensor in here.tensors.items())
        assert np.array_equal(one.flush()[0].numpy(), other.flush())


@settings(max_examples=100)
@given(config=streaming_configs())
def test_the_flat_state_is_the_layers_tree_in_order(config: se.EncodecConfig) -> None:
    model = se.EncodecModel(config)
    for part, stack in zip(make_parts(config), (model.encoder, model.decoder), strict=True):
        named = dict(named_arrays(stack.init_state(2), "layers"))
        assert part.state_floats == sum(tensor[0].numel() for tensor in named.values())
        ours = dict(named_arrays(zero_state(part, 2), "layers"))
        assert [(name, array.shape) for name, array in ours.items()] == [(n, tuple(t.shape)) for n, t in named.items()]


def test_a_state_that_is_still_held_is_not_written_to() -> None:
    config = small_config(upsampling_ratios=(4, 3))
    model = random_model(config, 4, torch.float32)
    decoder = se.StreamingDecoder(model, engine="kernel")
    codes = torch.randint(0, 16, (4, 8), generator=torch.Generator().manual_seed(4)).numpy()
    marks, sounds = [decoder.mark()], []
    for frame in range(8):
        sounds.append(decoder.push(codes[:, frame : frame + 1]))
        marks.append(decoder.mark())
    for frame in (3, 1, 7, 1):
        decoder.rewind(marks[frame])
        assert np.array_equal(decoder.push(codes[:, frame : frame + 1]), sounds[frame])


def test_many_streams_share_an_engine_across_threads() -> None:
    config = small_config(upsampling_ratios=(4, 3))
    model = random_model(config, 5, torch.float32)
    engine = make_engine("kernel", model)
    sounds = [random_samples(config, 1, 200 * config.hop_length, seed)[0].float().numpy() for seed in range(8)]

    def go(pcm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        encoder, decoder = se.StreamingEncoder(model, None, engine=engine), se.StreamingDecoder(model, engine=engine)
        codes = [encoder.push(block) for block in np.array_split(pcm, 200, axis=1)]
        return np.concatenate(codes, axis=1), np.concatenate([decoder.push(c) for c in codes], axis=1)

    wanted = [go(pcm) for pcm in sounds]
    with ThreadPoolExecutor(8) as pool:
        for (codes, sound), (wanted_codes, wanted_sound) in zip(pool.map(go, sounds), wanted, strict=True):
            assert np.array_equal(codes, wanted_codes)
            assert np.array_equal(sound, wanted_sound)


def test_the_search_gives_the_layers_codes_and_the_first_of_equals(ledger: Ledger) -> None:
    config = se.EncodecConfig(num_filters=4, hidden_size=32)
    torch.manual_seed(0)
    model = se.EncodecModel(config)
    model.quantizer.codebooks[0].embed[700] = model.quantizer.codebooks[0].embed[3]
    quantizer = make_engine("kernel", model).quantizer
    latent = 0.3 * torch.randn(2, 32, 20)
    latent[0, :, 0] = model.quantizer.codebooks[0].embed[3]
    for num_codebooks in (32, 1, 3, 8):
        codes, wanted = (
            torch.from_numpy(quantizer.encode(latent.numpy(), num_codebooks)),
            model.quantizer.encode(latent, num_codebooks),
        )
        ledger.agreement("codes, kernel's search against the layers", *same(codes, wanted))
        assert float((codes == wanted).float().mean()) > 0.99
        assert np.array_equal(quantizer.decode(wanted.numpy()), model.quantizer.decode(wanted))
    assert codes[0, 0, 0] == 3


@pytest.mark.parametrize("flush", [False, True])
def test_a_threads_way_with_denormals_changes_no_bit(flush: bool) -> None:
    config = small_config(upsampling_ratios=(4, 3), num_lstm_layers=1)
    model = random_model(config, 6, torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1e-3
        model.decoder.layers[0].conv.weight[:, :2] = 1e-39  # a denormal that counts
    engine = make_engine("kernel-fp16", model)
    x = random_samples(config, 1, 60 * config.hop_length, 6)[0].float().numpy()
    x[:, : 20 * config.hop_length] *= 1e-30
    encoder, decoder = se.StreamingEncoder(model, None, engine=engine), se.StreamingDecoder(model, engine=engine)
    wanted = encoder.push(x)
    sound = decoder.push(wanted)
    assert torch.set_flush_denormal(flush)
    encoder.reset()
    decoder.reset()
    assert np.array_equal(encoder.push(x), wanted)
    assert np.array_equal(decoder.push(wanted), sound)
    assert bool(torch.tensor([1e-39]) * 1 == 0) == flush  # the thread's way is as it was


def test_silence_leaves_no_denormals_in_the_state() -> None:
    config = small_config(upsampling_ratios=(4, 3), num_lstm_layers=2)
    model = random_model(config, 7, torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "bias" in name:
                weight.zero_()
    encoder = se.StreamingEncoder(model, None, engine="kernel")
    encoder.push(random_samples(config, 1, 20 * config.hop_length, 7)[0].float().numpy())
    encoder.push(np.zeros((1, 4000 * config.hop_length), np.float32))
    for name, tensor in encoder.state().tensors.items():
        small = (tensor != 0) & (tensor.abs() < 1.2e-38)
        assert not small.any(), name


def test_weights_that_float16_holds_stay_as_they_are_and_others_are_rounded_when_asked() -> None:
    config = small_config(num_filters=16, hidden_size=32, upsampling_ratios=(2, 4))
    model = random_model(config, 8, torch.float32)
    exact, rounded = (KernelEngine(name, model, half) for name, half in (("kernel", False), ("kernel-fp16", True)))
    assert (exact.arithmetic, rounded.arithmetic) == ("kernel-1", "kernel-1-fp16")
    assert rounded.codec.image.nbytes < 0.6 * exact.codec.image.nbytes
    codes = torch.randint(0, 16, (1, 4, 30), generator=torch.Generator().manual_seed(0))
    sounds = [se.StreamingDecoder(model, engine=engine).push(codes) for engine in (exact, rounded)]
    assert 0 < error(sounds[1], sounds[0]) < 0.01
    with torch.no_grad():
        for weight in model.state_dict().values():
            weight.copy_(weight.half())
    exact, asked = (KernelEngine(name, model, half) for name, half in (("kernel", False), ("kernel-fp16", True)))
    assert exact.arithmetic == asked.arithmetic == "kernel-1"
    assert exact.codec.image.nbytes == asked.codec.image.nbytes == rounded.codec.image.nbytes
    same_sound = [se.StreamingDecoder(model, engine=engine).push(codes) for engine in (exact, asked)]
    assert torch.equal(*same_sound)


def test_it_is_what_auto_takes() -> None:
    model = random_model(small_config(), 0, torch.float32)
    assert make_engine("auto", model).name == "kernel"
    assert make_live_engine("auto", model).name == "kernel-fp16"
    with pytest.raises(StreamError, match="float32"):
        make_engine("kernel", model.double())
    assert make_engine("auto", model).name == "fused"
