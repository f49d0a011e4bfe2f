"""`train`: what a configuration says counts until an option says otherwise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from cli_kit import Run
from mutations import TEXTS, mutations, refusal

from streaming_encodec.cli.commands import train
from streaming_encodec.errors import ConfigError
from streaming_encodec.training.config import TrainConfig


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The configurations that runs would begin with."""
    configs: list[TrainConfig] = []
    monkeypatch.setattr(train, "_train", configs.append)
    return configs


def _saved(config: TrainConfig, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config.to_json())
    return path


def test_a_configuration_says_where_the_run_goes(
    run: Run, started: list[TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = TrainConfig(data="d", out=str(tmp_path / "mine"), seed=7, minutes=5.0, learning_rate=0.01, threads=2)
    file = _saved(own, tmp_path / "own.json")
    assert run("train", "--config", file).code == 0
    assert started == [own]
    assert run("train", "--config", file, "--out", "other").code == 0
    assert started[1] == dataclasses.replace(own, out="other")
    assert run("train", "--config", file, "--steps", 5, "--seed", 0).code == 0
    assert started[2] == dataclasses.replace(own, steps=5, minutes=None, seed=0)
    assert run("train").code == 0
    assert started[3] == TrainConfig()
    assert not (tmp_path / "runs" / "voice-24khz" / ".streaming-encodec.lock").exists()


def test_a_run_goes_on_in_its_own_folder_wherever_that_is_now(
    run: Run, started: list[TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    moved = TrainConfig(data="elsewhere", out="the/old/place", seed=3)
    _saved(moved, tmp_path / "runs/voice-24khz/config.json")
    _saved(moved, tmp_path / "new/config.json")
    for arguments, out in (([], "runs/voice-24khz"), (["--out", "new"], "new")):
        assert run("train", *arguments).code == 0
        assert started.pop() == dataclasses.replace(moved, out=out)
    assert not (tmp_path / "the").exists()


def test_a_data_set_is_built_where_the_configuration_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built: list[Path] = []
    monkeypatch.setattr(train, "_build", lambda data, *rest: built.append(data))
    file = _saved(TrainConfig(data="its/data"), tmp_path / "own.json")
    for arguments in (["--config", file], [], ["--config", file, "--data", "mine"]):
        assert run("train", "--build-data", *arguments).code == 0
    assert built == [Path("its/data"), Path("data"), Path("mine")]


def test_configurations_out_of_their_mind(tmp_path: Path) -> None:
    """Whatever the file holds, it is taken, or refused with one message that names the file."""
    path = tmp_path / "config.json"
    document = json.loads(TrainConfig(source_weights={"a": 1.0}).to_json())
    refused = 0
    texts = [*TEXTS, *mutations(document, 1500)]
    for text in texts:
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        message = refusal(lambda: TrainConfig.from_json(path).segment_samples, ConfigError)
        refused += message is not None
        assert message is None or str(path) in message
    print(f"\n{refused} of {len(texts)} mutated training configurations refused, the others taken")
    assert refused > 500


def test_a_configuration_that_is_none_is_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text in TEXTS:
        path.write_text(text, encoding="utf-8")
        run("train", "--config", path, "--out", tmp_path / "run").fails_with("is no training configuration")
    assert not (tmp_path / "run").exists()
