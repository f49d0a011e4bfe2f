"""export, bench and corpus from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_kit import Run

from streaming_encodec.bench.tables import BEGIN, END, write_report
from streaming_encodec.engines import ENGINES
from streaming_encodec.engines.onnx.codec import OrtDecoder, OrtEncoder
from streaming_encodec.errors import FileFormatError


def test_export_writes_what_runs_alone(run: Run, mono_model: Path, tmp_path: Path) -> None:
    done = run("export", mono_model, tmp_path / "out", "--int8", "--frames-per-step", 2, "--json")
    assert done.code == 0
    assert done.json["weights"] == "int8"
    assert set(done.json["files"]) == {path.name for path in (tmp_path / "out").iterdir()}
    encoder, decoder = OrtEncoder(tmp_path / "out"), OrtDecoder(tmp_path / "out")
    codes = encoder.push(np.zeros(640, np.float32))
    assert codes.shape == (8, 2)
    assert decoder.push(codes).shape == (1, 640)


def test_export_refuses_a_model_of_segments(run: Run, segment_model: Path, tmp_path: Path) -> None:
    run("export", segment_model, tmp_path / "out").fails_with("SegmentEncoder")
    assert not (tmp_path / "out").exists()


def test_bench_measures_all_kinds(run: Run, mono_model: Path, tmp_path: Path) -> None:
    figures, picture, report = tmp_path / "bench.json", tmp_path / "bench.svg", tmp_path / "report.md"
    report.write_text(f"# Mine\n{BEGIN}\nold\n{END}\nkept\n")
    done = run(
        *("bench", "codec", "-m", mono_model, "--rounds", 1, "--seconds", 0.01, "--offline-seconds", 0.5, "--peers"),
        *("--frames-per-step", "1,2", "--streams", 2, "--no-start-up", "--clock", "cpu", "--json"),
        *("--output-json", figures, "--plot", picture, "--report", report),
    )
    assert done.code == 0
    assert json.loads(figures.read_text()) == done.json
    (model,) = done.json["models"].values()
    rows = {(row["engine"], row["frames"]): row for row in model["live"]}
    assert set(rows) == {(engine, frames) for engine in ENGINES if engine != "auto" for frames in (1, 2)}
    for row in rows.values():
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["rtf"] == pytest.approx(row["p50_ms"] / row["audio_ms"], rel=0.01)
    assert [row["engine"] for row in model["cold"]] == [engine for engine in ENGINES if engine != "auto"]
    assert {row["streams"] for row in model["pool"]} == {2}
    assert all(row["encode_x"] > 0 and row["decode_x"] > 0 for row in model["offline"])
    assert {"transformers, one frame a call", "transformers, whole file"} <= {p["name"] for p in model["peers"]}
    assert all(row["codes_equal"] > 0.9 for row in model["agreement"])
    text = report.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("kept\n")
    assert "\nold\n" not in text
    assert "| onnx |" in text
    assert "<svg" in picture.read_text()


def test_bench_names_what_is_wrong(run: Run, mono_model: Path, tmp_path: Path) -> None:
    run("bench", "codec", "-m", mono_model, "-e", "warp").fails_with("no engine 'warp'")
    assert run("bench", "codec", "-m", mono_model, "--frames-per-step", "1;2").code == 2
    assert run("bench", "codec", "-m", mono_model, "--clock", "sun").code == 2
    (tmp_path / "report.md").write_text("no markers")
    with pytest.raises(FileFormatError, match="no lines"):
        write_report(tmp_path / "report.md", {}, [])


_QUICK = ("--rounds", 1, "--seconds", 0.01, "--offline-seconds", 0, "--frames-per-step", 1, "--streams", 0)


def test_bench_without_onnx_measures_the_rest(
    run: Run, mono_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nodes", "graph", "quantizer_graph", "stepper", "export"):
        monkeypatch.delitem(sys.modules, f"streaming_encodec.engines.onnx.{name}", raising=False)
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run("bench", "codec", "-m", mono_model, *_QUICK, "--output-json", tmp_path / "bench.json")
    assert done.code == 0
    assert "│ eager" in done.out
    for left_out in ("onnx", "onnx-int8", "start-up"):
        assert f"note: {left_out}: " in done.err
    (model,) = json.loads((tmp_path / "bench.json").read_text())["models"].values()
    assert {row["engine"] for row in model["live"]} == {"eager", "fused", "kernel", "kernel-fp16"}
    assert [line.split(":")[0] for line in model["not_installed"]] == ["onnx", "onnx-int8", "start-up"]
    assert "start_up" not in model


def test_bench_looks_at_its_files_before_it_measures(
    run: Run, mono_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*arguments: object) -> None:
        pytest.fail("minutes of measuring, for nothing")

    monkeypatch.setattr("streaming_encodec.bench.codec.bench_model", measure)
    (tmp_path / "report.md").write_text("no markers")
    run("bench", "codec", "-m", mono_model, "--report", tmp_path / "report.md").fails_with("no lines")
    for option, name in (("--output-json", "a.json"), ("--plot", "a.svg"), ("--report", "a.md")):
        run("bench", "codec", "-m", mono_model, option, tmp_path / "none" / name).fails_with("make it first")
    run("bench", "codec", "-m", mono_model, "--output-json", tmp_path / "a.wav").fails_with("use .json")
    run("bench", "codec", "-m", mono_model, "--report", tmp_path / "a.json").fails_with("use .md")
    run("bench", "codec", "-m", mono_model, "--plot", tmp_path / "a.drawing").fails_with("use .png or .svg")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run("bench", "codec", "-m", mono_model, "--plot", tmp_path / "a.svg").fails_with("--plot needs matplotlib")
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_bench_shows_the_figures_whatever_becomes_of_its_files(
    run: Run, mono_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streaming_encodec.cli.shared.figures.write_text", full)
    done = run(
        "bench",
        "codec",
        "-m",
        mono_model,
        "-e",
        "eager",
        *_QUICK,
        "--no-start-up",
        "--output-json",
        tmp_path / "a.json",
    )
    assert done.code == 1
    assert "No space left" in done.err
    assert "│ eager" in done.out


def test_corpus_encodes_as_encode_does(run: Run, mono_model: Path, speech: Path, tmp_path: Path) -> None:
    sounds, out = tmp_path / "sounds", tmp_path / "out"
    (sounds / "deep").mkdir(parents=True)
    pcm, rate = soundfile.read(speech)
    soundfile.write(sounds / "one.wav", pcm, rate)
    soundfile.write(sounds / "deep" / "two.flac", pcm[:9000], rate)
    (sounds / "broken.wav").write_bytes(b"no sound")
    (sounds / "notes.txt").write_text("not a sound")
    command = ("corpus", sounds, out, "-m", mono_model, "-j", 2, "--json")

    first = run(*command)
    assert first.code == 1
    assert "broken.wav" in first.err
    assert first.json["files"] == 2
    assert first.json["arithmetic"] == "kernel-1"
    assert list(first.json["failed"]) == [str(sounds / "broken.wav")]
    run("encode", sounds / "one.wav", tmp_path / "alone.ecdc", "-m", mono_model)
    assert (out / "one.ecdc").read_bytes() == (tmp_path / "alone.ecdc").read_bytes()
    assert not (out / "broken.ecdc").exists()

    (sounds / "broken.wav").unlink()
    second = run(*command)
    assert second.code == 0
    assert second.json["files"] == 0
    assert second.json["already_there"] == 2
    assert run("decode", out / "deep" / "two.ecdc", tmp_path / "two.wav", "-m", mono_model).code == 0


def test_corpus_names_what_is_wrong_before_it_starts(run: Run, mono_model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    run("corpus", empty, tmp_path / "out", "-m", mono_model).fails_with("holds no sound files")
    run("corpus", tmp_path / "none", tmp_path / "out").fails_with("no folder")
    for name in ("a.wav", "a.flac"):
        soundfile.write(empty / name, np.zeros(100), 24_000)
    run("corpus", empty, tmp_path / "out", "-m", mono_model).fails_with("rename one")
    (empty / "a.wav").unlink()
    run("corpus", empty, tmp_path / "out", "-m", mono_model, "-e", "warp").fails_with("no engine 'warp'")
