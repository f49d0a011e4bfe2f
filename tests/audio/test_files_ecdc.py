"""`.ecdc` files on disk: whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest
from ecdc_kit import read_ecdc, read_ecdc_header

from streaming_encodec.audio.files import ecdc as ecdc_file
from streaming_encodec.audio.files.ecdc import EcdcWriter
from streaming_encodec.errors import FileFormatError, StreamError
from streaming_encodec.wire.ecdc import EcdcHeader, EcdcLayout

LAYOUT = EcdcLayout(hop_length=320, codebook_size=1024, max_codebooks=8)


def codes(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).integers(0, 1024, (8, frames))


def test_length_is_told_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.ecdc"
    with EcdcWriter(path, "m", 8, LAYOUT) as writer:
        writer.push(codes(100))
        writer.push(codes(3))
        assert not path.exists()
        size = writer.close(103 * 320 - 5)
    assert size == path.stat().st_size
    assert read_ecdc_header(path) == EcdcHeader("m", 103 * 320 - 5, 8)
    got = np.concatenate([block.codes for block in read_ecdc(path, lambda _: LAYOUT)], axis=1)
    np.testing.assert_array_equal(got, np.concatenate([codes(100), codes(3)], axis=1))
    assert os.listdir(tmp_path) == ["a.ecdc"]


def test_more_than_the_spool_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecdc_file, "_SPOOL_BYTES", 100)
    path = tmp_path / "a.ecdc"
    with EcdcWriter(path, "m", 8, LAYOUT) as writer:
        writer.push(codes(1000))
        writer.close(320_000)
    got = np.concatenate([block.codes for block in read_ecdc(path, lambda _: LAYOUT)], axis=1)
    np.testing.assert_array_equal(got, codes(1000))
    assert os.listdir(tmp_path) == ["a.ecdc"]


def test_a_length_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    with EcdcWriter(tmp_path / "a.ecdc", "m", 8, LAYOUT) as writer:
        writer.push(codes(10))
        with pytest.raises(StreamError, match="11 frames, but 10"):
            writer.close(3201)
    assert os.listdir(tmp_path) == []


def test_not_closed_leaves_nothing(tmp_path: Path) -> None:
    with EcdcWriter(tmp_path / "a.ecdc", "m", 8, LAYOUT) as writer:
        writer.push(codes(10))
    assert os.listdir(tmp_path) == []


def test_too_many_codebooks_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="1 to 8 codebooks"):
        EcdcWriter(tmp_path / "a.ecdc", "m", 9, LAYOUT)
    assert os.listdir(tmp_path) == []


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ecdc"
    with pytest.raises(FileFormatError, match=r"a\.ecdc: cannot be read"):
        read_ecdc_header(path)
    path.write_bytes(b"ECDC\x00")
    for read in (read_ecdc_header, lambda p: list(read_ecdc(p, lambda _: LAYOUT))):
        with pytest.raises(FileFormatError, match=r"a\.ecdc: .*ends within its header"):
            read(path)
    path.write_bytes(EcdcHeader("m", 3200, 8).to_bytes() + b"123")
    with pytest.raises(FileFormatError, match=r"a\.ecdc: .*cut off"):
        list(read_ecdc(path, lambda _: LAYOUT))
