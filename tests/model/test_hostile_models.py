"""Model files out of their mind: one `CheckpointError`, at once, and without the memory that they ask for."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
from hypothesis import given, settings
from mutations import TEXTS, mutations, refusal
from safetensors.torch import load_file, save_file
from strategies import streaming_configs

from streaming_encodec.errors import CheckpointError, ConfigError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.size import MAX_PARAMETERS, check_size, model_size
from streaming_encodec.stepping.tree import named_arrays

TINY = EncodecConfig(
    num_filters=2, hidden_size=4, codebook_size=16, upsampling_ratios=(2, 2), target_bandwidths=(24.0, 48.0),
    num_lstm_layers=1,
)  # fmt: skip

CONFIGS: dict[str, dict[str, Any]] = {
    "a billion filters": {"num_filters": 10**9},
    "a billion layers": {"num_residual_layers": 10**9},
    "a billion LSTM layers": {"num_lstm_layers": 10**9},
    "a thousand LSTM layers": {"num_lstm_layers": 1000, "num_filters": 1024},
    "20,000 codebooks": {"target_bandwidths": [1.5, 15_000.0]},
    "a billion codebooks": {"target_bandwidths": [1.5, 1e9]},
    "codebooks of 2^40": {"codebook_size": 2**40},
    "codebooks of 2^30": {"codebook_size": 2**30},
    "wide": {"hidden_size": 2**30, "codebook_dim": 2**30},
    "a kernel of a billion": {"kernel_size": 10**9},
    "a last kernel of 65,536": {"last_kernel_size": 2**16, "num_filters": 4096},
    "dilated by a billion": {"dilation_growth_rate": 10**9, "num_residual_layers": 3},
    "dilated for ever": {"dilation_growth_rate": 2, "num_residual_layers": 64},
    "a thousand ratios": {"upsampling_ratios": [1] * 1000},
    "sixty ratios": {"upsampling_ratios": [1] * 60},
    "a ratio of a billion": {"upsampling_ratios": [10**9]},
    "ratios whose product is huge": {"upsampling_ratios": [1000, 1000, 1000]},
    "a rate of 10^30": {"sampling_rate": 10**30},
    "a bandwidth of 10^400": {"target_bandwidths": [1.5, 10**400]},
    "a number of 4,000 digits": {"num_filters": 10**4000},
    "a segment of a million years": {"chunk_length_s": 3e13, "overlap": 0.01, "normalize": True},
    "true for numbers": {"trim_right_ratio": True, "chunk_length_s": True, "overlap": False},
    "text for numbers": {"num_filters": "32"},
    "lists for numbers": {"num_filters": [32]},
    "objects for lists": {"upsampling_ratios": {"8": 5}},
}  # fmt: skip

_MEASURE = """
import json, resource, sys, time
from pathlib import Path
from streaming_encodec.errors import CheckpointError
from streaming_encodec.model.encodec import EncodecModel
unit = 1024 if sys.platform == "linux" else 1
warm = Path(sys.argv[1]) / "sound"
EncodecModel.from_pretrained(warm).encode(__import__("torch").zeros(1, 1, 100))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
report = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    if path == warm:
        continue
    begin = time.process_time()
    try:
        EncodecModel.from_pretrained(path)
        error = "loaded"
    except CheckpointError as caught:
        error = "" if len(str(caught)) < 1000 else "a message of %d" % len(str(caught))
    except BaseException as caught:
        error = repr(caught)[:200]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    report[path.name] = [error, time.process_time() - begin, grown / 2**20]
print(json.dumps(report))
"""


def _measure(folder: Path) -> dict[str, list[Any]]:
    """What became of every model of a folder, in a process of its own: an error that is none, seconds, MB."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(folder)], capture_output=True, text=True, timeout=600, check=True
    )
    report: dict[str, list[Any]] = json.loads(done.stdout)
    return report


def _refused_cheaply(folder: Path) -> None:
    EncodecModel(TINY).save_pretrained(folder / "sound")
    report = _measure(folder)
    assert len(report) == len(list(folder.iterdir())) - 1
    slowest = max(seconds for _, seconds, _ in report.values())
    grown = max(megabytes for _, _, megabytes in report.values())
    print(f"\n{len(report)} refused, the slowest in {slowest:.2f} s of CPU, with {grown:.0f} MB more than before")
    assert {name: error for name, (error, _, _) in report.items() if error} == {}
    assert slowest < 5, "seconds where it must be a fraction of one: something is made before it is checked"
    assert grown < 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    EncodecModel(TINY).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# -- configurations ------------------------------------------------------------------------------------------


