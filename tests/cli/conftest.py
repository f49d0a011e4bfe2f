"""Small models on disk, a piece of speech, and a way to run commands."""

from pathlib import Path

import pytest
import soundfile
from cli_kit import CLIP, Result, Run, save_random
from typer.testing import CliRunner

from streaming_encodec.cli.app import app


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


@pytest.fixture
def run() -> Run:
    """Run a command line in this process."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Result(result.exit_code, result.stdout, result.stderr, result.exception)

    return run
