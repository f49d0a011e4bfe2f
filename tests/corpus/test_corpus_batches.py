"""Many recordings at once on a device of torch, here the CPU: no recording changes another's codes.

What a graphics card adds is another device's arithmetic, which no test here sees.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from cli_kit import Run, save_random
from corpus_kit import content, encode, lines, make_sounds

from streaming_encodec.corpus.batches import BatchEncoder
from streaming_encodec.corpus.encoding import Encoding, RecordingEncoder
from streaming_encodec.corpus.recordings import Recording
from streaming_encodec.corpus.sources.folder import SoundFolder
from streaming_encodec.corpus.transcode import engine_of
from streaming_encodec.errors import ConfigError
from streaming_encodec.model.encodec import EncodecModel

DEVICE = "cpu:0"


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in float64, in which a batch and one stream give the same codes."""
    folder = tmp_path_factory.mktemp("models")
    save_random(folder / "single", num_filters=2, hidden_size=8)
    model = EncodecModel.from_pretrained(folder / "single").double()
    model.save_pretrained(folder / "exact-24khz", torch.float64)
    return folder / "exact-24khz"


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    """Of lengths from nothing to some seconds; one is broken."""
    folder = make_sounds(tmp_path / "sounds", 9, 30_000)
    soundfile.write(folder / "00003.wav", np.zeros(0), 24_000)
    soundfile.write(folder / "00005.wav", 0.1 * np.random.default_rng(5).standard_normal(150_000), 24_000)
    (folder / "00006.wav").write_bytes(b"no sound")
    return list(SoundFolder(folder))


def encoded(encoder: BatchEncoder, recordings: list[Recording]) -> tuple[dict[str, Encoding], dict[str, str]]:
    failed: dict[str, str] = {}
    found = dict[str, Encoding]()
    for recording, encoding in encoder.encode(recordings, lambda bad, why: failed.update({bad.id: why})):
        found[recording.id] = encoding
    assert list(found) == [each.id for each in recordings if each.id in found], "in the order of the list"
    return found, failed


def test_a_batch_encodes_each_as_alone(exact: Path, recordings: list[Recording]) -> None:
    together, failed = encoded(BatchEncoder(str(exact), 6.0, "auto", DEVICE, 4), recordings)
    assert failed.keys() == {"00006"}
    model = EncodecModel.from_pretrained(exact)
    alone = RecordingEncoder(model, 6.0, engine_of(model, "fused"))
    for recording in recordings:
        if recording.id not in failed:
            one, other = alone.encode(recording), together[recording.id]
            assert np.array_equal(one.codes, other.codes), recording.id
            assert one.samples == other.samples
            assert other.codes.dtype == np.uint16


def test_codes_do_not_depend_on_the_company(mono_model: Path, recordings: list[Recording]) -> None:
    encoder = BatchEncoder(str(mono_model), 6.0, "auto", DEVICE, 3)
    together, _ = encoded(encoder, recordings)
    backwards, _ = encoded(encoder, recordings[::-1])
    assert together.keys() == backwards.keys()
    for recording in recordings:
        if recording.id in together:
            (alone,) = encoded(encoder, [recording])[0].values()
            for other in (together, backwards):
                assert np.array_equal(alone.codes, other[recording.id].codes), recording.id


@pytest.mark.parametrize("kind", ["mono_model", "segment_model"])
@pytest.mark.parametrize("output", ["wds", "ecdc"])
def test_a_corpus_on_a_device_says_so(
    kind: str, output: str, request: pytest.FixtureRequest, recordings: list[Recording], tmp_path: Path
) -> None:
    model, sounds = request.getfixturevalue(kind), tmp_path / "sounds"
    first = encode(sounds, tmp_path / "one", model, output=output, shard_size=4, device=DEVICE, batch=2)
    assert (first.recordings, [line["id"] for line in first.failed]) == (8, ["00006"])
    encode(sounds, tmp_path / "two", model, output=output, shard_size=4, device=DEVICE, batch=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(lines(tmp_path / "one" / "done.jsonl")) == (3 if output == "wds" else 8)
    with pytest.raises(ConfigError, match="another kind"):
        encode(sounds, tmp_path / "one", model, output=output, shard_size=4)
    with pytest.raises(ConfigError, match="batch is 2 there, 3 here"):
        encode(sounds, tmp_path / "one", model, output=output, shard_size=4, device=DEVICE, batch=3)


@pytest.mark.parametrize("device", ["cuda:7", "warp", "cuda:x"])
def test_a_device_that_is_not_there_is_one_error(run: Run, mono_model: Path, tmp_path: Path, device: str) -> None:
    sounds = make_sounds(tmp_path / "s", 1)
    result = run("corpus", sounds, tmp_path / "out", "-m", mono_model, "--device", device)
    result.fails_with(f"no device '{device}' here")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card that torch can use")
def test_a_graphics_card_gives_nearly_the_codes_of_the_processor(recordings: list[Recording]) -> None:
    on_card, _ = encoded(BatchEncoder("voice-24khz", 6.0, "auto", "cuda", 4), recordings)
    here, _ = encoded(BatchEncoder("voice-24khz", 6.0, "auto", DEVICE, 4), recordings)
    same = [np.mean(on_card[name].codes == here[name].codes) for name in here if here[name].codes.size]
    assert np.mean(same) > 0.99
