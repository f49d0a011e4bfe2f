"""The loop: a run in seconds, exact resume, what it writes, and the command."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer import Typer
from typer.testing import CliRunner

from streaming_encodec.cli.commands.train import command
from streaming_encodec.errors import CheckpointError, ConfigError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.training import gradients
from streaming_encodec.training.balancer import LossBalancer
from streaming_encodec.training.config import AugmentConfig, TrainConfig
from streaming_encodec.training.curves import CsvLog, plot_curves, read_rows
from streaming_encodec.training.loop import TrainingRun
from streaming_encodec.training.step import DivergedError

from .conftest import ZERO_PADDED

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
DOCS = Path(__file__).parents[2] / "docs" / "voice-24khz"


def tensors_of(run: TrainingRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.trainer.state().items()}


def with_adversary(config: TrainConfig, start: int = 6) -> TrainConfig:
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, adversarial_start=start))


@pytest.mark.parametrize("stop", [3, 7])
def test_an_interrupted_run_resumes_bit_for_bit(tiny_config: TrainConfig, tmp_path: Path, stop: int) -> None:
    """Stops before, at and after the starts of quantiser, lost frames and discriminator."""
    config = with_adversary(tiny_config)
    whole = TrainingRun(config)
    rows = list(whole.run())
    halves = dataclasses.replace(config, out=str(tmp_path / "halves"))
    first = list(TrainingRun(halves).run(until_step=stop))
    resumed = TrainingRun(halves)
    assert resumed.step == stop
    rest = list(resumed.run())
    expected, got = tensors_of(whole), tensors_of(resumed)
    assert expected.keys() == got.keys()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []
    keep = ("waveform", "mel", "commitment", "grad_norm", "learning_rate")
    assert [[r.get(k) for k in keep] for r in rows] == [[r.get(k) for k in keep] for r in first + rest]
    logs = [read_rows(Path(c.out, "log.csv")) for c in (config, halves)]
    assert [row["step"] for row in logs[1]] == [row["step"] for row in logs[0]] == [str(n) for n in range(1, 13)]


def test_replicas_share_a_step_and_change_nothing_but_the_rounding(tiny_config: TrainConfig, tmp_path: Path) -> None:
    """Of a batch of 3 one takes 2 segments, the other 1; phases as in the tests above."""
    config = with_adversary(dataclasses.replace(tiny_config, model=ZERO_PADDED))
    one = TrainingRun(config)
    rows = list(one.run())
    pair = dataclasses.replace(config, replicas=2, out=str(tmp_path / "pair"))
    got = list(TrainingRun(pair).run())
    for name, tolerance in (("waveform", 1e-5), ("shaped", 1e-5), ("mel", 0.05), ("grad_norm", 0.05)):
        # The linear part of the mel loss is relative to the level of a share, not of the batch.
        assert got[0][name] == pytest.approx(rows[0][name], rel=tolerance), name
    # Later, rounding decides between codes; it stays the same run all the same.
    assert got[-1]["mel"] == pytest.approx(rows[-1]["mel"], rel=0.2)
    again = list(TrainingRun(dataclasses.replace(pair, out=str(tmp_path / "again"))).run())
    assert [row["grad_norm"] for row in again] == [row["grad_norm"] for row in got]


def test_losses_after_models_of_hearing_take_part_where_they_have_a_share(tiny_config: TrainConfig) -> None:
    loss = dataclasses.replace(tiny_config.loss, similarity=1.0)
    rows = list(TrainingRun(dataclasses.replace(tiny_config, loss=loss, steps=4)).run())
    assert all(row["loudness"] > 0 and 0 < row["envelope"] < 2 and 0 < row["similarity"] < 2 for row in rows)
    loss = dataclasses.replace(tiny_config.loss, loudness=0.0, envelope=0.0, similarity=0.0)
    plain = dataclasses.replace(tiny_config, loss=loss, steps=1, out=tiny_config.out + "-plain")
    assert not {"loudness", "envelope", "similarity"} & next(iter(TrainingRun(plain).run())).keys()


def test_a_clip_of_few_codebooks_need_not_follow_the_waveform(
    tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same step with and without ``phase_counts``: rows of 1 and 2 codebooks count a quarter and a half."""
    seen: list[dict[str, torch.Tensor]] = []
    balance = LossBalancer.balance

    def watched(self: LossBalancer, gradients: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append({name: gradient.norm(dim=(1, 2)) for name, gradient in gradients.items()})
        return balance(self, gradients)

    monkeypatch.setattr(LossBalancer, "balance", watched)
    for phase_counts in (1, 4):
        loss = dataclasses.replace(tiny_config.loss, phase_counts=phase_counts, similarity=1.0)
        out = f"{tiny_config.out}-{phase_counts}"
        # Before the channel starts, so that the draw of counts changes nothing else.
        next(iter(TrainingRun(dataclasses.replace(tiny_config, loss=loss, steps=1, batch_size=12, out=out)).run()))
    whole, shared = seen
    ratio = shared["waveform"] / whole["waveform"]
    assert set(ratio.numpy().round(3).tolist()) == {0.25, 0.5, 1.0}
    assert torch.allclose(shared["shaped"] / whole["shaped"], ratio)
    assert torch.allclose(shared["similarity"] / whole["similarity"], ratio)
    assert torch.equal(shared["mel"], whole["mel"])


@pytest.mark.parametrize("device", ["gpu", pytest.param("cuda", marks=NO_CUDA)])
def test_a_device_that_is_not_there_is_said(tiny_config: TrainConfig, device: str) -> None:
    with pytest.raises(ConfigError, match="cpu"):
        TrainingRun(dataclasses.replace(tiny_config, device=device))


def test_segments_too_short_for_a_loss_are_refused(tiny_config: TrainConfig) -> None:
    loss = dataclasses.replace(tiny_config.loss, similarity=1.0)
    with pytest.raises(ConfigError, match=r"0\.08 s"):
        dataclasses.replace(tiny_config, loss=loss, segment_seconds=0.07)


def test_an_unknown_phase_loss_is_refused(tiny_config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="phase_losses must be among waveform"):
        dataclasses.replace(tiny_config, loss=dataclasses.replace(tiny_config.loss, phase_losses=("wave",)))


def test_more_replicas_than_segments_are_refused(tiny_config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="replicas"):
        dataclasses.replace(tiny_config, replicas=4)


def test_a_crash_after_the_last_save_repeats_those_steps_exactly(tiny_config: TrainConfig) -> None:
    run = TrainingRun(tiny_config)  # saves every 4 steps
    steps = run.run()
    rows = list(itertools.islice(steps, 6))
    steps.close()
    resumed = TrainingRun(tiny_config)
    assert resumed.step == 4
    again = list(itertools.islice(resumed.run(), 2))
    assert [r["waveform"] for r in again] == [r["waveform"] for r in rows[4:6]]


def test_a_tiny_run_learns(tiny_config: TrainConfig) -> None:
    plain = AugmentConfig(
        gain_db=(0.0, 0.0), noise_chance=0.0, band_limit_chance=0.0, reverb_chance=0.0, speed_chance=0.0
    )
    config = dataclasses.replace(
        tiny_config,
        steps=60,
        learning_rate=3e-3,
        augment=plain,
        validate_every=1000,
        batch_size=4,
        quantizer=dataclasses.replace(tiny_config.quantizer, start_step=30, counts=(4,), learning_rate_share=1.0),
        lost_frames=dataclasses.replace(tiny_config.lost_frames, chance=0.0),
    )
    rows = list(TrainingRun(config).run())
    mel = [row["mel"] for row in rows]
    assert sum(mel[-10:]) < 0.75 * sum(mel[:10])
    # Neither does the start of the quantiser throw it back, nor do the codebooks collapse (16 codes each).
    assert sum(mel[32:40]) < 1.2 * sum(mel[22:30])
    assert min(row["perplexity_mean"] for row in rows[45:]) > 4


def test_a_run_leaves_curves_samples_and_a_model_that_loads(tiny_config: TrainConfig) -> None:
    run = TrainingRun(tiny_config)
    list(run.run())
    out = Path(tiny_config.out)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (out / "samples" / "0000012").iterdir()) == ["0_2.flac", "0_4.flac"]
    scores = read_rows(out / "validation.csv")
    assert [row["step"] for row in scores] == ["6", "12"]
    assert float(scores[1]["mel_4"]) > 0
    loaded = EncodecModel.from_pretrained(out / "model")
    x = torch.randn(1, 1, 3200) * 0.1
    run.trainer.model.eval()
    with torch.no_grad():
        expected, got = (m.decode(m.encode(x, bandwidth=1.2)).audio_values for m in (run.trainer.model, loaded))
    assert torch.allclose(got, expected, atol=1e-4)