def test_configurations_that_ask_for_everything(tmp_path: Path, folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    config = json.loads((folder / "config.json").read_text())
    sys.set_int_max_str_digits(0)
    try:
        texts = [json.dumps({**config, **changes}) for changes in CONFIGS.values()]
    finally:
        sys.set_int_max_str_digits(4300)
    for i, text in enumerate([*texts, *TEXTS, json.dumps(config)[:-1] + ', "x": "' + "x" * 2**21 + '"}']):
        target = tmp_path / "all" / f"{i:03d}"
        target.mkdir(parents=True)
        (target / "config.json").write_text(text)
        (target / "model.safetensors").write_bytes(weights)
    _refused_cheaply(tmp_path / "all")


def test_mutated_configurations(folder: Path) -> None:
    """Each is refused with one error, or makes a model that works."""
    document = json.loads((folder / "config.json").read_text())
    refused, count = 0, 1500
    for text in mutations(document, count):
        (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        message = refusal(lambda: EncodecModel.from_pretrained(folder).encode(torch.zeros(1, 1, 50)), CheckpointError)
        refused += message is not None
        assert message is None or len(message) < 1000
    print(f"\n{refused} of {count} mutated configurations refused, the others loaded and encoded")
    assert refused > count / 2


def test_a_model_too_large_is_not_made_without_a_file_either() -> None:
    for changes in ({"num_filters": 10**9}, {"target_bandwidths": (15_000.0,)}, {"num_lstm_layers": 1024}):
        with pytest.raises(ConfigError, match="the most"):
            EncodecModel(EncodecConfig(**changes))
    largest = EncodecConfig(num_filters=256)
    assert model_size(EncodecConfig()).parameters * 10 < MAX_PARAMETERS
    assert refusal(lambda: check_size(largest), ConfigError) is not None


@settings(max_examples=60)
@given(config=streaming_configs())
def test_the_arithmetic_is_never_below_the_model(config: EncodecConfig) -> None:
    size = model_size(config)
    with torch.device("meta"):
        model = EncodecModel(config)
    parameters = sum(t.numel() for t in model.state_dict().values())
    state = sum(t.numel() for part in (model.encoder, model.decoder) for _, t in named_arrays(part.init_state(1), ""))
    assert parameters <= size.parameters <= 3 * parameters
    assert state <= size.state_values


# -- safetensors ---------------------------------------------------------------------------------------------


def _with_header(path: Path, header: bytes, body: bytes, claimed: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if claimed is None else claimed) + header + body)


def test_headers_that_claim_everything(tmp_path: Path, folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    name = "encoder.layers.0.conv.bias"
    entry = header[name]
    headers = [
        {**header, name: {**entry, "shape": shape}}
        for shape in ([2**40], [2**31, 2**31, 4], [2**63], [-1], [], [0], ["2"], None, [1] * 1000, [2.0])
    ]
    headers += [
        {**header, name: {**entry, "data_offsets": offsets}}
        for offsets in ([0, 2**40], [2**63, 2**64], [8, 0], [-8, 0], [0], None, [0, 0], "all")
    ]
    headers += [{**header, name: {**entry, "dtype": dtype}} for dtype in ("F64", "I64", "F8_E4M3", "X", None, 5)]
    more = {f"extra.{i}": entry for i in range(20_000)}
    headers += [{**header, **more}, {}, {**header, "__metadata__": {"a": 1}}]
    texts = [json.dumps(value).encode() for value in headers] + [text.encode() for text in TEXTS]
    for i, text in enumerate(texts):
        target = tmp_path / "all" / f"{i:03d}"
        target.mkdir(parents=True)
        (target / "config.json").write_bytes((folder / "config.json").read_bytes())
        _with_header(target / "model.safetensors", text, body)
    for i, claimed in enumerate((2**63, 2**40, 50_000_000, 0)):
        target = tmp_path / "all" / f"claimed{i}"
        target.mkdir(parents=True)
        (target / "config.json").write_bytes((folder / "config.json").read_bytes())
        _with_header(target / "model.safetensors", json.dumps(header).encode(), body, claimed)
    sparse = tmp_path / "all" / "sparse"
    sparse.mkdir()
    (sparse / "config.json").write_bytes((folder / "config.json").read_bytes())
    large = {**header, name: {"dtype": "F32", "shape": [2**32], "data_offsets": [len(body), len(body) + 2**34]}}
    moved = json.dumps(large).encode()
    _with_header(sparse / "model.safetensors", moved, body)
    with (sparse / "model.safetensors").open("rb+") as file:
        file.truncate(8 + len(moved) + len(body) + 2**34)
    _refused_cheaply(tmp_path / "all")


def test_mutated_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + size])
    rng, refused, count = random.Random(0), 0, 600
    for text in mutations(header, count // 2):
        _with_header(folder / "model.safetensors", text.encode(errors="surrogatepass"), whole[8 + size :])
        refused += refusal(lambda: EncodecModel.from_pretrained(folder), CheckpointError) is not None
    for _ in range(count // 2):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 3, 30))):
            data[rng.randrange(size + 40)] = rng.randrange(256)
        (folder / "model.safetensors").write_bytes(data)
        refused += refusal(lambda: EncodecModel.from_pretrained(folder), CheckpointError) is not None
    print(f"\n{refused} of {count} mutated weight files refused")
    assert refused > count / 2


# -- shards --------------------------------------------------------------------------------------------------


def _shard(folder: Path, count: int = 3) -> dict[str, str]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places: dict[str, str] = {}
    for i in range(count):
        name = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[i::count]}
        save_file(part, folder / name)
        places |= dict.fromkeys(part, name)
    _index(folder, {"metadata": {"total_size": 1}, "weight_map": places})
    return places


def _index(folder: Path, content: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_a_sharded_folder_is_the_same_model(folder: Path) -> None:
    wanted = EncodecModel.from_pretrained(folder).state_dict()
    _shard(folder)
    found = EncodecModel.from_pretrained(folder).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_transformers_shards_load(tmp_path: Path) -> None:
    oracle = oracles.hf_model(oracles.tiny_config(), 5, torch.float32)
    oracle.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    oracle.save_pretrained(tmp_path / "whole")
    found, wanted = (EncodecModel.from_pretrained(tmp_path / name).state_dict() for name in ("shards", "whole"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


INDEXES: dict[str, Callable[[dict[str, str], str, Path], Any]] = {
    "outside": lambda places, name, folder: {"weight_map": {**places, name: "../outside.safetensors"}},
    "absolute": lambda places, name, folder: {"weight_map": {**places, name: f"{folder.parent}/outside.safetensors"}},
    "a folder": lambda places, name, folder: {"weight_map": {**places, name: "sub/model.safetensors"}},
    "backslashes": lambda places, name, folder: {"weight_map": {**places, name: "..\\outside.safetensors"}},
    "a device": lambda places, name, folder: {"weight_map": {**places, name: "/dev/zero"}},
    "a pickle": lambda places, name, folder: {"weight_map": {**places, name: "pytorch_model.bin"}},
    "a missing shard": lambda places, name, folder: {"weight_map": {**places, name: "model-9.safetensors"}},
    "another shard": lambda places, name, folder: {"weight_map": {**places, name: sorted(set(places.values()))[1]}},
    "a tensor nowhere": lambda places, name, folder: {"weight_map": {**places, "more": places[name]}},
    "a tensor untold": lambda places, name, folder: {"weight_map": {k: v for k, v in places.items() if k != name}},
    "many shards": lambda places, name, folder: {"weight_map": {f"t{i}": f"s{i}.safetensors" for i in range(9999)}},
    "numbers": lambda places, name, folder: {"weight_map": {**places, name: 5}},
    "a list": lambda places, name, folder: {"weight_map": list(places)},
    "empty": lambda places, name, folder: {"weight_map": {}},
    "nothing": lambda places, name, folder: {},
    "no object": lambda places, name, folder: [],
}


@pytest.mark.parametrize("case", INDEXES)
def test_an_index_that_does_not_fit_is_one_clear_error(case: str, folder: Path) -> None:
    save_file({"x": torch.zeros(1)}, folder.parent / "outside.safetensors")
    places = _shard(folder)
    _index(folder, INDEXES[case](places, sorted(places)[0], folder))
    with pytest.raises(CheckpointError, match=r"index\.json|does not exist"):
        EncodecModel.from_pretrained(folder)


def test_an_index_with_a_name_twice_or_no_json(folder: Path) -> None:
    places = _shard(folder)
    name = sorted(places)[0]
    twice = json.dumps({"weight_map": places}).replace("{", "{" + f'"{name}": "x.safetensors", ', 2)
    for text in (twice, *TEXTS):
        (folder / "model.safetensors.index.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"index\.json"):
            EncodecModel.from_pretrained(folder)


# -- original files ------------------------------------------------------------------------------------------


def _state() -> dict[str, torch.Tensor]:
    config = EncodecConfig(num_filters=2, hidden_size=4, codebook_size=16, num_lstm_layers=1, target_bandwidths=(1.5,))
    return dict(EncodecModel(config).state_dict())


HUGE = torch.zeros(1).as_strided((6_000_000_000,), (0,))


def _deflated(path: Path) -> None:
    torch.save({**_state(), "bomb": torch.zeros(100_000_000)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(path.with_suffix(".new"), "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    path.with_suffix(".new").replace(path)


def _doubled(path: Path) -> None:
    torch.save(_state(), path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(path.with_suffix(".new"), "w") as new:
        for member in [*old.infolist(), *old.infolist()]:
            new.writestr(member.filename, old.read(member))
    path.with_suffix(".new").replace(path)


def _legacy_that_claims(path: Path) -> None:
    torch.save({"x": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()  # the storage's size is a byte: give it five
    path.write_bytes(data.replace(b"K\x04Ntq", b"\x8a\x05\x00\xbc\xa0\x65\x01Ntq"))


FILES: dict[str, Callable[[Path], None]] = {
    "stride 0": lambda path: torch.save({**_state(), "encoder.layers.0.conv.weight": HUGE.view(-1, 1, 1)}, path),
    "stride 0 elsewhere": lambda path: torch.save({**_state(), "decoder.layers.0.conv.weight": HUGE}, path),
    "stride 0 in a codebook": lambda path: torch.save(
        {**_state(), "quantizer.layers.0.codebook.embed": torch.zeros(1, 4).expand(2**32, 4)}, path
    ),
    "one storage for all": lambda path: torch.save({f"t{i}": HUGE[:1_000_000] for i in range(10_000)}, path),
    "meta": lambda path: torch.save({k: v.to("meta") for k, v in _state().items()}, path),
    "sparse": lambda path: torch.save({k: v.to_sparse() for k, v in _state().items()}, path),
    "integers": lambda path: torch.save({k: v.long() for k, v in _state().items()}, path),
    "20,000 codebooks": lambda path: torch.save(
        {**_state(), **{f"quantizer.layers.{i}.codebook.embed": torch.zeros(16, 4) for i in range(16_000)}}, path
    ),
    "nested": lambda path: torch.save({"a": {"b": [{}] * 1000}}, path),
    "deflated": _deflated,
    "doubled": _doubled,
    "an older format that claims 24 GB": _legacy_that_claims,
    "names that are none": lambda path: torch.save({("x",) * 50_000: torch.zeros(1)}, path),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_original_files_that_claim_everything(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for case, make in FILES.items():
        make(tmp_path / "all" / f"{case.replace(' ', '-')}.th")
    _refused_cheaply(tmp_path / "all")


def test_mutated_original_files(tmp_path: Path) -> None:
    path = tmp_path / "model.th"
    torch.save(_state(), path)
    whole = path.read_bytes()
    pickle_at, rng, refused, count = whole.index(b"data.pkl"), random.Random(0), 0, 400
    for i in range(count):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 3, 30))):
            near = (pickle_at, pickle_at + 8000) if i % 2 else (0, len(data))
            data[rng.randrange(*near)] = rng.randrange(256)
        path.write_bytes(data)
        refused += refusal(lambda: EncodecModel.from_original(path), CheckpointError) is not None
    print(f"\n{refused} of {count} mutated .th files refused, the others loaded")
    assert refused > count / 4
