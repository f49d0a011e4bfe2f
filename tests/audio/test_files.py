"""Sound files: any kind in, whole files out, one clear error otherwise."""

import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.audio.files.atomic import AtomicPath
from streaming_encodec.audio.files.sound import AudioReader, audio_info, rechunk
from streaming_encodec.audio.files.writer import AudioWriter, output_format
from streaming_encodec.errors import FileFormatError, StreamError


def tone(samples: int, rate: int, channels: int = 1) -> np.ndarray:
    """[C, n]: another frequency in each channel."""
    time = np.arange(samples) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 220 * (c + 1) * time) for c in range(channels)]).astype(np.float32)


def read_all(path: Path, rate: int | None = None, channels: int | None = None) -> np.ndarray:
    with AudioReader(path, rate, channels) as reader:
        return np.concatenate(list(reader), axis=1)


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".part")]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_reads_wav_of_every_depth(tmp_path: Path, subtype: str, channels: int) -> None:
    sound = tone(50_000, 24_000, channels)
    path = tmp_path / "a.wav"
    soundfile.write(path, sound.T, 24_000, subtype=subtype)
    tolerance = 0.02 if subtype in ("PCM_U8", "ULAW") else 1e-4
    np.testing.assert_allclose(read_all(path), sound, atol=tolerance)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3", ".aiff", ".au", ".caf", ".w64", ".rf64"])
def test_writes_and_reads_every_format(tmp_path: Path, ending: str) -> None:
    sound = tone(48_000, 48_000, 2)
    path = tmp_path / f"a{ending}"
    with AudioWriter(path, 48_000, 2) as writer:
        for start in range(0, 48_000, 999):
            writer.write(sound[:, start : start + 999])
    assert writer.samples == 48_000
    again = read_all(path)
    lossy = ending in (".ogg", ".mp3")
    middle = slice(5000, 40_000)
    np.testing.assert_allclose(again[:, middle], sound[:, middle], atol=0.1 if lossy else 1e-4)
    info = audio_info(path)
    assert (info.sample_rate, info.channels) == (48_000, 2)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_resamples_to_the_models_rate(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(rate, rate).T, rate)
    got = read_all(path, 24_000, 1)
    with AudioReader(path, 24_000, 1) as reader:
        assert reader.samples is not None
        assert abs(reader.samples - got.shape[1]) <= 1
    want = tone(24_000, 24_000)
    middle = slice(1000, 23_000)
    np.testing.assert_allclose(got[:, middle], want[:, middle], atol=2e-3)


def test_mixes_to_mono_and_copies_to_stereo(tmp_path: Path) -> None:
    stereo, mono = tmp_path / "stereo.wav", tmp_path / "mono.wav"
    sound = tone(5000, 24_000, 2)
    soundfile.write(stereo, sound.T, 24_000, subtype="FLOAT")
    soundfile.write(mono, sound[0], 24_000, subtype="FLOAT")
    np.testing.assert_allclose(read_all(stereo, channels=1), sound.mean(axis=0, keepdims=True), atol=1e-7)
    np.testing.assert_array_equal(read_all(mono, channels=2), np.repeat(sound[:1], 2, axis=0))


def test_six_channels_to_mono_but_not_to_stereo(tmp_path: Path) -> None:
    path = tmp_path / "six.wav"
    sound = tone(100, 24_000, 6)
    soundfile.write(path, sound.T, 24_000, subtype="FLOAT")
    np.testing.assert_allclose(read_all(path, channels=1)[0], sound.mean(axis=0), atol=1e-6)
    with pytest.raises(FileFormatError, match="6 channels"):
        AudioReader(path, channels=2)


@given(sizes=st.lists(st.integers(0, 50), max_size=20), block=st.integers(1, 60))
def test_rechunk_keeps_every_sample(sizes: list[int], block: int) -> None:
    sound = np.arange(sum(sizes), dtype=np.float32)[None]
    pieces = np.split(sound, np.cumsum(sizes), axis=1)[: len(sizes)]
    blocks = list(rechunk(iter(pieces), block))
    assert all(b.shape[1] == block for b in blocks[:-1])
    assert all(0 < b.shape[1] <= block for b in blocks)
    got = np.concatenate([np.zeros((1, 0), np.float32), *blocks], axis=1)
    np.testing.assert_array_equal(got, sound)


def test_rechunk_refuses_empty_blocks() -> None:
    with pytest.raises(StreamError, match="at least one sample"):
        list(rechunk(iter([np.zeros((1, 4), np.float32)]), 0))


