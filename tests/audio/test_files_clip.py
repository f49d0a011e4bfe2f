"""A part of a sound file is read as if it were a file of its own, wherever it lies and whatever the format."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.audio.files.source import ByteSource
from streaming_encodec.errors import FileFormatError, StreamError

RATE = 24_000
SAMPLES = 200_000
FORMATS = {
    "a.wav": ("WAV", "PCM_16"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.aiff": ("AIFF", "PCM_24"),
    "a.w64": ("W64", "FLOAT"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
}
# (start, samples): far apart, next to each other, within one block, of nothing, up to the end
PARTS = ((70_000, 1000), (71_000, 30_000), (101_100, 5), (101_105, 0), (190_000, 60_000))


def make(path: Path, samples: int = SAMPLES, rate: int = RATE) -> Path:
    container, coding = FORMATS[path.name]
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, 1, coding, format=container) as file:
        for start in range(0, samples, 10_000):
            file.write(0.1 * rng.standard_normal((min(10_000, samples - start), 1)))
    return path


def joined(reader: AudioReader, start: int, samples: int | None) -> np.ndarray:
    return np.concatenate(list(reader.clip(start, samples)), axis=1)


@pytest.mark.parametrize("name", FORMATS)
def test_parts_are_slices_of_the_whole(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name)
    with AudioReader(path) as reader:
        whole = np.concatenate(list(reader), axis=1)
    with AudioReader(path) as reader:
        for start, samples in PARTS:
            assert np.array_equal(joined(reader, start, samples), whole[:, start : start + samples]), start
            assert reader.position == min(start + samples, whole.shape[1])
    with AudioReader(path) as reader:
        assert np.array_equal(joined(reader, 150_000, None), whole[:, 150_000:])


@pytest.mark.parametrize("name", ["a.wav", "a.mp3"])
def test_a_part_is_resampled_as_a_file_of_its_samples(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name, rate=44_100)
    with AudioReader(path) as reader:
        whole = np.concatenate(list(reader), axis=1)
    with AudioReader(path, 24_000) as reader:
        for start, samples in PARTS:
            alone = tmp_path / "alone.wav"
            soundfile.write(alone, whole[0, start : start + samples], 44_100, "FLOAT")
            with AudioReader(alone, 24_000) as other:
                expected = np.concatenate(list(other), axis=1)
            assert np.array_equal(joined(reader, start, samples), expected), start


def test_a_reader_does_not_go_back(tmp_path: Path) -> None:
    with AudioReader(make(tmp_path / "a.wav")) as reader:
        joined(reader, 1000, 1000)
        with pytest.raises(StreamError, match="open the file again"):
            joined(reader, 1999, 1)


def test_a_damaged_end_is_found_by_the_part_that_needs_it(tmp_path: Path) -> None:
    path = make(tmp_path / "a.flac")
    path.write_bytes(path.read_bytes()[:-20_000])
    with AudioReader(path) as reader:
        assert joined(reader, 70_000, 1000).shape == (1, 1000)
    with AudioReader(path) as reader, pytest.raises(FileFormatError):
        joined(reader, 195_000, 1000)


@pytest.mark.parametrize("name", FORMATS)
def test_a_part_of_another_file_is_a_source(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name, 20_000)
    holder = tmp_path / "holder"
    content = path.read_bytes()
    holder.write_bytes(b"before" + content + b"RIFFafter" * 100)
    with AudioReader(path) as one, AudioReader(ByteSource.within(holder, 6, len(content), "holder: a")) as other:
        assert np.array_equal(np.concatenate(list(one), axis=1), np.concatenate(list(other), axis=1))
        assert other.notes == one.notes
    with pytest.raises(FileFormatError, match="holder: a"):
        AudioReader(ByteSource.within(holder, 0, 6, "holder: a"))


def test_a_window_reads_only_its_own_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with ByteSource.within(tmp_path / "file", 10, 20, "part") as source:
        file = source.file
        assert file.read() == bytes(range(10, 30))
        assert file.read(1) == b""
        assert file.seek(-5, io.SEEK_END) == 15
        assert file.read(100) == bytes(range(25, 30))
        assert file.seek(50) == 50
        assert file.read(3) == b""