def test_seed_decides_the_run_and_the_global_generator_is_left_alone(tiny_config: TrainConfig, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    losses = []
    for number, seed in enumerate((1, 1, 2)):
        config = dataclasses.replace(tiny_config, seed=seed, steps=4, out=str(tmp_path / str(number)))
        losses.append([row["mel"] for row in TrainingRun(config).run()])
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.rand(1), expected)


def test_minutes_fit_the_learning_rate_to_the_clock(tiny_config: TrainConfig) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 3.0
        return now[0]

    # ``steps`` doesn't count then, be there many or few.
    config = dataclasses.replace(tiny_config, minutes=1.0, steps=5, validate_every=1000)
    rows = list(TrainingRun(config, clock).run())
    assert len(rows) == 20
    assert rows[-1]["elapsed_s"] == 60.0
    assert rows[1]["learning_rate"] > rows[10]["learning_rate"] > 5 * rows[-1]["learning_rate"]


def test_a_gradient_that_is_not_finite_stops_the_run_with_advice(tiny_config: TrainConfig) -> None:
    run = TrainingRun(tiny_config)
    steps = run.run()
    next(steps)
    with torch.no_grad():
        next(iter(run.trainer.model.parameters())).fill_(float("nan"))
    with pytest.raises(DivergedError, match="learning_rate"):
        next(steps)


