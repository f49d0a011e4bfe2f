"""What was written is read by the libraries that people use, and by itself."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import Run, save_random
from corpus_kit import content, encode, lines, make_tar, wav_bytes
from numpy.typing import NDArray

from streaming_encodec.audio.files.ecdc import EcdcReader
from streaming_encodec.corpus.encode import plan_corpus
from streaming_encodec.corpus.formats.find import FORMATS
from streaming_encodec.corpus.transcode import encode_file, layout_of
from streaming_encodec.corpus.verify import verify_corpus
from streaming_encodec.errors import ConfigError
from streaming_encodec.model.config import EncodecConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "corpora.md"
LENGTHS = {"a": 3000, "b.c": 1, "deep/d": 100_000, "e": 0}
TEXTS = {"a": "one", "b.c": "zwei, é", "deep/d": None, "e": "four"}


@pytest.fixture(params=["mono_model", "segment_model"])
def model(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list with fields."""
    entries = []
    for place, (name, samples) in enumerate(LENGTHS.items()):
        (tmp_path / f"{place}.wav").write_bytes(wav_bytes(samples, place))
        entries.append({"audio": f"{place}.wav", "id": name, "text": TEXTS[name], "n": place, "tags": [place]})
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


def expected_codes(listed: Path, model: Path) -> dict[str, tuple[NDArray[Any], list[float | None], int]]:
    """Codes, scales and samples by id, from the `.ecdc` of `encode_file`."""
    layout = layout_of(EncodecConfig.from_json(model / "config.json"))
    found = {}
    for place, name in enumerate(LENGTHS):
        target = listed.parent / "alone.ecdc"
        done = encode_file(listed.parent / f"{place}.wav", target, str(model))
        with EcdcReader(target) as reader:
            blocks = list(reader.blocks(layout))
        nothing = np.zeros((done.num_codebooks, 0), np.int64)
        codes = np.concatenate([nothing, *(block.codes for block in blocks)], axis=1)
        found[name] = codes, [block.scale for block in blocks], done.samples
    return found