def test_an_empty_file_is_empty_sound(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    with AudioWriter(path, 24_000):
        pass
    assert read_all(path, 16_000).shape == (1, 0)
    assert audio_info(path).seconds == 0


# -- bad input ----------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"nix\.wav: cannot be read"):
        AudioReader(tmp_path / "nix.wav")


def test_a_folder_is_no_sound(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        AudioReader(tmp_path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"hello " * 100, bytes(1000), b"RIFF\x00\x00\x00\x00WAVE"])
def test_not_sound(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="not an audio file"):
        AudioReader(path)


@pytest.mark.parametrize("ending", [".wav", ".flac"])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_cut_off_files_are_told(tmp_path: Path, ending: str, keep: float) -> None:
    path = tmp_path / f"a{ending}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 60_000)
    soundfile.write(path, noise, 24_000)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(FileFormatError, match=r"cut off|damaged|not an audio file"):
        read_all(path)


def test_damaged_flac_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 60_000)
    soundfile.write(path, noise, 24_000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"cut off|damaged"):
        read_all(path)


@pytest.mark.parametrize("length", [0, 0xFFFF_FFFF, 0x7FFF_FFFF])
def test_a_recorder_that_died_leaves_a_wav_without_length(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.wav"
    sound = tone(10_000, 24_000)
    soundfile.write(path, sound.T, 24_000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", length)
    path.write_bytes(data)
    # A stated length of zero is believed by libsndfile; the others mean "until the end".
    got = read_all(path)
    assert got.shape[1] in ((0, 10_000) if length == 0 else (10_000,))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "a.wav"
    sound = tone(40_000, 24_000)
    sound[0, 33_333] = bad
    soundfile.write(path, sound.T, 24_000, subtype="FLOAT")
    with pytest.raises(FileFormatError, match="sample 33333 is not a finite number"):
        read_all(path)


# -- writing ------------------------------------------------------------------------------------------------


def test_the_bytes_do_not_depend_on_the_blocks(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).standard_normal((1, 9000)).astype(np.float32)
    files = []
    for block in (1, 7, 480, 9000):
        path = tmp_path / f"{block}.wav"
        with AudioWriter(path, 24_000) as writer:
            for start in range(0, 9000, block):
                writer.write(sound[:, start : start + block])
        files.append(path.read_bytes())
    assert len(set(files)) == 1


def test_loud_sound_clips_and_does_not_wrap(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with AudioWriter(path, 24_000) as writer:
        writer.write(np.array([[-7, -1.0001, 0, 1.0001, 7]], np.float32))
    np.testing.assert_allclose(read_all(path)[0], [-1, -1, 0, 1, 1], atol=1e-4)


def test_a_wav_beyond_four_gigabytes_becomes_rf64(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with AudioWriter(path, 48_000, 2, samples=2**31):
        pass
    assert path.read_bytes()[:4] == b"RF64"


def test_an_exception_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")

    def fail() -> None:
        with AudioWriter(path, 24_000) as writer:
            writer.write(np.zeros((1, 100), np.float32))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert os.listdir(tmp_path) == ["a.wav"]
    assert path.read_bytes() == b"old"


def test_nothing_is_seen_under_the_name_before_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    writer = AudioWriter(path, 24_000)
    writer.write(np.zeros((1, 100), np.float32))
    assert not path.exists()
    writer.close()
    assert audio_info(path).samples == 100
    writer.discard()  # too late to take it back
    assert path.exists()


def test_wrong_channels(tmp_path: Path) -> None:
    with AudioWriter(tmp_path / "a.wav", 24_000, 2) as writer, pytest.raises(StreamError, match=r"\[2, n\]"):
        writer.write(np.zeros((1, 5), np.float32))


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.txt"])
def test_unknown_ending(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileFormatError, match="cannot tell the audio format"):
        AudioWriter(tmp_path / name, 24_000)
    assert os.listdir(tmp_path) == []


def test_endings_in_capitals() -> None:
    assert output_format("A.WAV") == "WAV"


def test_a_rate_that_the_format_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be written as MP3"):
        AudioWriter(tmp_path / "a.mp3", 192_001)
    assert os.listdir(tmp_path) == []


def test_output_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="does not exist; make it first"):
        AudioWriter(tmp_path / "no" / "a.wav", 24_000)


def test_output_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(FileFormatError, match="not a plain file"):
        AudioWriter(tmp_path / "a.wav", 24_000)


@pytest.mark.skipif(sys.platform == "win32", reason="links and devices are those of Unix")
def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    real, link = tmp_path / "real.wav", tmp_path / "link.wav"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with AtomicPath(link) as target:
        target.temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    with pytest.raises(FileFormatError, match="not a plain file"):
        AtomicPath("/dev/null")
