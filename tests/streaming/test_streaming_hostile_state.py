"""Saved states with something wrong in them: refused when they are loaded, or they go on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import TEXTS, mutations, refusal
from safetensors import safe_open
from safetensors.torch import save_file
from strategies import random_model, random_samples, small_config

import streaming_encodec as se
from streaming_encodec.stepping.state import StreamState

CONFIG = small_config()
MODEL = random_model(CONFIG, 0, torch.float32)
FORMAT = "streaming-encodec-state-1"


def _streams() -> dict[str, Callable[[], Any]]:
    return {
        "encoder": lambda: se.StreamingEncoder(MODEL, CONFIG.target_bandwidths[1]),
        "exact encoder": lambda: se.StreamingEncoder(MODEL, CONFIG.target_bandwidths[1], "exact"),
        "decoder": lambda: se.StreamingDecoder(MODEL),
    }


def _input(stream: Any) -> torch.Tensor:
    if isinstance(stream, se.StreamingEncoder):
        return random_samples(CONFIG, 1, 5 * CONFIG.hop_length + 3, 1).float()
    return torch.arange(10).view(1, 2, 5) % CONFIG.codebook_size


def _saved(path: Path, make: Callable[[], Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    stream = make()
    stream.push(_input(stream))
    stream.state().save(path)
    with safe_open(path, "pt") as file:
        settings: dict[str, Any] = json.loads(file.metadata()["settings"])
        return {name: file.get_tensor(name) for name in file.keys()}, settings  # noqa: SIM118


def _wrong_tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    made: Iterator[Any] = iter(
        [
            tensor[..., :-1], torch.cat((tensor, tensor)), tensor[None], tensor.flatten(), tensor.sum(), tensor[:0],
            torch.full_like(tensor, torch.nan), torch.full_like(tensor, torch.inf), torch.full_like(tensor, 1e38),
            tensor.double() * 1e300, tensor.long(), tensor.bool(), tensor.to(torch.complex64), tensor.to(torch.uint8),
            tensor.half(), tensor.bfloat16(), tensor.double(), torch.zeros(0), torch.zeros(2, 3, 4, 5), -tensor,
        ]
    )  # fmt: skip
    changed = dict(tensors)
    act = rng.random()
    if act < 0.1:
        del changed[name]
    elif act < 0.15:
        changed[f"{name}.more"] = tensor
    elif act < 0.2:
        changed["unknown"] = tensor
    elif act < 0.25:
        changed = {"pending": tensors["pending"]}
    else:
        changed[name] = rng.choice(list(made)).contiguous()
    return {key: value.clone() for key, value in changed.items()}


def _goes_on(path: Path, make: Callable[[], Any]) -> None:
    """Load, step twice, and flush; the output is there and finite."""
    stream = make()
    stream.load_state(StreamState.load(path))
    for _ in range(2):
        out = stream.push(_input(stream))
        assert bool(torch.as_tensor(out).double().isfinite().all())
    assert all(bool(tensor.isfinite().all()) for tensor in stream.state().tensors.values())
    stream.flush()


@pytest.mark.parametrize("which", _streams())
def test_mutated_states_are_refused_on_loading_or_go_on(which: str, tmp_path: Path) -> None:
    make, path = _streams()[which], tmp_path / "state.safetensors"
    tensors, settings = _saved(path, make)
    rng, refused, count = random.Random(1), 0, 600
    texts = [*TEXTS, *mutations(settings, count // 2)]
    for text in texts:
        save_file(tensors, path, {"format": FORMAT, "settings": text.encode(errors="replace").decode()})
        refused += refusal(lambda: _goes_on(path, make), se.StreamError) is not None
    for _ in range(count // 2):
        save_file(_wrong_tensors(tensors, rng), path, {"format": FORMAT, "settings": json.dumps(settings)})
        refused += refusal(lambda: _goes_on(path, make), se.StreamError) is not None
    whole = path.read_bytes()
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 5))):
            data[rng.randrange(2000 if rng.random() < 0.7 else len(data))] = rng.randrange(256)
        path.write_bytes(data)
        refused += refusal(lambda: _goes_on(path, make), se.StreamError) is not None
    total = len(texts) + count // 2 + 100
    print(f"\n{which}: {refused} of {total} mutated states refused, the others went on")
    assert refused > total / 2


def test_a_state_is_refused_on_loading_not_on_stepping(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    make = _streams()["encoder"]
    tensors, settings = _saved(path, make)
    wrong: dict[str, dict[str, Any]] = {
        "kind must be": {"kind": "codec"},
        "start must be": {"start": None},
        "model must be a text": {"model": 5},
        "started true or false": {"started": 1},
        "frames_per_step": {"frames_per_step": 1.0},
        "num_codebooks": {"num_codebooks": "2"},
        "skip": {"skip": -1},
        "has not started": {"started": False},
    }
    for says, changes in wrong.items():
        save_file(tensors, path, {"format": FORMAT, "settings": json.dumps({**settings, **changes})})
        with pytest.raises(se.StreamError, match=says):
            StreamState.load(path)
    for says, changes in {"takes 4 at most": {"num_codebooks": 5}, "no stream drops more": {"skip": 10**6}}.items():
        save_file(tensors, path, {"format": FORMAT, "settings": json.dumps({**settings, **changes})})
        state = StreamState.load(path)
        with pytest.raises(se.StreamError, match=says):
            make().load_state(state)
        pool = se.StreamPool(MODEL, 1, bandwidth=None)
        with pytest.raises(se.StreamError, match=says):
            pool.restore(pool.open(), state)
    for nothing in (None, "state", {"pending": tensors["pending"]}, settings):
        with pytest.raises(se.StreamError, match="pass what state"):
            make().load_state(nothing)


def test_a_file_that_claims_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    header = json.dumps(
        {
            "__metadata__": {"format": FORMAT, "settings": "{}"},
            "pending": {"dtype": "F32", "shape": [1, 1, 2**32], "data_offsets": [0, 2**34]},
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("rb+") as file:
        file.truncate(8 + len(header) + 2**34)
    with pytest.raises(se.StreamError, match="holds 4294967296 values"):
        StreamState.load(path)
