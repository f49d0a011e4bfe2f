"""Folders of clips, the listening set's recipe, the run, its report, and the command."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluation_kit import RATE, run, small_model, speech, write_folder

from streaming_encodec.errors import ConfigError, FileFormatError, MissingExtraError, StreamError
from streaming_encodec.evaluation import opus as opus_module
from streaming_encodec.evaluation.clips import Clip, load_clips, shifted
from streaming_encodec.evaluation.equal_quality import equal_qualities, equal_rate
from streaming_encodec.evaluation.judging import PoolJudge, SerialJudge
from streaming_encodec.evaluation.listening_set import ITEMS, Item, build_listening_set
from streaming_encodec.evaluation.marks import marks
from streaming_encodec.evaluation.metric import Score
from streaming_encodec.evaluation.metrics import LogMel, MetricSet, PesqWideband, make_metrics
from streaming_encodec.evaluation.report import as_markdown, rows_tables
from streaming_encodec.evaluation.robustness import SignalResult
from streaming_encodec.evaluation.runner import (
    MODEL,
    OPUS,
    ORIGINAL,
    Borders,
    Evaluation,
    Plan,
    Row,
    evaluate,
)
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.training.recipe import Source


def test_a_bare_folder_is_read_in_order_and_resampled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "deep" / "b.wav", rng.uniform(-0.1, 0.1, (44_100, 2)), 44_100)
    soundfile.write(tmp_path / "a.flac", rng.uniform(-0.1, 0.1, 16_000), 16_000)
    (tmp_path / "notes.txt").write_text("not audio")
    clips = load_clips(tmp_path, RATE)
    assert [clip.name for clip in clips] == ["a.flac", "deep/b.wav"]
    assert all(clip.samples.dtype == np.float32 and len(clip.samples) == RATE for clip in clips)
    assert clips[0].text is None


def test_clips_begin_at_other_places_of_a_frame() -> None:
    samples = np.linspace(0.1, 0.9, 1000, dtype=np.float32)
    clips = [Clip("a.flac", samples, RATE, speaker="anna", text="one"), Clip("deep/b.wav", samples, RATE)]
    placed = shifted(clips, 4, 320)
    assert placed[:2] == clips
    assert [clip.name for clip in placed[2:4]] == ["a+1.flac", "deep/b+1.wav"]
    for place in range(1, 4):
        first, second = placed[2 * place : 2 * place + 2]
        assert not first.samples[: 80 * place].any()
        assert np.array_equal(first.samples[80 * place :], samples)
        assert (first.speaker, first.text) == ("anna", "one")
        assert second.speaker == "deep/b.wav", "the same speaker as the clip it comes from"
    assert shifted(clips, 1, 320) == clips


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_manifest_names_files_texts_and_speakers(tmp_path: Path, encoding: str) -> None:
    write_folder(tmp_path, clips=3)
    rows = [
        {"file": "clip-2.flac", "speaker": "a", "text": "peter", "licence": "MIT"},
        {"file": "clip-1.flac", "speaker": "a", "text": ""},
        {"file": "clip-0.flac", "speaker": "b"},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding=encoding)
    clips = load_clips(tmp_path, RATE)
    assert [(clip.name, clip.text) for clip in clips] == [
        ("clip-2.flac", "peter"),
        ("clip-1.flac", ""),
        ("clip-0.flac", None),
    ]
    assert clips[0].licence == "MIT"
    assert [clip.speaker for clip in load_clips(tmp_path, RATE, limit=2)] == ["a", "b"], "as many speakers as can be"


@pytest.mark.parametrize("line", ['{"name": "x"}', "[1]", "{", '"clip.flac"'])
def test_a_broken_manifest_is_said(tmp_path: Path, line: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "manifest.jsonl").write_text(line)
    with pytest.raises(FileFormatError, match="must be a JSON object with a 'file'"):
        load_clips(tmp_path, RATE)


def test_folders_that_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="is not a folder"):
        load_clips(tmp_path / "nowhere", RATE)
    with pytest.raises(FileFormatError, match="no audio files"):
        load_clips(tmp_path, RATE)
    soundfile.write(tmp_path / "word.wav", np.full(RATE // 2, 0.1), RATE)
    with pytest.raises(FileFormatError, match=r"0\.50 s is too short"):
        load_clips(tmp_path, RATE)
    soundfile.write(tmp_path / "word.wav", np.zeros(2 * RATE), RATE)
    with pytest.raises(FileFormatError, match="is silent"):
        load_clips(tmp_path, RATE)


def fake_package(source: Source, into: Path) -> Path:
    """A package of one recording at 16 kHz, one raw, and the transcription of the first."""
    pcm = (speech().samples[:16_000] * 32_767).astype("<i2")
    soundfile.write(into / "first.wav", pcm, 16_000)
    (into / "second.raw").write_bytes(pcm.tobytes())
    (into / "transcription").write_text("<s> good  day </s> (first)\n")
    return into


def item(name: str, *files: str, text: str | None = "") -> Item:
    return Item(name, "fake", "someone", "en", "GPL-2.0", files, text)


def test_listening_set_recipe(tmp_path: Path) -> None:
    items = (item("joined", "first.wav", "second.raw", text="x"), item("alone", "first.wav", text=None))
    out = build_listening_set(tmp_path / "set", items, fetch=fake_package)
    clips = load_clips(out, RATE)
    assert [(clip.name, clip.text) for clip in clips] == [("joined.flac", "x"), ("alone.flac", "good day")]
    assert len(clips[0].samples) == 2 * RATE + RATE // 4
    assert clips[0].licence == "GPL-2.0"
    assert "first.wav, second.raw" in clips[0].source
    assert np.allclose(clips[0].samples[:RATE], clips[0].samples[-RATE:], atol=2e-3), "raw is read as 16 kHz, 16 bit"


def test_listening_set_of_another_package_version(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"has no gone\.wav"):
        build_listening_set(tmp_path, (item("x", "gone.wav"),), fetch=fake_package)
    with pytest.raises(FileFormatError, match=r"no transcription of second\.raw"):
        build_listening_set(tmp_path, (item("x", "second.raw", text=None),), fetch=fake_package)


def test_the_listening_set_holds_nobody_who_is_trained_on() -> None:
    from streaming_encodec.training.recipe import SOURCES

    trained = {source.speaker for source in SOURCES if source.split == "train"}
    packages = {source.location for source in SOURCES if source.split == "train"}
    assert not trained & {entry.speaker for entry in ITEMS}
    assert not packages & {entry.package for entry in ITEMS}
    assert len({entry.speaker for entry in ITEMS}) >= 12
    assert len({entry.name for entry in ITEMS}) == len(ITEMS)


class Loudness:
    """A metric with weights and a clip it refuses, to see how means are taken."""

    name, title, family, better, absolute = "loudness", "Loudness", "loudness", "higher", True

    def __call__(self, clip, degraded):  # type: ignore[no-untyped-def]
        return {"clip-0.flac": Score(1.0, 3.0), "clip-1.flac": Score(5.0, 1.0)}.get(clip.name)


def has_opus() -> bool:
    try:
        opus_module.Opus()
    except MissingExtraError:
        return False
    return True


def test_rows_of_a_run(tmp_path: Path) -> None:
    clips = load_clips(write_folder(tmp_path, clips=3), RATE)
    metrics = MetricSet((LogMel(), Loudness()), {"wer": "not here"})  # type: ignore[arg-type]
    plan = Plan((1.5, 6.0), losses=(0.2,), loss_bandwidths=(6.0,), opus=has_opus(), opus_bandwidths=(9.0,))
    result = evaluate(small_model(), clips, metrics, plan)
    found = [(row.codec, row.kbps, row.loss) for row in result.rows]
    expected = [(ORIGINAL, 0.0, 0.0), *((MODEL, *rest) for rest in ((1.5, 0.0), (6.0, 0.0), (6.0, 0.2)))]
    if plan.opus:
        expected += [(OPUS, *rest) for rest in ((1.5, 0.0), (6.0, 0.0), (6.0, 0.2), (9.0, 0.0))]
    assert found == expected
    whole, holed = result.row(MODEL, 6.0), result.row(MODEL, 6.0, 0.2)
    assert whole is not None
    assert holed is not None
    assert whole.scores["loudness"] == 2.0, "weighted: (3 · 1 + 1 · 5) / 4"
    assert whole.per_clip["loudness"] == [1.0, 5.0, None]
    assert (whole.measured_kbps, whole.measured_loss) == (6.0, 0.0)
    assert 0 < holed.measured_loss < 0.6
    assert holed.scores["log_mel_db"] != whole.scores["log_mel_db"]
    assert result.rows[0].scores == {"log_mel_db": None, "loudness": 2.0}
    assert len(result.signals) == 8
    assert [border.kbps for border in result.borders] == [1.5, 6.0]

    table = rows_tables(metrics, result, "x")[0]
    assert table.caption == "not measured: wer"
    assert "Not measured: wer (not here)" in as_markdown("x", clips, metrics, result)
    again = evaluate(small_model(), clips, metrics, plan)
    assert again.rows == result.rows, "a run can be repeated"


def test_what_cannot_be_run_is_said_before_anything_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = load_clips(write_folder(tmp_path, clips=1), RATE)
    metrics = make_metrics(["log_mel_db"])
    model = small_model()
    other_rate = EncodecModel(dataclasses.replace(model.config, sampling_rate=32_000))

    def judge(sounds, names):  # type: ignore[no-untyped-def]
        raise AssertionError("hours of work would be lost")

    def told(model: EncodecModel, error: type[Exception], match: str, **plan: object) -> None:
        planned = dataclasses.replace(Plan((1.5,), losses=(), opus=False), **plan)  # type: ignore[arg-type]
        with pytest.raises(error, match=match):
            evaluate(model, clips, metrics, planned, judge=judge)

    told(model, ConfigError, "24.0", bandwidths=(1.5, 24.0))
    told(model, ConfigError, "24.0", loss_bandwidths=(24.0,))
    told(model, StreamError, "loss share", losses=(0.1, 1.0), loss_bandwidths=(1.5,))
    told(other_rate, StreamError, "--no-opus", bandwidths=other_rate.config.target_bandwidths, opus=True)
    monkeypatch.setattr(opus_module, "_library", lambda: (_ for _ in ()).throw(MissingExtraError("no libopus")))
    told(model, MissingExtraError, "no libopus", opus=True)


def test_a_text_that_is_null_is_none(tmp_path: Path) -> None:
    write_folder(tmp_path, clips=1)
    (tmp_path / "manifest.jsonl").write_text('{"file": "clip-0.flac", "text": null, "language": null}')
    (clip,) = load_clips(tmp_path, RATE)
    assert (clip.text, clip.language) == (None, "")


def test_workers_judge_as_this_process_does(tmp_path: Path) -> None:
    clips = load_clips(write_folder(tmp_path, clips=2), RATE)
    metrics = make_metrics(["log_mel_db", "stoi", "modulation"])
    sounds = [clip.samples * np.float32(0.5) for clip in clips]
    here = list(SerialJudge(clips, metrics)(sounds, metrics.names))
    with PoolJudge(clips, metrics, workers=2) as judge:
        assert list(judge(sounds, metrics.names)) == here
        assert list(judge(sounds, ["stoi"])) == [{"stoi": scores["stoi"]} for scores in here]
    with pytest.raises(ConfigError, match="two workers or more"):
        PoolJudge(clips, metrics, workers=1)


def row(codec: str, kbps: float, **scores: float) -> Row:
    return Row(codec, kbps, 0.0, kbps, 0.0, dict(scores), {})


def test_opus_at_equal_quality_is_read_between_the_measured_rates() -> None:
    rows = [
        row(MODEL, 3.0, stoi=0.5, log_mel_db=4.5),
        row(MODEL, 6.0, stoi=0.92, log_mel_db=3.0),
        row(MODEL, 12.0, stoi=0.99),
        dataclasses.replace(row(MODEL, 6.0, stoi=0.1), loss=0.1),
        *(row(OPUS, kbps, stoi=stoi, log_mel_db=db) for kbps, stoi, db in
          ((12.0, 0.96, 2.0), (6.0, 0.9, 6.0), (9.0, 0.94, 4.0))),
        dataclasses.replace(row(OPUS, 6.0, stoi=0.95), loss=0.1),
    ]  # fmt: skip
    metrics = make_metrics(["stoi", "log_mel_db", "modulation"])
    found = {(e.metric, e.kbps): (e.opus_kbps, e.beyond) for e in equal_qualities(metrics.metrics, Evaluation(rows))}
    assert found == {
        ("stoi", 3.0): (6.0, "below"),
        ("stoi", 6.0): (pytest.approx(7.5), None),
        ("stoi", 12.0): (12.0, "above"),
        ("log_mel_db", 3.0): (pytest.approx(8.25), None),
        ("log_mel_db", 6.0): (pytest.approx(10.5), None),
    }
    text = as_markdown("x", [], metrics, Evaluation(rows))
    assert "| STOI | < 6.0 | 7.5 | > 12.0 |" in text
    assert "| log-mel dB | 8.2 | 10.5 | – |" in text
    assert "equal quality" not in as_markdown("x", [], metrics, Evaluation([r for r in rows if r.kbps != 9.0][:4]))


def test_where_opus_is_not_steadily_better_the_highest_crossing_counts() -> None:
    points = [(3.0, 0.95), (6.0, 0.8), (9.0, 0.7), (12.0, 0.9)]
    assert equal_rate(points, 0.85) == (pytest.approx(11.25), None)
    assert equal_rate(points, 0.7) == (3.0, "below")
    assert equal_rate(points, 0.9) == (12.0, None)


@pytest.mark.parametrize(("coded", "met"), [(0.249, True), (0.251, False)])
def test_marks(coded: float, met: bool) -> None:
    rows = [
        row(ORIGINAL, 0.0, wer=0.1),
        row(MODEL, 1.5, wer=coded),
        row(MODEL, 6.0, stoi=0.93, pesq_wb=2.0),
        row(OPUS, 6.0, stoi=0.9, pesq_wb=2.1),
    ]
    # Only names count here: PESQ is told of without its package.
    named = object.__new__(PesqWideband)
    metrics = MetricSet((*make_metrics(["log_mel_db", "stoi"]).metrics, named), {})
    found = {mark.what: mark.met for mark in marks(metrics, Evaluation(rows))}
    assert found == {
        "STOI above Opus at 6 kbps": True,
        "PESQ-WB above Opus at 6 kbps": False,
        "WER at 1.5 kbps at most twice the original's plus 5 points": met,
    }


@pytest.mark.parametrize(("dnsmos", "low", "high", "buzz", "met"), [
    (2.9, 6.0, 5.0, 1.9, [True, True, True]),
    (2.89, 6.0, 5.5, 2.1, [False, False, False]),
])  # fmt: skip
def test_marks_that_no_loss_imitates(dnsmos: float, low: float, high: float, buzz: float, met: list[bool]) -> None:
    metrics = make_metrics(["lsd", "modulation"])
    rows = [
        row(MODEL, 6.0, dnsmos_overall=dnsmos, lsd_0_4khz=low, lsd_4_8khz=6.0, modulation_4_8khz_x3=1.0),
        row(MODEL, 12.0, lsd_0_4khz=high, lsd_4_8khz=5.0, **{"modulation_8_11.5khz_x1": buzz}),
        dataclasses.replace(row(MODEL, 6.0, modulation_4_8khz_x3=9.0), loss=0.1),
        row(OPUS, 9.0, dnsmos_overall=2.9),
    ]
    found = [mark for mark in marks(metrics, Evaluation(rows)) if "Opus at 6" not in mark.what and mark.met is not None]
    assert [mark.met for mark in found] == met
    assert found[2].detail == f"{buzz:.1f} dB, 8–11.5 kHz at 75 Hz, 12 kbps"


@pytest.mark.parametrize(
    ("offline", "streamed", "met"),
    [(1.0, 1.02, [True, True]), (1.0, 1.2, [False, True]), (1.7, 1.7, [True, False])],
)
def test_marks_of_borders_and_signals(offline: float, streamed: float, met: list[bool]) -> None:
    borders = [Borders(6.0, 1.0, offline, streamed, 9.0), Borders(3.0, 1.0, 1.0, 1.0, 9.0)]
    signals = [SignalResult("silence", 6.0, finite, 0.0, -120.0) for finite in (True, False)]
    found = marks(make_metrics(["log_mel_db"]), Evaluation([], signals, borders))
    assert [mark.met for mark in found] == [None, False, *met]
    assert found[1].detail == "silence at 6 kbps"


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    small_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_command_writes_table_json_plots_and_audio(tmp_path: Path, model_folder: Path) -> None:
    folder, out = write_folder(tmp_path / "audio"), tmp_path / "out"
    opus = ["--opus" if has_opus() else "--no-opus"]
    result = run(
        folder, "-m", model_folder, "-o", out, "--metrics", "stoi,log_mel_db", "--bandwidths", "1.5,6",
        "--loss", "10", "--loss-bandwidths", "6", "--save-audio", *opus,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for word in ("STOI", "log-mel", "silence", "adds no clicks", "not measured"):
        assert word in result.output
    report = json.loads((out / "results.json").read_text())
    assert report["format"] == 1
    assert [clip["name"] for clip in report["clips"]] == ["clip-0.flac", "clip-1.flac"]
    assert {(r["kbps"], r["loss"]) for r in report["rows"] if r["codec"] == MODEL} == {
        (1.5, 0),
        (6, 0),
        (6, 0.1),
    }
    assert "| model | 6 | 6.00 | – |" in (out / "results.md").read_text()
    for name in ("rate.png", "loss.png", "spectrograms.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    samples, rate = soundfile.read(out / "audio" / "model-6-kbps-10-lost" / "clip-1.flac")
    assert (len(samples), rate) == (round(1.2 * RATE), RATE)


def test_audio_of_two_folders_is_written_apart_and_never_outside(tmp_path: Path, model_folder: Path) -> None:
    folder = tmp_path / "audio"
    for speaker in ("anna", "boris"):
        write_folder(folder / speaker, clips=1)
    outside = write_folder(tmp_path / "outside", clips=1) / "clip-0.flac"
    before = outside.read_bytes()
    names = ["anna/clip-0.flac", "boris/clip-0.flac", str(outside)]
    (folder / "manifest.jsonl").write_text("\n".join(json.dumps({"file": name}) for name in names))
    result = run(
        folder, "-m", model_folder, "-o", tmp_path / "out", "--metrics", "log_mel_db", "--bandwidths", "1.5",
        "--loss", "", "--save-audio", "--no-opus", "--no-plots", "--places", "2",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out" / "audio").rglob("clip-0.flac"))) == 3
    assert len(list((tmp_path / "out" / "audio").rglob("clip-0+1.flac"))) == 3
    assert outside.read_bytes() == before


def test_the_quick_way_says_what_it_left_out(tmp_path: Path, model_folder: Path) -> None:
    folder = write_folder(tmp_path / "audio", clips=1)
    result = run(folder, "-m", model_folder, "-o", tmp_path / "out", "--quick", "--no-opus", "--no-plots", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"wer", "speaker", "visqol_speech"} <= set(report["unavailable"])
    assert {r["loss"] for r in report["rows"]} == {0.0, 0.05, 0.2}
    assert not (tmp_path / "out" / "rate.png").exists()


def test_wrong_usage(tmp_path: Path, model_folder: Path) -> None:
    folder = write_folder(tmp_path / "audio", clips=1)
    assert run(folder, "-m", model_folder, "--bandwidths", "six").exit_code == 2
    assert run().exit_code == 2
    shutil.rmtree(folder)
    result = run(folder, "-m", model_folder, "-o", tmp_path / "out")
    assert isinstance(result.exception, FileFormatError)
    assert not (tmp_path / "out").exists(), "nothing is left behind"
