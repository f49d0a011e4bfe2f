"""What the tests of the command line share."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from streaming_encodec.cli.app import app
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel

CLIP = Path(str(files("streaming_encodec"))) / "assets" / "speech.flac"


def save_random(folder: Path, **fields: Any) -> Path:
    """A folder with a random model of 4 filters, biases not zero."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"num_filters": 4, "hidden_size": 16, "num_lstm_layers": 1}
    model = EncodecModel(EncodecConfig(**(small | fields)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


class Result:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str, error: BaseException | None) -> None:
        self.code, self.out, self.err, self.error = code, out, err, error

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; nothing else may be there."""
        (line,) = self.out.splitlines()
        value: dict[str, Any] = json.loads(line)
        return value

    def fails_with(self, says: str) -> None:
        """Exit code 1 and one line on stderr that says so, notes apart; nothing on stdout."""
        lines = [line for line in self.err.splitlines() if not line.startswith("note:")]
        assert self.code == 1, (self.out, self.err, self.error)
        assert self.out == ""
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert says in lines[0]


Run = Callable[..., Result]


def noise(path: Path, samples: int, rate: int = 24_000, channels: int = 1) -> Path:
    """A file of noise."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        for start in range(0, samples, 100_000):
            file.write(0.3 * rng.standard_normal((min(100_000, samples - start), channels)))
    return path


@pytest.fixture
def run() -> Run:
    """Run a command line in this process."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Result(result.exit_code, result.stdout, result.stderr, result.exception)

    return run


@pytest.fixture(scope="session")
def mono_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 kHz mono, streams by samples."""
    folder = tmp_path_factory.mktemp("models") / "small-24khz"
    return save_random(folder, target_bandwidths=(1.5, 3.0, 6.0))


@pytest.fixture(scope="session")
def segment_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 kHz stereo, streams by segments, as the published one does."""
    folder = tmp_path_factory.mktemp("models") / "small-48khz"
    return save_random(
        folder,
        target_bandwidths=(3.0, 6.0),
        sampling_rate=48_000,
        audio_channels=2,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        norm_type="time_group_norm",
        use_causal_conv=False,
    )


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.7 seconds of the bundled clip."""
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    sound, rate = soundfile.read(CLIP, stop=40_001)
    soundfile.write(path, sound, rate)
    return path
