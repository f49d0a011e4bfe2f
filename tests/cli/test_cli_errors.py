"""Bad input: one clear line, exit code 1, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_kit import Run, noise

from streaming_encodec.model.checkpoints import hub
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.streaming.segments import SegmentEncoder


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder for output that must stay empty."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture(params=["stream", "encode"])
def from_sound(request: pytest.FixtureRequest, run: Run, empty: Path) -> Callable[..., None]:
    """A command that reads sound, expected to fail with words."""

    def attempt(source: Path, model: Path | str, says: str) -> None:
        out = empty / ("out.wav" if request.param == "stream" else "out.ecdc")
        run(request.param, source, out, "-m", model).fails_with(says)
        assert os.listdir(empty) == []

    return attempt


def test_missing_file(from_sound: Callable[..., None], mono_model: Path, tmp_path: Path) -> None:
    from_sound(tmp_path / "nix.wav", mono_model, "nix.wav: cannot be read")


def test_not_sound(from_sound: Callable[..., None], mono_model: Path) -> None:
    from_sound(Path(__file__), mono_model, "not an audio file")


def test_cut_off_sound(from_sound: Callable[..., None], mono_model: Path, tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac"):
        path = noise(tmp_path / name, 60_000)
        path.write_bytes(path.read_bytes()[:40_000])
        from_sound(path, mono_model, name)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers(
    from_sound: Callable[..., None], mono_model: Path, tmp_path: Path, bad: float
) -> None:
    sound = np.zeros(30_000)
    sound[20_000] = bad
    path = tmp_path / "a.wav"
    soundfile.write(path, sound, 24_000, subtype="FLOAT")
    from_sound(path, mono_model, "sample 20000 is not a finite number")


def test_six_channels_for_a_stereo_model(from_sound: Callable[..., None], segment_model: Path, tmp_path: Path) -> None:
    from_sound(noise(tmp_path / "six.wav", 5000, 48_000, 6), segment_model, "6 channels")


def test_no_such_model(from_sound: Callable[..., None], speech: Path, tmp_path: Path) -> None:
    from_sound(speech, tmp_path / "nix", "nix")


def test_damaged_model(from_sound: Callable[..., None], speech: Path, mono_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((mono_model / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes((mono_model / "model.safetensors").read_bytes()[:5000])
    from_sound(speech, broken, "broken")


def test_no_network(from_sound: Callable[..., None], speech: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise hub.LocalEntryNotFoundError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    from_sound(speech, "facebook/encodec_24khz", "connect to the network")


def test_a_bandwidth_that_the_model_has_not(run: Run, mono_model: Path, speech: Path, empty: Path) -> None:
    for command, out in (("stream", "a.wav"), ("encode", "a.ecdc")):
        result = run(command, speech, empty / out, "-m", mono_model, "-b", 5)
        assert result.code == 2
        assert "1.5, 3, 6 kbps" in result.err
    assert os.listdir(empty) == []


def test_output_that_cannot_be_written(run: Run, mono_model: Path, speech: Path, empty: Path) -> None:
    run("stream", speech, empty / "a.xyz", "-m", mono_model).fails_with("use .wav or .flac")
    run("stream", speech, empty / "no" / "a.wav", "-m", mono_model).fails_with("does not exist")
    run("encode", speech, empty / "no" / "a.ecdc", "-m", mono_model).fails_with("does not exist")
    run("encode", speech, empty, "-m", mono_model).fails_with("not a plain file")


def test_unknown_engine(run: Run, mono_model: Path, speech: Path, empty: Path) -> None:
    run("stream", speech, empty / "a.wav", "-m", mono_model, "--engine", "nix").fails_with("no engine 'nix'")
    assert os.listdir(empty) == []


# -- .ecdc


@pytest.fixture
def ecdc(run: Run, mono_model: Path, speech: Path, tmp_path: Path) -> Path:
    path = tmp_path / "good.ecdc"
    assert run("encode", speech, path, "-m", mono_model).code == 0
    return path


@pytest.mark.parametrize("keep", [0, 5, 40, 200])
def test_cut_off_ecdc(run: Run, ecdc: Path, mono_model: Path, empty: Path, keep: int) -> None:
    ecdc.write_bytes(ecdc.read_bytes()[:keep])
    run("decode", ecdc, empty / "a.wav", "-m", mono_model).fails_with("cut off")
    assert os.listdir(empty) == []


def test_not_ecdc(run: Run, mono_model: Path, speech: Path, empty: Path) -> None:
    run("decode", speech, empty / "a.wav", "-m", mono_model).fails_with("not an .ecdc file")
    run("decode", empty / "nix.ecdc", empty / "a.wav", "-m", mono_model).fails_with("cannot be read")
    assert os.listdir(empty) == []


def test_ecdc_of_an_unknown_model(run: Run, ecdc: Path, empty: Path) -> None:
    run("decode", ecdc, empty / "a.wav").fails_with("small-24khz")


def test_ecdc_of_another_model(run: Run, ecdc: Path, segment_model: Path, empty: Path) -> None:
    run("decode", ecdc, empty / "a.wav", "-m", segment_model).fails_with("good.ecdc")
    assert os.listdir(empty) == []


def test_info_on_nothing(run: Run, tmp_path: Path) -> None:
    run("info", tmp_path / "nix").fails_with("no such file")
    run("info", tmp_path).fails_with("config.json")
    (tmp_path / "a.th").write_bytes(b"hello")
    run("info", tmp_path / "a.th").fails_with("a.th")
    (tmp_path / "a.ecdc").write_bytes(b"hello")
    run("info", tmp_path / "a.ecdc").fails_with("not an .ecdc file")


# -- Ctrl-C


def interrupt_in(monkeypatch: pytest.MonkeyPatch, kind: type, call: int) -> None:
    """Press Ctrl-C in the middle of the nth push of a class."""
    push = kind.push  # type: ignore[attr-defined]
    calls = 0

    def push_and_interrupt(self: object, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(signal.SIGINT)
        return push(self, *arguments)

    monkeypatch.setattr(kind, "push", push_and_interrupt)


def test_interrupted_stream_leaves_a_valid_file(
    run: Run, mono_model: Path, speech: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = empty / "whole.wav"
    run("stream", speech, whole, "-m", mono_model)
    interrupt_in(monkeypatch, StreamingEncoder, 24)  # the first three warm up
    out = empty / "out.wav"
    result = run("stream", speech, out, "-m", mono_model, "--json")
    assert result.code == 1
    assert "interrupted" in result.err
    sound, _ = soundfile.read(out)
    assert result.json["interrupted"] is True
    assert result.json["samples"] == len(sound) == 21 * 480
    # What is there is the beginning of the whole, up to the last frame, which ends otherwise.
    np.testing.assert_array_equal(sound[: 30 * 320], soundfile.read(whole)[0][: 30 * 320])
    assert sorted(os.listdir(empty)) == ["out.wav", "whole.wav"]


def test_interrupted_encode_leaves_a_valid_file(
    run: Run, mono_model: Path, speech: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in(monkeypatch, StreamingEncoder, 3)  # the first one is empty
    out = empty / "out.ecdc"
    result = run("encode", speech, out, "-m", mono_model, "--json")
    assert (result.code, result.json["interrupted"], result.json["samples"]) == (1, True, 2 * 16_384)
    monkeypatch.undo()
    assert run("decode", out, empty / "out.wav", "-m", mono_model, "--json").json["samples"] == 2 * 16_384


def test_interrupted_encode_by_segments(
    run: Run, segment_model: Path, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = noise(tmp_path / "in.wav", 150_000, 48_000, 2)
    interrupt_in(monkeypatch, SegmentEncoder, 4)
    out = empty / "out.ecdc"
    result = run("encode", source, out, "-m", segment_model, "--json")
    assert (result.code, result.json["samples"]) == (1, 4 * 16_384)
    monkeypatch.undo()
    assert run("decode", out, empty / "out.wav", "-m", segment_model, "--json").json["samples"] == 4 * 16_384


def test_interrupted_decode_leaves_a_valid_file(
    run: Run, mono_model: Path, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = noise(tmp_path / "in.wav", 400_000)
    ecdc = tmp_path / "in.ecdc"
    run("encode", source, ecdc, "-m", mono_model)
    interrupt_in(monkeypatch, StreamingDecoder, 1)
    out = empty / "out.wav"
    result = run("decode", ecdc, out, "-m", mono_model, "--json")
    assert (result.code, result.json["interrupted"]) == (1, True)
    assert 0 < result.json["samples"] == soundfile.info(out).frames < 400_000


def test_a_second_interrupt_stops_at_once_and_leaves_nothing(
    run: Run, mono_model: Path, speech: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in(monkeypatch, StreamingEncoder, 24)
    interrupt_in(monkeypatch, StreamingDecoder, 23)  # two warm up
    run("stream", speech, empty / "out.wav", "-m", mono_model).fails_with("interrupted")
    assert os.listdir(empty) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C alone there")
def test_ctrl_c_from_outside(mono_model: Path, empty: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "long.wav", 30 * 60 * 24_000)
    out = empty / "out.wav"
    arguments = ["stream", str(source), str(out), "-m", str(mono_model)]
    program = "import sys; from streaming_encodec.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # Sound in the temporary file means that the stream runs.
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size > 50_000 for path in empty.glob(".*.part")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in err
    assert 20_000 < soundfile.info(out).frames < 30 * 60 * 24_000
    assert os.listdir(empty) == ["out.wav"]
