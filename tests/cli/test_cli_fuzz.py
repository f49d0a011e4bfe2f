"""Whatever is wrong with a file, a command that reads it ends in words: no traceback, no leftovers, little memory."""

from __future__ import annotations

import os
import random
import resource
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from cli_kit import Run
from file_mutations import mutated
from sound_kit import encoded, mp3_of, sound

from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.stepping.state import StreamState
from streaming_encodec.streaming.encoder import StreamingEncoder

FEW, MANY = 110, 5000
MOST_MIB = 700
"""That the memory may grow by in all: no file may take what its header claims."""

SOUNDS = ("wav", "float.wav", "adpcm.wav", "flac", "ogg", "opus", "mp3", "xing.mp3", "aiff", "au", "w64", "rf64", "caf")
OTHERS = ("ecdc", "config.json", "model.safetensors", "state")


def whole_files(run: Run, model: Path, folder: Path) -> dict[str, bytes]:
    """One good file of each kind."""
    pcm = sound(5000)
    files = {
        "wav": encoded(pcm, "WAV", "PCM_16"),
        "float.wav": encoded(pcm, "WAV", "FLOAT"),
        "adpcm.wav": encoded(pcm, "WAV", "IMA_ADPCM"),
        "flac": encoded(pcm, "FLAC"),
        "ogg": encoded(pcm, "OGG", "VORBIS"),
        "opus": encoded(pcm, "OGG", "OPUS"),
        "mp3": mp3_of(pcm, folder, False),
        "xing.mp3": mp3_of(pcm, folder, True),
        "aiff": encoded(pcm, "AIFF"),
        "au": encoded(pcm, "AU"),
        "w64": encoded(pcm, "W64"),
        "rf64": encoded(pcm, "RF64"),
        "caf": encoded(pcm, "CAF"),
    }
    (folder / "a.wav").write_bytes(files["wav"])
    assert run("encode", folder / "a.wav", folder / "a.ecdc", "-m", model).code == 0
    files["ecdc"] = (folder / "a.ecdc").read_bytes()
    for name in ("config.json", "model.safetensors"):
        files[name] = (model / name).read_bytes()
    encoder = StreamingEncoder(EncodecModel.from_pretrained(model))
    encoder.push(pcm.T)
    encoder.state().save(folder / "state")
    files["state"] = (folder / "state").read_bytes()
    return files


class Fuzz:
    """Mutated files, one after the other, through the commands that read their kind."""

    def __init__(self, run: Run, model: Path, folder: Path) -> None:
        self._run, self._model = run, model
        self._broken = shutil.copytree(model, folder / "broken-24khz")
        self._in, self._out = folder / "in", folder / "out"
        self._in.mkdir()
        self._out.mkdir()
        self._encoder = StreamingEncoder(EncodecModel.from_pretrained(model))
        self.outcomes: Counter[str] = Counter()

    def one(self, kind: str, data: bytes, turn: int) -> None:
        """A file of this kind with this content; the commands take turns."""
        path = self._in / f"a.{kind}"
        path.write_bytes(data)
        if kind == "state":
            self._state(path)
            return
        model, source = self._model, path
        if kind in ("config.json", "model.safetensors"):
            model, source = self._broken, self._in / "good.wav"
            (self._broken / kind).write_bytes(data)
        decoded: list[tuple[object, ...]] = [("decode", path, self._out / "a.wav", "-m", model), ("info", path)]
        others: list[tuple[object, ...]] = [
            ("info", model if model is self._broken else path),
            ("encode", source, self._out / "a.ecdc", "-m", model),
            ("stream", source, self._out / "a.wav", "-m", model),
        ]
        commands = decoded if kind == "ecdc" else others
        result = self._run(*commands[turn % len(commands)], "--json")
        if model is self._broken:
            shutil.copy(self._model / kind, self._broken / kind)
        left = os.listdir(self._out)
        if result.code == 0:
            self.outcomes[f"{kind} read"] += 1
            assert result.json
            if "a.wav" in left:
                assert soundfile.info(self._out / "a.wav").frames == result.json["samples"]
        else:
            self.outcomes[f"{kind} refused"] += 1
            said = [line for line in result.err.splitlines() if not line.startswith("note:")]
            assert (result.code, len(said), left) == (1, 1, []), (result.code, result.err, left)
        for name in left:
            (self._out / name).unlink()

    def _state(self, path: Path) -> None:
        try:
            self._encoder.load_state(StreamState.load(path))
            self._encoder.push(sound(500).T)
            self.outcomes["state read"] += 1
        except StreamError:
            self.outcomes["state refused"] += 1


@pytest.fixture
def fuzz(run: Run, mono_model: Path, tmp_path: Path) -> Callable[[int, int], Counter[str]]:
    def go(count: int, seed: int) -> Counter[str]:
        rng = random.Random(seed)
        files = whole_files(run, mono_model, tmp_path)
        subject = Fuzz(run, mono_model, tmp_path)
        (tmp_path / "in" / "good.wav").write_bytes(files["wav"])
        kinds = SOUNDS + OTHERS
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(count):
            kind = kinds[number % len(kinds)]
            data = mutated(files[kind], files[rng.choice(kinds)], rng)
            try:
                subject.one(kind, data, number // len(kinds))
            except BaseException as error:
                (tmp_path / "culprit").write_bytes(data)
                error.add_note(f"mutation {number}, a {kind}, seed {seed}; kept in {tmp_path / 'culprit'}")
                raise
        grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
        print(f"\n{count} mutated files, no traceback; memory grew by {grown_mib:.0f} MiB: {dict(subject.outcomes)}")
        assert grown_mib < MOST_MIB
        return subject.outcomes

    return go


def test_a_few_broken_files(fuzz: Callable[[int, int], Counter[str]]) -> None:
    outcomes = fuzz(FEW, 0)
    assert sum(outcomes.values()) == FEW
    assert sum(count for name, count in outcomes.items() if name.endswith("refused")) > FEW // 4


@pytest.mark.slow
def test_five_thousand_broken_files(
    fuzz: Callable[[int, int], Counter[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        outcomes = fuzz(MANY, 1)
    assert sum(outcomes.values()) == MANY
