"""`.ecdc` against the original package, in both directions, byte for byte."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import original_encodec as oracle
import pytest
import torch
from ecdc_kit import read_ecdc, read_ecdc_header

from streaming_encodec.audio.files.ecdc import EcdcWriter
from streaming_encodec.corpus.transcode import layout_of
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.streaming.segments import Segment, SegmentDecoder, SegmentEncoder
from streaming_encodec.wire.ecdc import EcdcHeader

# Ours folds the weight norm once; the original computes it anew at each call.
ATOL = 1e-9


class Pair:
    """The same weights in the original and in ours, in float64, where no tie flips a code."""

    def __init__(self, original: oracle.Original, folder: Path) -> None:
        self.original = original.double()
        self.ours = EncodecModel.from_pretrained(oracle.save_th(self.original, folder / "model.th")).double()
        self.layout = layout_of(self.ours.config)

    def sound(self, samples: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(samples)
        shape = (self.original.channels, samples)
        return torch.randn(shape, generator=generator, dtype=torch.float64) * 0.3

    def write(self, sound: torch.Tensor, kbps: float, path: Path) -> bytes:
        """Ours, in blocks as a file would come."""
        books = self.ours.config.num_codebooks_for(kbps)
        blocks = [block.numpy() for block in sound.split(4801, dim=1)]
        with EcdcWriter(path, self.original.name, books, self.layout) as writer:
            if self.ours.config.streams_by_sample:
                encoder = StreamingEncoder(self.ours, kbps, start="exact", frames_per_step=5, engine="eager")
                for block in blocks:
                    writer.push(encoder.push(block))
                writer.push(encoder.flush())
            else:
                by_segment = SegmentEncoder(self.ours, kbps)
                for block in blocks:
                    for codes, scale in by_segment.push(block):
                        writer.push_segment(codes, float(scale[0]))
                for codes, scale in by_segment.flush():
                    writer.push_segment(codes, float(scale[0]))
            size = writer.close(sound.shape[1])
        data = path.read_bytes()
        assert len(data) == size
        return data

    def read(self, data: bytes, path: Path) -> np.ndarray:
        """Ours: [C, T]."""
        path.write_bytes(data)
        header = read_ecdc_header(path)
        pieces = []
        if self.ours.config.streams_by_sample:
            decoder = StreamingDecoder(self.ours, start="exact", frames_per_step=5, engine="eager")
            pieces = [decoder.push(block.codes) for block in read_ecdc(path, lambda _: self.layout)]
            pieces.append(decoder.flush())
        else:
            by_segment = SegmentDecoder(self.ours)
            for block in read_ecdc(path, lambda _: self.layout):
                pieces.append(by_segment.push(Segment(block.codes, np.array([block.scale]))))
            pieces.append(by_segment.flush())
        return np.concatenate(pieces, axis=1)[:, : header.samples]


@pytest.fixture(scope="module", params=[24_000, 48_000])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(oracle.small_original(request.param), tmp_path_factory.mktemp("pair"))


# 48000 samples at 48 kHz are one segment and the start of another; 1 is a frame of almost nothing.
@pytest.mark.parametrize("samples", [1, 319, 6719, 24_001, 48_000, 100_003])
@pytest.mark.parametrize("kbps", [3.0, 6.0, 24.0])
def test_ours_writes_what_the_original_writes(pair: Pair, samples: int, kbps: float, tmp_path: Path) -> None:
    sound = pair.sound(samples)
    pair.original.set_target_bandwidth(kbps)
    want = oracle.compress(pair.original, sound)
    assert pair.write(sound, kbps, tmp_path / "ours.ecdc") == want
    # The codes are not all alike, or the comparison would be empty.
    codes = np.concatenate([b.codes for b in read_ecdc(tmp_path / "ours.ecdc", lambda _: pair.layout)], axis=1)
    assert samples < 1000 or len(np.unique(codes)) > 40


@pytest.mark.parametrize("samples", [319, 24_001, 48_000, 100_003])
def test_each_reads_what_the_other_wrote(pair: Pair, samples: int, tmp_path: Path) -> None:
    sound = pair.sound(samples)
    pair.original.set_target_bandwidth(6.0)
    theirs = oracle.compress(pair.original, sound)
    from_ours = oracle.decompress(pair.original, pair.write(sound, 6.0, tmp_path / "ours.ecdc")).numpy()
    from_theirs = pair.read(theirs, tmp_path / "theirs.ecdc")
    assert from_theirs.shape == from_ours.shape == tuple(sound.shape)
    np.testing.assert_allclose(from_theirs, oracle.decompress(pair.original, theirs).numpy(), atol=ATOL)
    np.testing.assert_allclose(from_theirs, from_ours, atol=ATOL)


def test_the_original_passes_over_what_is_said_of_the_arithmetic(pair: Pair, tmp_path: Path) -> None:
    sound = pair.sound(24_001)
    plain = pair.write(sound, 6.0, tmp_path / "plain.ecdc")
    header = read_ecdc_header(tmp_path / "plain.ecdc")
    said = replace(header, arithmetic="kernel-1").to_bytes()
    data = said + plain[len(header.to_bytes()) :]
    assert EcdcHeader.parse(data) == (replace(header, arithmetic="kernel-1"), len(said))
    want = oracle.decompress(pair.original, plain).numpy()
    assert np.array_equal(oracle.decompress(pair.original, data).numpy(), want)
    assert np.array_equal(pair.read(data, tmp_path / "said.ecdc"), pair.read(plain, tmp_path / "plain.ecdc"))


def test_a_length_that_the_original_cannot_read_back(pair: Pair, tmp_path: Path) -> None:
    # In floating point 6720 / rate * frame_rate is a little above 21: the original asks for a 22nd frame.
    sound = pair.sound(6720)
    pair.original.set_target_bandwidth(6.0)
    data = oracle.compress(pair.original, sound)
    assert pair.write(sound, 6.0, tmp_path / "ours.ecdc") == data
    with pytest.raises(EOFError):
        oracle.decompress(pair.original, data)
    assert pair.read(data, tmp_path / "theirs.ecdc").shape == tuple(sound.shape)


def test_the_published_size(tmp_path: Path) -> None:
    full = Pair(oracle.full_original_24khz(), tmp_path)
    sound = full.sound(8000)
    full.original.set_target_bandwidth(24.0)
    data = oracle.compress(full.original, sound)
    assert full.write(sound, 24.0, tmp_path / "ours.ecdc") == data
    want = oracle.decompress(full.original, data).numpy()
    np.testing.assert_allclose(full.read(data, tmp_path / "theirs.ecdc"), want, atol=ATOL)
