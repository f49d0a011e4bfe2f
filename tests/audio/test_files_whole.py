"""Law 12: a sound file gives all of its samples, or one clear error."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sound_kit import APE, ID3V1, ID3V2, RATE, encoded, joined_by_walk, mp3_of, patched, sound, unfinished

from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.errors import FileFormatError

CHUNKED = ["WAV", "RF64", "AIFF", "AU", "W64", "CAF"]
FORMATS = [
    *((kind, sub) for kind in CHUNKED for sub in ("PCM_16", "PCM_24", "FLOAT", "ULAW")),
    ("WAVEX", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "DOUBLE"),
]


def read(tmp_path: Path, data: bytes) -> tuple[np.ndarray, list[str]]:
    path = tmp_path / "sound"
    path.write_bytes(data)
    with AudioReader(path) as reader:
        blocks = np.concatenate([np.zeros((reader.channels, 0), np.float32), *reader], axis=1)
        promised = reader.info.samples
        assert reader.samples_read == blocks.shape[1]
        assert promised is None or abs(promised - blocks.shape[1]) <= 3 * 1152
    return blocks.T, reader.notes


def plain(tmp_path: Path, data: bytes) -> np.ndarray:
    """What libsndfile reads of a whole file."""
    path = tmp_path / "plain"
    path.write_bytes(data)
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


# -- recorders that were killed


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
@pytest.mark.parametrize("length", [0, -1])
def test_a_header_that_was_never_completed(tmp_path: Path, kind: str, subtype: str, length: int) -> None:
    data = encoded(sound(10_001, 2), kind, subtype)
    want = plain(tmp_path, data)
    got, notes = read(tmp_path, unfinished("WAV" if kind == "WAVEX" else kind, data, length))
    # Behind the sound of a whole file there may be a chunk (PEAK), which cannot be told from sound any more.
    assert 0 <= len(got) - len(want) <= 8
    np.testing.assert_array_equal(got[: len(want)], want)
    assert "does not say how long" in " ".join(notes)


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_a_file_without_sound_is_not_a_broken_one(tmp_path: Path, kind: str) -> None:
    got, notes = read(tmp_path, encoded(sound(0), kind))
    assert (len(got), notes) == (0, [])
    if kind == "WAV":
        fmt = encoded(sound(0), "WAV")[20:36]
        got, notes = read(
            tmp_path, joined_by_walk((b"fmt ", fmt), (b"data", b""), (b"LIST", b"INFOISFT\x04\0\0\0me\0\0"))
        )
        assert (len(got), notes) == (0, [])


def test_packed_sound_of_unknown_length_is_refused(tmp_path: Path) -> None:
    data = unfinished("WAV", encoded(sound(10_000), "WAV", "IMA_ADPCM"))
    with pytest.raises(FileFormatError, match=r"sound: its header was never completed.*repair"):
        read(tmp_path, data)


@pytest.mark.parametrize("beyond", [0, 20_000])
def test_a_wav_beyond_four_gigabytes(tmp_path: Path, beyond: int) -> None:
    """The length has the last 32 bits alone; the sound is a hole in the file, but for its end."""
    path = tmp_path / "long.wav"
    end = sound(1000)
    data = encoded(end, "WAV", "PCM_16")
    total = 2**32 + beyond
    with path.open("wb") as file:
        file.write(patched(data[:44], b"data", 4, struct.pack("<I", total % 2**32)))
        file.seek(44 + total - 2000)
        file.write(data[44:])
    with AudioReader(path) as reader:
        assert reader.info.samples == total // 2
        reader._pieces[0]._data.seek(0)
        assert reader._pieces[0]._file is not None
        reader._pieces[0]._file.seek(total // 2 - 1000)
        np.testing.assert_allclose(reader._pieces[0].read(5000), end, atol=1e-4)


# -- cut off


@pytest.mark.parametrize("kind", [*CHUNKED, "FLAC", "OGG"])
@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str, keep: float) -> None:
    data = encoded(sound(60_001), kind, None if kind in ("FLAC", "OGG") else "PCM_16")
    with pytest.raises(FileFormatError, match=r"sound: (cut off|damaged)"):
        read(tmp_path, data[: int(keep * len(data))])


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
def test_an_ogg_cut_off_between_pages_says_so(tmp_path: Path, kind: str) -> None:
    data = encoded(sound(400_000), "OGG", kind)
    pages = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    got, notes = read(tmp_path, data[: pages[len(pages) // 2]])
    assert 20_000 < len(got) < 400_000
    assert "no end mark" in notes[0]
    with pytest.raises(FileFormatError, match="pages are missing"):
        read(tmp_path, data[: pages[3]] + data[pages[4] :])


def test_an_mp3_with_fewer_frames_than_it_says_is_refused(tmp_path: Path) -> None:
    data = mp3_of(sound(100_000), tmp_path, xing=True)
    with pytest.raises(FileFormatError, match=r"cut off: \d+ of \d+ MP3 frames"):
        read(tmp_path, data[: len(data) // 2])


def test_an_mp3_cut_off_in_its_last_frame_says_so(tmp_path: Path) -> None:
    data = mp3_of(sound(100_000), tmp_path, xing=False)
    whole, _ = read(tmp_path, data)
    got, notes = read(tmp_path, data[:-30])
    assert len(whole) - len(got) == 576 * 2 if RATE > 24_000 else 576
    assert "last MP3 frame is cut off" in notes[0]


# -- joined


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_files_that_were_joined(tmp_path: Path, subtype: str) -> None:
    files = [encoded(sound(n, 2, n), "OGG", subtype) for n in (30_000, 100, 50_000)]
    want = np.concatenate([plain(tmp_path, data) for data in files])
    got, notes = read(tmp_path, b"".join(files))
    np.testing.assert_array_equal(got, want)
    assert notes == ["3 files were joined in it, and are read one after the other"]


@pytest.mark.parametrize("kind", ["FLAC", "WAV", "AIFF", "W64", "CAF"])
def test_other_files_that_were_joined(tmp_path: Path, kind: str) -> None:
    files = [encoded(sound(n, 1, n), kind) for n in (30_001, 2_000)]
    want = np.concatenate([plain(tmp_path, data) for data in files])
    got, notes = read(tmp_path, b"".join(files))
    np.testing.assert_array_equal(got, want)
    assert "2 files were joined" in notes[0]


@pytest.mark.parametrize("xing", [True, False])
@pytest.mark.parametrize("tags", [True, False])
def test_mp3_files_that_were_joined(tmp_path: Path, xing: bool, tags: bool) -> None:
    files = [mp3_of(sound(n, 1, n), tmp_path, xing) for n in (60_000, 30_000)]
    each = [read(tmp_path, data)[0] for data in files]
    whole = b"".join((ID3V2 + data + ID3V1 if tags else data) for data in files)
    got, _ = read(tmp_path, whole)
    assert len(got) == sum(map(len, each))
    if tags or xing:
        np.testing.assert_array_equal(got, np.concatenate(each))
    else:
        np.testing.assert_array_equal(got[: len(each[0])], each[0])


def test_files_of_two_rates_that_were_joined_are_refused(tmp_path: Path) -> None:
    for kind in ("OGG", "FLAC", "WAV"):
        data = encoded(sound(9000), kind) + encoded(sound(9000), kind, rate=16_000)
        with pytest.raises(FileFormatError, match=r"number 2 has 16000 Hz.*take them apart"):
            read(tmp_path, data)


def test_a_film_in_ogg_is_refused(tmp_path: Path) -> None:
    one, other = (encoded(sound(9000, 1, seed), "OGG") for seed in (1, 2))
    first = one.index(b"OggS", 4)
    with pytest.raises(FileFormatError, match="several streams at once"):
        read(tmp_path, one[:first] + other)


# -- MP3s that do not state their length, and what lies around them


@pytest.mark.parametrize("xing", [True, False])
@pytest.mark.parametrize("rate", [24_000, 44_100, 8000])
def test_an_mp3_of_variable_rate(tmp_path: Path, xing: bool, rate: int) -> None:
    # Loud first: the first frame's size says little of the others'.
    pcm = np.concatenate([sound(rate) * 3, 0.01 * sound(5 * rate, 1, 1)])
    got, notes = read(tmp_path, mp3_of(pcm, tmp_path, xing, rate))
    assert notes == []
    assert 0 <= len(got) - len(pcm) <= (0 if xing else 3 * 1152)


@pytest.mark.parametrize("xing", [True, False])
def test_tags_are_no_sound(tmp_path: Path, xing: bool) -> None:
    data = mp3_of(sound(60_000), tmp_path, xing)
    want, _ = read(tmp_path, data)
    for before, behind in ((ID3V2, b""), (b"", ID3V1), (APE, APE + ID3V1), (ID3V2 + APE, APE), (b"", bytes(5000))):
        got, notes = read(tmp_path, before + data + behind)
        np.testing.assert_array_equal(got, want)
        assert notes == []


def test_rubbish_in_an_mp3_is_told(tmp_path: Path) -> None:
    data = mp3_of(sound(60_000), tmp_path, False)
    frames = read(tmp_path, data)[0]
    got, notes = read(tmp_path, data + b"hello" * 50)
    assert "no MP3 frame" in notes[0]
    assert len(got) == len(frames)
    got, notes = read(tmp_path, data[:1000] + b"hello" * 50 + data[1000:])
    assert "no MP3 frame" in notes[0]
    assert len(frames) - len(got) <= 3 * 1152


def test_tags_around_other_files(tmp_path: Path) -> None:
    for kind in ("WAV", "AIFF", "FLAC", "OGG"):
        data = encoded(sound(9000), kind)
        for tag in (ID3V1, APE, APE + ID3V1):
            got, notes = read(tmp_path, data + tag)
            np.testing.assert_array_equal(got, plain(tmp_path, data))
            assert notes == []
    got, _ = read(tmp_path, ID3V2 + encoded(sound(9000), "FLAC"))
    assert len(got) == 9000


# -- odd WAVs


def test_chunks_in_another_order(tmp_path: Path) -> None:
    data = encoded(sound(9001), "WAV", "PCM_24")
    fmt, samples = data[20:36], data[44 : 44 + 3 * 9001]
    want = plain(tmp_path, data)
    extra = (b"LIST", b"INFOISFT\x04\0\0\0me\0\0")
    for chunks in (
        ((b"JUNK", bytes(27)), (b"fmt ", fmt), extra, (b"data", samples), extra),
        ((b"bext", bytes(603)), (b"fmt ", fmt), (b"data", samples), (b"id3 ", ID3V2)),
    ):
        got, notes = read(tmp_path, joined_by_walk(*chunks))
        np.testing.assert_array_equal(got, want)
        assert notes == []
    with pytest.raises(FileFormatError, match="sound: "):
        read(tmp_path, joined_by_walk((b"data", samples), (b"fmt ", fmt)))
    with pytest.raises(FileFormatError, match="without sound"):
        read(tmp_path, joined_by_walk((b"fmt ", fmt), extra))
    with pytest.raises(FileFormatError, match="more than one piece of sound"):
        read(tmp_path, joined_by_walk((b"fmt ", fmt), (b"data", samples), (b"data", samples)))


def test_what_follows_the_sound_is_told(tmp_path: Path) -> None:
    for kind in ("WAV", "AU"):
        data = encoded(sound(9000), kind, "PCM_16")
        got, notes = read(tmp_path, data + b"\x01\x02\x03 rubbish")
        assert len(got) == 9000
        assert "11 bytes behind the sound are no part of" in notes[0]


def test_an_mp3_in_a_wav(tmp_path: Path) -> None:
    mp3 = mp3_of(np.concatenate([3 * sound(20_000), 0.01 * sound(60_000)]), tmp_path, False)
    fmt = struct.pack("<HHIIHH", 0x55, 1, RATE, 8000, 1, 0) + struct.pack("<HHIHHH", 12, 1, 2, 576, 1, 1393)
    got, _ = read(tmp_path, joined_by_walk((b"fmt ", fmt), (b"fact", bytes(4)), (b"data", mp3)))
    np.testing.assert_array_equal(got, read(tmp_path, mp3)[0])


# -- rates and channels that cannot be


@pytest.mark.parametrize("rate", [0, 1, 2_000_000, 2**31, 2**32 - 1])
def test_a_rate_that_cannot_be_is_refused(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(patched(encoded(sound(30_000), "WAV", "PCM_16"), b"fmt ", 12, struct.pack("<I", rate)))
    with pytest.raises(FileFormatError, match=r"a\.wav: (claims a sample rate of|not an audio file)"):
        AudioReader(path, RATE)


@pytest.mark.parametrize("rate", [300, 768_000])
def test_odd_rates_are_resampled_in_little_memory(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(patched(encoded(sound(300_000), "WAV", "PCM_16"), b"fmt ", 12, struct.pack("<I", rate)))
    with AudioReader(path, RATE) as reader:
        blocks = [block.shape[1] for block in reader]
        assert reader.samples is not None
        assert abs(sum(blocks) - reader.samples) <= 2 * max(1, RATE // rate)
    assert max(blocks) < 2**19


def test_a_thousand_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(np.repeat(sound(3000), 1000, axis=1), "WAV", "PCM_16"))
    with AudioReader(path, None, 1) as reader:
        got = np.concatenate(list(reader), axis=1)
    np.testing.assert_allclose(got[0], sound(3000)[:, 0], atol=1e-3)
    with pytest.raises(FileFormatError, match="1000 channels, 2 are wanted"):
        AudioReader(path, None, 2)
