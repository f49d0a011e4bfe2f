"""Before there is a quantiser: the weights to start from, the optimiser, and the channel in the quantiser's place."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from streaming_encodec.errors import CheckpointError, ConfigError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.training import muon
from streaming_encodec.training.channel import GaussianChannel
from streaming_encodec.training.config import VOICE_24KHZ, ChannelConfig, QuantizerConfig, TrainConfig
from streaming_encodec.training.initial import initialise
from streaming_encodec.training.loop import TrainingRun
from streaming_encodec.training.muon import Muon, orthogonalised
from streaming_encodec.training.step import CodecTrainer

from .conftest import ZERO_PADDED


@pytest.mark.parametrize(
    "config",
    [VOICE_24KHZ, EncodecConfig(num_filters=8), dataclasses.replace(VOICE_24KHZ, upsampling_ratios=(8, 5, 8))],
    ids=["voice", "published", "large strides"],
)
def test_sound_passes_random_weights_at_its_own_level(config: EncodecConfig) -> None:
    batch = torch.randn(2, config.audio_channels, 9600) * 0.1
    torch.manual_seed(1)
    model = EncodecModel(config)
    initialise(model, batch)
    with torch.no_grad():
        latent = model.encoder(batch)
        output = model.decoder(latent)
    assert float(latent.std()) == pytest.approx(1.0, rel=0.01)
    assert 0.2 < float(output.std() / batch.std()) < 0.8


@pytest.mark.parametrize("low", [None, torch.bfloat16])
def test_a_step_of_a_matrix_is_orthogonal(low: torch.dtype | None) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in [(40, 24), (24, 40), (32, 32)]:
        step = orthogonalised(torch.randn(shape, generator=generator), low)
        assert step.dtype == torch.float32
        sizes = torch.linalg.svdvals(step)
        assert float(sizes.min()) > 0.3
        assert float(sizes.max()) < 1.3


@pytest.mark.usefixtures("any_bfloat16")
@pytest.mark.parametrize(("precision", "low"), [("float32", None), ("bfloat16", torch.bfloat16)])
def test_the_optimiser_computes_in_the_runs_precision(
    precision: str, low: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bfloat16 without instructions for it takes many times as long, also where only the optimiser uses it."""
    seen = set()

    def watched(matrix: torch.Tensor, low: torch.dtype | None = None) -> torch.Tensor:
        seen.add(low)
        return orthogonalised(matrix, low)

    monkeypatch.setattr(muon, "orthogonalised", watched)
    samples = torch.randn(2, 1, 9600, generator=torch.Generator().manual_seed(0)) * 0.1
    few = QuantizerConfig(counts=(2,))
    trainer = CodecTrainer(TrainConfig(model=ZERO_PADDED, quantizer=few, batch_size=2, precision=precision), samples)
    trainer.step(0, samples, 1e-3)
    assert seen == {low}


def test_the_optimiser_takes_every_parameter_once_and_learns() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(4, 32, 3, padding=1), nn.ELU(), nn.ConvTranspose1d(32, 24, 4, 2, 1), nn.Conv1d(24, 1, 1)
    )
    optimizer = Muon([net], 1e-2, (0.8, 0.99), 0.0)
    taken = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for p in net.parameters())
    kinds = {group["kind"]: len(group["params"]) for group in optimizer.param_groups}
    assert kinds == {"matrix": 0, "transposed": 1, "adam": 5} or kinds == {"transposed": 1, "adam": 5}
    x = torch.randn(8, 4, 20)
    wanted = torch.randn(8, 1, 40)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (net(x) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(TypeError, match="closure"):
        optimizer.step(lambda: 0.0)


def latents(count: int = 400, dimension: int = 6) -> torch.Tensor:
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    rows = rng.standard_normal((count, 25, dimension)) * 2.0 ** -np.arange(dimension) @ turn + 3.0
    return torch.from_numpy(rows.transpose(0, 2, 1)).float()


def test_the_channel_loses_what_so_many_bits_must_lose() -> None:
    """The distortion-rate function of a Gaussian source, by reverse water-filling, computed here by hand."""
    latent = latents()
    channel = GaussianChannel(6, ChannelConfig(efficiency=1.0, loudness_exponent=0.0))
    channel.follow(latent)
    generator = torch.Generator().manual_seed(1)
    variances = 4.0 ** -np.arange(6)
    for level in (0.5, 0.1, 0.01):
        bits = sum(max(0.0, 0.5 * math.log2(v / level)) for v in variances)
        assert channel.water_level(bits) == pytest.approx(level, rel=0.05)
        passed = channel(latent, [bits] * len(latent), generator)
        error = float((passed - latent).square().sum(1).mean())
        assert error == pytest.approx(sum(min(v, level) for v in variances), rel=0.06)


def test_more_bits_lose_less_and_quiet_frames_get_less_noise() -> None:
    latent = latents()
    channel = GaussianChannel(6, ChannelConfig())
    channel.follow(latent)
    bits = [20.0] * 200 + [80.0] * 200
    error = (channel(latent, bits, torch.Generator().manual_seed(1)) - latent).square().sum(1)
    assert float(error[:200].mean()) > 4 * float(error[200:].mean())
    power = (latent - latent.mean((0, 2), keepdim=True)).square().sum(1)[200:]
    error = error[200:]
    quiet = power < power.median()
    assert float(error[quiet].mean()) < 0.6 * float(error[~quiet].mean())


def test_the_channel_is_a_value() -> None:
    one, two = (GaussianChannel(6, ChannelConfig()) for _ in range(2))
    for part in latents().split(100):
        one.follow(part)
    two.load_state(one.state())
    latent = latents(4)
    heard = [c(latent, [20.0] * 4, torch.Generator().manual_seed(2)) for c in (one, two)]
    assert torch.equal(heard[0], heard[1])


def test_a_run_begins_with_a_model_that_is_there(tiny_config: TrainConfig, tmp_path: Path) -> None:
    list(TrainingRun(tiny_config).run(until_step=2))
    folder = str(Path(tiny_config.out) / "model")
    again = dataclasses.replace(tiny_config, out=str(tmp_path / "again"), start_model=folder)
    begun = TrainingRun(again).trainer.model.state_dict()
    held = EncodecModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(begun[name], held[name]) for name in held)
    other = dataclasses.replace(again, model=dataclasses.replace(tiny_config.model, num_filters=8))
    with pytest.raises(ConfigError, match="another architecture"):
        TrainingRun(dataclasses.replace(other, out=str(tmp_path / "other")))
    with pytest.raises(CheckpointError):
        TrainingRun(dataclasses.replace(again, out=str(tmp_path / "none"), start_model=str(tmp_path / "nothing")))