def test_a_folder_of_another_run_is_not_overwritten(tiny_config: TrainConfig) -> None:
    list(TrainingRun(tiny_config).run(until_step=1))
    other = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, num_filters=8))
    with pytest.raises(ConfigError, match="another architecture"):
        TrainingRun(other)
    (Path(tiny_config.out) / "state.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="state"):
        TrainingRun(tiny_config)


def test_config_survives_json_and_refuses_nonsense(tiny_config: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(tiny_config.to_json())
    assert TrainConfig.from_json(path) == tiny_config
    for field, value in {"steps": 0, "precision": "int4", "minutes": -1.0, "segment_seconds": 0.01}.items():
        with pytest.raises(ConfigError, match=field):
            dataclasses.replace(tiny_config, **{field: value})
    with pytest.raises(ConfigError, match="counts"):
        dataclasses.replace(tiny_config, quantizer=dataclasses.replace(tiny_config.quantizer, counts=(2, 64)))
    path.write_text(json.dumps({"nonsense": 1}))
    with pytest.raises(ConfigError, match="nonsense"):
        TrainConfig.from_json(path)


def test_a_log_of_a_million_steps_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path, ("step", "mel"), 0)
    for step in (999_999, 1_000_000, 1_000_001):
        log.write({"step": float(step), "mel": 0.5})
    CsvLog(path, ("step", "mel"), 1_000_000)
    assert [row["step"] for row in read_rows(path)] == ["999999", "1000000"]
    assert plot_curves(path, tmp_path / "curves.png", [("mel",)])


def test_a_resumed_run_needs_no_model_it_began_with_and_keeps_what_it_was_told(tiny_config: TrainConfig) -> None:
    first = dataclasses.replace(tiny_config, out=tiny_config.out + "-first", steps=4)
    list(TrainingRun(first).run())
    start = str(Path(first.out, "model"))
    config = dataclasses.replace(tiny_config, start_model=start, steps=4)
    list(TrainingRun(config).run(until_step=2))
    shutil.rmtree(first.out)
    longer = dataclasses.replace(config, steps=8)
    assert TrainingRun(longer).step == 2
    assert TrainConfig.from_json(Path(config.out, "config.json")) == longer


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.json")), ids=lambda path: path.stem)
def test_the_configurations_of_the_shipped_model_say_everything(path: Path) -> None:
    """A default of today must not change what a run of earlier was."""
    assert TrainConfig.from_json(path).unsaid(path) == {}


def command_line(*options: str | Path) -> Result:
    app = Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(option) for option in options])


