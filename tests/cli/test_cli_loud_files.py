"""Float files that hold what is no sound: one line that names the file and the sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_kit import Run

WRONG = {
    "nan": (np.nan, "is not a finite number"),
    "infinity": (-np.inf, "is not a finite number"),
    "enormous": (1e38, "is 1e+38, beyond 100 (full scale is 1.0)"),
    "float64": (1e300, "is not a finite number"),  # as float32, which libsndfile hands over
    "integers": (-32768.0, "is -3.28e+04, beyond 100"),
}


@pytest.mark.parametrize("rate", [24_000, 44_100])
@pytest.mark.parametrize("case", WRONG)
def test_a_file_with_one_such_sample(case: str, rate: int, run: Run, mono_model: Path, tmp_path: Path) -> None:
    value, says = WRONG[case]
    sound = np.zeros((70_000, 2))
    sound[66_666, 1] = value
    folder = tmp_path / "in"
    folder.mkdir()
    file, out = folder / "bad.wav", tmp_path / "out.wav"
    soundfile.write(file, sound, rate, subtype="DOUBLE" if case == "float64" else "FLOAT")
    says = f"{file}: sample 66666 {says}"
    run("stream", file, out, "--model", mono_model).fails_with(says)
    run("encode", file, tmp_path / "out.ecdc", "--model", mono_model).fails_with(says)
    corpus = run("corpus", folder, tmp_path / "out", "--model", mono_model, "--jobs", 1)
    assert (corpus.code, says in " ".join(corpus.err.split())) == (1, True)
    run("evaluate", folder, "--model", mono_model, "--out", tmp_path / "e", "--metrics", "log_mel_db").fails_with(says)
    assert not out.exists()


def test_the_loudest_sound_rings_beyond_the_bound_and_goes_through(run: Run, mono_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "loud.wav"
    square = np.where(np.arange(30_000) % 37 < 18, 100.0, -100.0)
    soundfile.write(file, square, 44_100, subtype="FLOAT")
    assert run("stream", file, tmp_path / "out.wav", "--model", mono_model).code == 0


def test_a_training_recording_with_such_a_sample_is_left_out(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good = 0.1 * np.sin(np.arange(48_000) / 10)
    soundfile.write(folder / "good.wav", good, 24_000)
    for name, value in (("nan", np.nan), ("loud", 1e38)):
        soundfile.write(folder / f"{name}.wav", np.r_[good, value], 24_000, subtype="FLOAT")
    built = run("train", "--build-data", "--only-folders", "--folder", folder, "--data", tmp_path / "data")
    assert built.code == 0
    said = " ".join(built.err.split())
    assert "nan.wav: sample 48000 is not a finite number" in said
    assert "loud.wav: sample 48000 is 1e+38, beyond 100" in said
    assert len((tmp_path / "data" / "manifest.jsonl").read_text().splitlines()) == 1