def test_a_start_model_gains_residual_layers_that_change_nothing_yet(tiny_config: TrainConfig, tmp_path: Path) -> None:
    run = TrainingRun(tiny_config)
    list(run.run())
    folder = str(Path(tiny_config.out) / "model")
    deeper = dataclasses.replace(tiny_config.model, num_residual_layers=3)
    config = dataclasses.replace(tiny_config, out=str(tmp_path / "deep"), start_model=folder, model=deeper)
    trainer = TrainingRun(config).trainer
    sound = torch.randn(1, 1, 6400, generator=torch.Generator().manual_seed(1)) * 0.1
    with torch.no_grad():
        codes = run.trainer.model.encode(sound).audio_codes
        assert torch.equal(trainer.model.encode(sound).audio_codes, codes)
        assert torch.equal(*(m.decode(codes).audio_values for m in (trainer.model, run.trainer.model)))
    before = {name: value.clone() for name, value in trainer.model.decoder.state_dict().items()}
    list(TrainingRun(config).run(until_step=1))
    after = EncodecModel.from_pretrained(str(tmp_path / "deep" / "model")).decoder.state_dict()
    zero = [name for name, value in before.items() if "weight" in name and not value.any()]
    assert len(zero) == 2 * len(tiny_config.model.upsampling_ratios)
    assert all(after[name].any() for name in zero)


def test_a_budget_by_the_clock_leaves_time_for_the_codebooks(tiny_config: TrainConfig) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 3.0
        return now[0]

    quantizer = dataclasses.replace(tiny_config.quantizer, start_step=None, start_share=0.5)
    config = dataclasses.replace(tiny_config, minutes=1.0, steps=10_000, quantizer=quantizer)
    run = TrainingRun(config, clock)
    rows = list(run.run())
    assert ["commitment" in row for row in rows] == [False] * 10 + [True] * 10
    assert TrainingRun(config).trainer.quantised
    with pytest.raises(ConfigError, match="start_share"):
        dataclasses.replace(config, quantizer=dataclasses.replace(quantizer, start_share=1.0))


def test_with_the_codebooks_the_encoder_stands_still(tiny_config: TrainConfig) -> None:
    assert moved_by_codebooks(tiny_config) == {"decoder"}
    free = dataclasses.replace(
        tiny_config,
        out=tiny_config.out + "2",
        quantizer=dataclasses.replace(tiny_config.quantizer, freeze_encoder=False),
    )
    assert moved_by_codebooks(free) == {"encoder", "decoder", "quantizer"}


def moved_by_codebooks(config: TrainConfig) -> set[str]:
    """The parts of the model that steps with codebooks change."""
    assert config.quantizer.start_step is not None
    run = TrainingRun(config)
    list(run.run(until_step=config.quantizer.start_step + 1))
    before = {name: value.clone() for name, value in run.trainer.model.state_dict().items()}
    list(run.run())
    after = run.trainer.model.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