def test_command_goes_on_with_the_runs_own_data_and_tells_of_fields_left_out(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no folder `data` is
    out = tmp_path / "cli"
    path = tmp_path / "config.json"
    path.write_text(tiny_config.to_json())
    assert command_line("--out", out, "--config", path, "--steps", "2").exit_code == 0
    values = json.loads((out / "config.json").read_text())
    assert values["data"] == tiny_config.data
    del values["loss"]["similarity"]
    (out / "config.json").write_text(json.dumps(values))
    result = command_line("--out", out, "--steps", "3")
    assert result.exit_code == 0, result.output
    assert "loss.similarity 5.0" in " ".join(result.output.split())


def test_command_says_when_the_model_has_no_codebooks_yet(tiny_config: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(dataclasses.replace(tiny_config, minutes=0.05).to_json())
    early = command_line("--config", path, "--out", tmp_path / "early", "--steps", "2")
    assert "no codebooks yet" in early.output
    assert "step 2: model" in early.output
    late = command_line("--config", path, "--out", tmp_path / "late", "--steps", "5")
    assert late.exit_code == 0
    assert "no codebooks" not in late.output
    assert command_line("--minutes", "1", "--steps", "5").exit_code == 2


@pytest.mark.usefixtures("any_bfloat16")
@pytest.mark.parametrize(("times", "said"), [(11.2, True), (0.4, False)])
def test_command_says_where_bfloat16_costs_time(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: float, said: bool
) -> None:
    monkeypatch.setattr(gradients, "beside_float32", lambda device, low: times)
    config = tmp_path / "config.json"
    coarse = dataclasses.replace(tiny_config, model=ZERO_PADDED, steps=1, precision="bfloat16")
    config.write_text(coarse.to_json())
    result = command_line("--config", config, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert ("takes 11 times as long as float32 here: leave --precision out" in result.output) == said


def test_command_trains_and_goes_on(tiny_config: TrainConfig, tmp_path: Path) -> None:
    app = Typer()
    app.command()(command)
    path = tmp_path / "config.json"
    path.write_text(tiny_config.to_json())
    options = ["--data", tiny_config.data, "--out", str(tmp_path / "cli")]
    first = CliRunner().invoke(app, [*options, "--config", str(path), "--steps", "3"])
    assert first.exit_code == 0, first.output
    assert "step 3: model in" in first.output
    second = CliRunner().invoke(app, [*options, "--steps", "5"])
    assert second.exit_code == 0, second.output
    assert "resuming at step 3" in second.output
    assert "step 5: model in" in second.output


def test_command_builds_a_data_set_of_a_folder(tiny_data: Path, tmp_path: Path) -> None:
    app = Typer()
    app.command()(command)
    options = [
        "--build-data",
        "--only-folders",
        "--folder",
        str(tiny_data / "a"),
        "--data",
        str(tmp_path / "set"),
    ]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert "4 clips" in result.output
    assert (tmp_path / "set" / "manifest.jsonl").exists()
    assert CliRunner().invoke(app, ["--folder", str(tiny_data)]).exit_code == 2
