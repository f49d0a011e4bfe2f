"""The gallery: every link leads to a sound, credits are given, and what is shipped is complete and small."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from evaluation_kit import RATE, small_model, speech, write_folder
from typer import Typer
from typer.testing import CliRunner

from streaming_encodec.cli.commands.evaluate import command
from streaming_encodec.errors import FileFormatError, MissingExtraError
from streaming_encodec.evaluation.clips import load_clips
from streaming_encodec.evaluation.gallery import make_gallery, write_ogg_opus
from streaming_encodec.evaluation.opus import Opus

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _libopus() -> None:
    try:
        Opus()
    except MissingExtraError as error:
        pytest.skip(f"the gallery compares with Opus: {error}")


def links(page: Path) -> list[Path]:
    """The local files that a page leads to."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)]+)\)", text) if page.suffix == ".md" else re.findall(r' src="([^"]+)"', text)
    return [page.parent / unquote(link) for link in found]


def test_both_pages_link_to_each_clip_at_each_rate_with_loss_and_by_opus(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "my clips", clips=2)
    row = {"file": "clip-0.flac", "speaker": "Anna <A>", "licence": "CC0-1.0", "source": "an archive"}
    (folder / "manifest.jsonl").write_text(json.dumps(row) + '\n{"file": "clip-1.flac"}\n')
    small_model().save_pretrained(tmp_path / "model")
    app = Typer()
    app.command()(command)
    out = tmp_path / "pages" / "listen"
    result = CliRunner().invoke(app, [str(folder), "-m", str(tmp_path / "model"), "--gallery", str(out)])
    assert result.exit_code == 0, result.output
    takes = ["1.5kbps", "3kbps", "6kbps", "6kbps-10lost", "opus-6kbps", "opus-9kbps"]
    assert {path.name for path in out.glob("*.ogg")} == {f"clip-{n}-{take}.ogg" for n in range(2) for take in takes}
    sounds = {folder / f"clip-{n}.flac" for n in range(2)} | set(out.glob("*.ogg"))
    for page in (tmp_path / "pages" / "listen.md", out / "index.html"):
        assert {path.resolve() for path in links(page)} >= sounds
        assert all(path.exists() for path in links(page))
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "Anna &lt;A&gt;" in text
    assert "http" not in text, "nothing is fetched from elsewhere"
    markdown = (tmp_path / "pages" / "listen.md").read_text(encoding="utf-8")
    assert "- Anna <A>: an archive, CC0-1.0" in markdown
    assert f"evaluate '{folder}' --gallery" in markdown


def test_lost_packets_are_heard_and_a_seed_repeats_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "audio", clips=1, seconds=4.0)
    model, clips = small_model(), load_clips(folder, RATE)

    def take(name: str, seed: int, key: str) -> np.ndarray:
        make_gallery(model, "small", clips, folder, tmp_path / name, seed=seed)
        samples, rate = soundfile.read(tmp_path / name / f"clip-0-{key}.ogg")
        assert rate == RATE
        return samples

    whole, holed = take("a", 1, "6kbps"), take("a", 1, "6kbps-10lost")
    assert len(whole) == len(holed) == 4 * RATE
    assert not np.allclose(whole, holed, atol=0.01)
    assert np.allclose(holed, take("b", 1, "6kbps-10lost"))
    assert not np.allclose(holed, take("c", 2, "6kbps-10lost"), atol=1e-3)


def test_the_transport_is_near_the_rate_asked_for_and_keeps_the_sound(tmp_path: Path) -> None:
    clip = speech()
    for kbps in (24.0, 48.0):
        path = tmp_path / f"{kbps:g}.ogg"
        write_ogg_opus(path, clip.samples, RATE, kbps)
        assert path.stat().st_size * 8 / clip.seconds / 1000 == pytest.approx(kbps, rel=0.4)
    heard, _ = soundfile.read(path, dtype="float32")
    error = float(np.mean((heard - clip.samples) ** 2) / np.mean(clip.samples**2))
    assert 10 * np.log10(error) < -12


def test_two_clips_of_one_name_are_refused(tmp_path: Path) -> None:
    for part in ("a", "b"):
        write_folder(tmp_path / "audio" / part, clips=1)
    clips = load_clips(tmp_path / "audio", RATE)
    with pytest.raises(FileFormatError, match="same file name"):
        make_gallery(small_model(), "small", clips, tmp_path / "audio", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_gallery_of_the_shipped_model_is_whole_and_small() -> None:
    page = DOCS / "listen.md"
    for one in (page, DOCS / "listen" / "index.html"):
        assert len(links(one)) >= 40
        assert [path for path in links(one) if not path.exists()] == []
    assert sum(path.stat().st_size for path in (DOCS / "listen").iterdir()) <= 1_500_000
    voices = load_clips(DOCS / "listen", RATE)
    assert len({clip.speaker for clip in voices}) == 5
    assert all(clip.licence in ("CC0-1.0", "Apache-2.0", "MIT", "CC-BY-4.0") and clip.source for clip in voices)
    assert all(3.5 < clip.seconds < 6.5 for clip in voices)
