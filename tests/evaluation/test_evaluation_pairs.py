"""The blind test by pairs: blind, fair in level and order, repeatable, and its answers can be counted."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import Result
from evaluation_kit import RATE, run, small_model, write_folder
from typer.testing import CliRunner

from streaming_encodec.cli.app import app
from streaming_encodec.errors import ConfigError, FileFormatError
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.pairs import Comparison, Count, PairTest, count_answers, make_pairs


def tone(hz: float, level: float) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE)).astype(np.float32)


def eight_clips() -> tuple[list[Clip], list[Comparison]]:
    """The original of clip n is n · 100 Hz; one codec makes it an octave higher and soft, the other two and loud."""
    numbers = range(1, 9)
    clips = [Clip(f"secret-{n}.flac", tone(100 * n, 0.2), RATE) for n in numbers]
    soft, loud = ([tone(100 * n * octave, level) for n in numbers] for octave, level in ((2, 0.02), (4, 0.9)))
    return clips, [Comparison("codec-soft", soft, "codec-loud", loud)]


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r"const DATA = (\{.*\});", page)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def sound_of(uri: str) -> np.ndarray:
    assert uri.startswith("data:audio/flac;base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.split(",")[1])), dtype="float32")
    assert rate == RATE
    return np.asarray(samples)


def pitch(sound: np.ndarray) -> int:
    return int(np.abs(np.fft.rfft(sound)).argmax())  # 1 s: a bin is a hertz


def test_the_key_says_what_the_page_plays_and_all_have_one_level() -> None:
    clips, comparisons = eight_clips()
    test = make_pairs(clips, comparisons, seed=3)
    data = data_of(test.page)
    assert data["page"] == test.key["page"]
    assert sorted(pair["clip"] for pair in test.key["pairs"]) == [clip.name for clip in clips]
    for shown, known in zip(data["pairs"], test.key["pairs"], strict=True):
        number = int(known["clip"][7])
        sounds = {role: sound_of(data["sounds"][shown[role]]) for role in ("original", "a", "b")}
        assert pitch(sounds["original"]) == 100 * number
        for side in ("a", "b"):
            assert pitch(sounds[side]) == 100 * number * {"codec-soft": 2, "codec-loud": 4}[known[side]]
            assert np.std(sounds[side]) == pytest.approx(np.std(sounds["original"]), rel=0.01)


def test_the_page_is_blind_and_asks_nothing_of_the_network() -> None:
    page = make_pairs(*eight_clips()).page
    assert "codec-" not in page
    assert "secret-" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|<link|<img|src=", page)


def test_order_is_random_and_a_seed_repeats_it() -> None:
    first, again, other = (make_pairs(*eight_clips(), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.key["page"] != other.key["page"]
    sides = Counter(pair["a"] for seed in range(10) for pair in make_pairs(*eight_clips(), seed=seed).key["pairs"])
    assert min(sides["codec-soft"], sides["codec-loud"]) > 20, "of 80 either is A about half of the time"
    clips = [pair["clip"] for pair in first.key["pairs"]]
    assert clips != sorted(clips)


def test_sounds_above_full_scale_are_lowered_together() -> None:
    clip = Clip("loud", tone(100, 0.95), RATE)
    spiky = np.where(np.arange(RATE) % 100 == 0, 1.0, 0.0).astype(np.float32)
    data = data_of(make_pairs([clip], [Comparison("x", [spiky], "y", [clip.samples])]).page)
    sounds = [sound_of(data["sounds"][name]) for name in data["pairs"][0].values()]
    assert max(np.abs(sound).max() for sound in sounds) <= 1.0
    assert np.ptp([np.std(sound) for sound in sounds]) < 0.01


def answers(test: PairTest, likes: str) -> dict[str, Any]:
    """A listener who always takes the codec named, or nothing."""
    return {
        "page": test.key["page"],
        "answers": [
            {"pair": pair["pair"], "choice": next((s for s in ("a", "b") if pair[s] == likes), "same")}
            for pair in test.key["pairs"]
        ],
    }


def test_answers_of_several_listeners_are_counted_by_what_they_heard() -> None:
    test = make_pairs(*eight_clips(), seed=5)
    undecided = answers(test, "codec-soft")
    undecided["answers"][0]["choice"] = None  # went away
    counts = count_answers(test.key, [answers(test, "codec-soft"), undecided, answers(test, "neither")])
    assert counts == {("codec-loud", "codec-soft"): Count(first=0, second=15, same=8)}
    assert counts["codec-loud", "codec-soft"].chance == pytest.approx(2 / 2**15)
    assert Count(5, 5, 3).chance == 1.0
    assert Count(0, 0, 3).chance == 1.0
    assert Count(8, 2, 0).chance == pytest.approx(2 * 56 / 1024)


def count(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["answers", *map(str, arguments)])


def test_answers_to_another_page_or_other_files_are_refused(tmp_path: Path) -> None:
    test, other = make_pairs(*eight_clips(), seed=1), make_pairs(*eight_clips(), seed=2)
    with pytest.raises(FileFormatError, match="another page"):
        count_answers(test.key, [answers(other, "codec-soft")])
    with pytest.raises(FileFormatError, match="not a key and answers"):
        count_answers(test.key, [{"page": test.key["page"], "answers": [{"pair": 99, "choice": "a"}]}])
    key, given, broken = (tmp_path / name for name in ("pairs.key.json", "answers.json", "broken.json"))
    key.write_text(json.dumps(test.key))
    given.write_text(json.dumps(answers(test, "codec-loud")))
    broken.write_text("{")
    counted = json.loads(count("--json", key, given).stdout)
    assert counted == {
        "comparisons": [
            {
                "pair": ["codec-loud", "codec-soft"],
                "first": 8,
                "second": 0,
                "same": 0,
                "chance": pytest.approx(2 / 2**8),
            }
        ]
    }
    shown = count(key, given).stdout
    assert [cell.strip() for cell in shown.splitlines()[-2].split("│")[1:-1]] == [
        *("codec-loud", "codec-soft"),
        *("8", "0", "0", "0.8%"),
    ]
    for wrong in ((key, broken), (key, tmp_path / "gone.json"), (given, key)):
        result = count(*wrong)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
    assert count(key).exit_code == 2


def test_the_command_compares_two_models_and_writes_page_and_key(tmp_path: Path) -> None:
    folder, page = write_folder(tmp_path / "audio", clips=2), tmp_path / "test.html"
    for seed, name in enumerate(("old", "new")):
        small_model(seed).save_pretrained(tmp_path / name)
    result = run(
        folder, "-m", tmp_path / "new", "--against", tmp_path / "old", "--listen", page, "--bandwidths", "1.5,6"
    )
    assert result.exit_code == 0, result.output
    assert "4 pairs" in result.output
    key = json.loads((tmp_path / "test.key.json").read_text())
    assert {frozenset((pair["a"], pair["b"])) for pair in key["pairs"]} == {
        frozenset((f"new {kbps} kbps", f"old {kbps} kbps")) for kbps in ("1.5", "6")
    }
    assert len(data_of(page.read_text(encoding="utf-8"))["pairs"]) == 4


def test_wrong_usage_of_the_pages(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "audio", clips=1)
    small_model().save_pretrained(tmp_path / "model")
    start = (folder, "-m", tmp_path / "model")
    assert run(*start, "--listen", tmp_path / "page.json").exit_code == 2
    assert run(*start, "--listen", tmp_path / "page.html", "--gallery", tmp_path / "g").exit_code == 2
    assert run(*start, "--against", tmp_path / "model").exit_code == 2
    gone = run(*start, "--listen", tmp_path / "gone" / "page.html")
    assert isinstance(gone.exception, FileFormatError)
    rate = run(*start, "--listen", tmp_path / "page.html", "--bandwidths", "24", "--against", tmp_path / "model")
    assert isinstance(rate.exception, ConfigError)
    assert not list(tmp_path.glob("page*"))
