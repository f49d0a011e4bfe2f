"""The fingerprint, made by a second program from the specification's words, with numpy alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import oracles
import torch
from wire.vectors import FINGERPRINT

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.find import fingerprint

CONFIG: dict[str, Any] = FINGERPRINT["config"]
TENSORS = {
    name: np.array(tensor["values"], np.float32).reshape(tensor["shape"])
    for name, tensor in FINGERPRINT["tensors"].items()
}


def row_norms(v: np.ndarray) -> np.ndarray:
    norms = []
    for row in v.astype(np.float64).reshape(len(v), -1):
        terms = [x * x for x in row]
        while len(terms) > 1:
            half = len(terms) // 2
            terms = [terms[i] + terms[half + i] for i in range(half)] + terms[2 * half :]
        norms.append(np.sqrt(terms[0]))
    return np.array(norms)


def folded(g: np.ndarray, v: np.ndarray, *, keep: bool = True) -> np.ndarray:
    norms, magnitudes = row_norms(v), g.astype(np.float64).ravel()
    ratio = magnitudes / norms
    if keep:
        ratio = np.where(norms.astype(np.float32) == g.ravel(), 1.0, ratio)
    return (v.astype(np.float64) * ratio.reshape(-1, *[1] * (v.ndim - 1))).astype(np.float32)


def weights(*, keep: bool = True) -> dict[str, np.ndarray]:
    found = {}
    for name, tensor in TENSORS.items():
        if name.endswith(("inited", "cluster_size", "embed_avg", "weight_v")):
            continue
        if name.endswith("weight_g"):
            found[name.removesuffix("_g")] = folded(tensor, TENSORS[name.removesuffix("g") + "v"], keep=keep)
        else:
            found[name] = tensor
    return dict(sorted(found.items()))


def test_each_step_of_the_example_is_as_the_specification_says() -> None:
    digest = hashlib.sha256(FINGERPRINT["canonical_config"].encode("ascii"))
    for (name, weight), said in zip(weights().items(), FINGERPRINT["weights"], strict=True):
        shape = ", ".join(map(str, weight.shape)) + ("," if weight.ndim == 1 else "")
        assert said["head"] == f"\0{name}\0({shape})\0"
        assert said["bytes"] == weight.astype("<f4").tobytes().hex(), name
        digest.update(said["head"].encode() + bytes.fromhex(said["bytes"]))
    assert digest.hexdigest() == FINGERPRINT["sha256"]
    assert FINGERPRINT["sha256"][:32] == FINGERPRINT["fingerprint"]


def test_the_model_has_the_fingerprint_of_the_example() -> None:
    tensors = {name: torch.from_numpy(tensor) for name, tensor in TENSORS.items()}
    model = oracles.build_model(EncodecConfig.from_dict(CONFIG), tensors, "the example")
    assert fingerprint(model) == FINGERPRINT["fingerprint"]
    assert fingerprint(model.double()) == FINGERPRINT["fingerprint"]


def test_the_example_needs_every_rule() -> None:
    """An example in which a rule makes no difference would not show who got it wrong."""
    assert any(not np.array_equal(a, b) for a, b in zip(weights().values(), weights(keep=False).values(), strict=True))
    canonical = FINGERPRINT["canonical_config"]
    assert json.dumps(CONFIG, sort_keys=True, separators=(",", ":")) != canonical
    assert '"target_bandwidths":[12.0]' in canonical  # a whole number in the file
    assert '"trim_right_ratio":1.0' in canonical
    assert not {"codebook_dim", "overlap"} & CONFIG.keys()  # left out, so defaults
    assert "dtype" not in canonical