def test_parquet_is_read_by_datasets(listed: Path, model: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    encode(listed, tmp_path / "out", model, output="parquet", shard_size=3)
    files = str(tmp_path / "out" / "*.parquet")
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    expected = expected_codes(listed, model)
    assert [row["id"] for row in data] == list(LENGTHS)
    for place, row in enumerate(data):
        codes, scales, samples = expected[row["id"]]
        assert np.array_equal(np.array(row["codes"], np.int64).reshape(len(codes), -1), codes)
        assert row["scales"] == (None if scales in ([], [None]) and "48" not in model.name else scales)
        assert (row["num_frames"], row["samples"], row["sample_rate"]) == (
            codes.shape[1],
            samples,
            json.loads((model / "config.json").read_text())["sampling_rate"],
        )
        assert (row["text"], row["n"], row["tags"]) == (TEXTS[row["id"]], place, f"[{place}]")
    assert str(data.features["codes"].feature.feature.dtype) == "uint16"


def test_tars_are_read_by_webdataset(listed: Path, model: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    encode(listed, tmp_path / "out", model, output="wds", shard_size=3)
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert len(urls) == 2
    expected = expected_codes(listed, model)
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["json"]["id"] for sample in samples] == list(LENGTHS)
    assert [sample["__key__"] for sample in samples] == ["a", "b%2Ec", "deep/d", "e"]
    for place, sample in enumerate(samples):
        codes, scales, length = expected[sample["json"]["id"]]
        assert sample["codes.npy"].dtype == np.uint16
        assert np.array_equal(sample["codes.npy"], codes)
        assert ("scales.npy" in sample) == ("48" in model.name)
        assert [float(scale) for scale in sample.get("scales.npy", [])] == [s for s in scales if s is not None]
        facts = sample["json"]
        assert (facts["samples"], facts["num_frames"], facts["tags"]) == (length, codes.shape[1], [place])


def test_files_are_read_by_the_lhotse_recipe_of_the_page(listed: Path, mono_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("lhotse", reason="lhotse is not installed")
    encode(listed, tmp_path / "out", mono_model, output="npy")
    recipe = re.search(r"lhotse, from `--format npy` [^\n]*\n\n```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert recipe is not None
    names: dict[str, Any] = {}
    exec(recipe[1].replace('"OUT"', repr(str(tmp_path / "out"))), names)  # noqa: S102
    expected = expected_codes(listed, mono_model)
    assert np.array_equal(names["codes"].T, expected["a"][0])
    cut = next(cut for cut in names["cuts"](tmp_path / "out") if cut.id == "deep/d")
    assert np.array_equal(cut.load_codes().T, expected["deep/d"][0])
    part = cut.truncate(offset=1.0, duration=0.5).load_codes()  # 0.5 s at 75 frames a second
    assert len(part) in (37, 38)
    assert np.array_equal(part.T, expected["deep/d"][0][:, 75 : 75 + len(part)])


def test_tars_carry_what_a_sample_had(mono_model: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    extra = {"k.txt": b"words", "k.pt": bytes(range(256)) * 300, "k.codes.npy": b"of another model"}
    make_tar(tmp_path / "in.tar", {"k.wav": wav_bytes(2000), "k.json": b'{"speaker": "s"}'} | extra)
    encode(tmp_path / "in.tar", tmp_path / "out", mono_model, output="wds")
    (sample,) = webdataset.WebDataset(str(tmp_path / "out" / "codes-000000.tar"), shardshuffle=False)
    assert sample["__key__"] == "in/k"
    assert {"txt": sample["txt"], "pt": sample["pt"], "npy": sample["source_codes.npy"]} == {
        "txt": extra["k.txt"],
        "pt": extra["k.pt"],
        "npy": extra["k.codes.npy"],
    }
    facts = json.loads(sample["json"])
    assert facts["speaker"] == "s"
    assert "txt" not in facts


def test_shards_say_nothing_of_when_and_by_whom_they_were_made(mono_model: Path, listed: Path, tmp_path: Path) -> None:
    encode(listed, tmp_path / "out", mono_model, output="wds")
    with tarfile.open(tmp_path / "out" / "codes-000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


@pytest.mark.parametrize("output", FORMATS)
def test_a_sample_is_verified_and_what_is_wrong_is_named(
    output: str, model: Path, listed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    encode(listed, out, model, output=output, shard_size=2)
    plan = plan_corpus(listed, out, str(model), output=output, shard_size=2)
    good = verify_corpus(plan, 100, set(), random.Random(0))
    assert (good.equal, good.wrong, len(good.snr_db)) == (4, {}, 4)
    assert verify_corpus(plan, 2, {"a"}, random.Random(0)).equal == 2
    (listed.parent / "2.wav").write_bytes(wav_bytes(100_000, 99))  # the source has changed
    (listed.parent / "0.wav").unlink()
    found = verify_corpus(plan, 100, set(), random.Random(0))
    assert found.equal == 2
    assert "not those of its sound" in found.wrong["deep/d"]
    assert "cannot be read any more" in found.wrong["a"]


def test_the_command_verifies(run: Run, mono_model: Path, listed: Path, tmp_path: Path) -> None:
    command = ("corpus", listed, tmp_path / "out", "-m", mono_model, "-f", "parquet", "-j", 1, "--verify", 3, "--json")
    facts = run(*command).json
    assert (facts["files"], facts["verified"], facts["wrong"]) == (4, 3, {})
    (listed.parent / "0.wav").write_bytes(wav_bytes(3000, 77))
    result = run(*command[:-3], "--verify", 4)
    assert (result.code, "a: its codes are not those of its sound" in " ".join(result.err.split())) == (1, True)


def test_npy_lines_hold_what_a_reader_needs(mono_model: Path, listed: Path, tmp_path: Path) -> None:
    encode(listed, tmp_path / "out", mono_model, output="npy")
    for line in lines(tmp_path / "out" / "done.jsonl"):
        array = np.load(tmp_path / "out" / line["file"])
        assert (array.dtype, array.shape[1]) == (np.uint16, line["num_frames"])
        assert line["fields"]["text"] == TEXTS[line["id"]]
    assert json.loads(content(tmp_path / "out")["dataset.json"])["codebooks"] == 8


def test_parquet_without_its_package_is_one_error(listed: Path, mono_model: Path, tmp_path: Path) -> None:
    program = "import sys; sys.modules['pyarrow'] = None; from streaming_encodec.cli.app import main; main()"
    command = [sys.executable, "-c", program, "corpus", listed, tmp_path / "out", "-m", mono_model, "-f", "parquet"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "streaming-encodec[corpus]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_format_that_is_none_is_refused(listed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose ecdc, wds, parquet, npy"):
        encode(listed, tmp_path / "out", save_random(tmp_path / "m"), output="zip")
