"""Names of models: folders, files, bundled models, the hub's cache, and no network."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import oracles
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from streaming_encodec.errors import CheckpointError
from streaming_encodec.model.checkpoints import hub, pretrained
from streaming_encodec.model.checkpoints.pretrained import bundled_models
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.find import fingerprint

REPO = "someone/encodec_tiny"


@pytest.fixture
def model() -> EncodecModel:
    torch.manual_seed(0)
    return EncodecModel(oracles.tiny_config())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network: whoever opens a connection fails at once."""

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "snapshot_download", _with_cache(tmp_path / "hub"))
    return tmp_path / "hub"


def _with_cache(cache: Path) -> Any:
    def download(repo: str, **kwargs: Any) -> str:
        return huggingface_hub.snapshot_download(repo, cache_dir=cache, **kwargs)

    return download


def fill(cache: Path, model: EncodecModel) -> Path:
    """Put a model where the hub would have put it."""
    repo = cache / f"models--{REPO.replace('/', '--')}"
    commit = "0123456789" * 4
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    model.save_pretrained(repo / "snapshots" / commit)
    return repo / "snapshots" / commit


def test_a_folder_by_path_and_by_string(tmp_path: Path, model: EncodecModel) -> None:
    model.save_pretrained(tmp_path / "m")
    for name in (tmp_path / "m", str(tmp_path / "m")):
        assert fingerprint(EncodecModel.from_pretrained(name)) == fingerprint(model)


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        EncodecModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_one_file_of_a_folder_points_at_the_folder(tmp_path: Path, model: EncodecModel, name: str) -> None:
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(CheckpointError, match="give its folder"):
        EncodecModel.from_pretrained(tmp_path / "m" / name)


def test_a_pickle_by_another_name_is_not_opened(tmp_path: Path, model: EncodecModel) -> None:
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is no model"):
        EncodecModel.from_pretrained(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("name", ["nowhere", "/no/such/folder", "a/b/c", "../up", "", "a/model.th", "-a/b", "a/../b"])
def test_a_name_that_is_nothing_lists_what_it_may_be(name: str, cache: Path) -> None:
    if name == "":
        pytest.importorskip("pathlib")
        with pytest.raises(CheckpointError):
            EncodecModel.from_pretrained(name)
        return
    with pytest.raises(CheckpointError, match=r"config\.json.*\.th.*bundled.*facebook/encodec_24khz"):
        EncodecModel.from_pretrained(name)
    assert not cache.exists()


def test_bundled_models_load_by_name(tmp_path: Path, model: EncodecModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.save_pretrained(tmp_path / "assets" / "voice-test")
    (tmp_path / "assets" / "notes").mkdir()
    monkeypatch.setattr(pretrained, "_ASSETS", tmp_path / "assets")
    assert bundled_models() == ("voice-test",)
    assert fingerprint(EncodecModel.from_pretrained("voice-test")) == fingerprint(model)
    monkeypatch.setattr(pretrained, "_ASSETS", tmp_path / "none")
    assert bundled_models() == ()


def test_what_is_bundled_loads() -> None:
    for name in bundled_models():
        assert len(fingerprint(EncodecModel.from_pretrained(name))) == 32


def test_a_cached_hub_model_needs_no_network(cache: Path, model: EncodecModel) -> None:
    fill(cache, model)
    assert fingerprint(EncodecModel.from_pretrained(REPO)) == fingerprint(model)


def test_no_network_and_not_cached_is_one_error(cache: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{REPO} is not in the cache and the hub cannot be reached"):
        EncodecModel.from_pretrained(REPO)


def test_a_half_cached_model_without_network_is_one_error(cache: Path, model: EncodecModel) -> None:
    (fill(cache, model) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=rf"{REPO}"):
        EncodecModel.from_pretrained(REPO)


def test_the_hub_is_asked_once_and_for_two_files(
    tmp_path: Path, model: EncodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "m")
    asked = []

    def download(repo: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append((repo, allow_patterns, local_files_only))
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        return str(tmp_path / "m")

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert fingerprint(EncodecModel.from_pretrained(REPO)) == fingerprint(model)
    wanted = ["config.json", "model.safetensors"]
    assert asked == [(REPO, wanted, True), (REPO, wanted, False)]


def test_a_hub_model_without_safetensors_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(hub, "snapshot_download", lambda repo, **kwargs: str(tmp_path))
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        EncodecModel.from_pretrained(REPO)


def test_a_broken_download_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, local_files_only: bool = False, **kwargs: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        raise TimeoutError("read timed out")

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match="read timed out; run the command again"):
        EncodecModel.from_pretrained(REPO)


# -- fingerprints --------------------------------------------------------------------------------------------


def test_fingerprint_is_the_same_in_another_process_and_precision(tmp_path: Path, model: EncodecModel) -> None:
    model.save_pretrained(tmp_path / "m")
    code = "import sys; from streaming_encodec import EncodecModel; l = EncodecModel.from_pretrained;"
    code += "from streaming_encodec.model.find import fingerprint as f; print(f(l(sys.argv[1])))"
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    expected = fingerprint(model)
    assert other.stdout.strip() == expected
    assert fingerprint(model.double()) == expected


def test_fingerprint_sees_every_weight_and_the_configuration(model: EncodecModel) -> None:
    seen = {fingerprint(model)}
    for value in model.state_dict().values():
        value.view(-1)[-1] += 0.5
        seen.add(fingerprint(model))
    assert len(seen) == len(model.state_dict()) + 1
    padded = EncodecModel(oracles.tiny_config(pad_mode="constant"))
    padded.load_state_dict(model.state_dict())
    assert fingerprint(padded) not in seen


def test_fingerprint_is_spelled_as_the_protocol_says(model: EncodecModel) -> None:
    """Other programs make it by themselves: it must not change with this one."""
    spelled = json.dumps(model.config.to_dict(), sort_keys=True, separators=(",", ":")).encode()
    for name, weight in sorted(model.state_dict().items()):
        spelled += f"\0{name}\0{tuple(weight.shape)}\0".encode() + weight.float().numpy().tobytes()
    assert fingerprint(model) == hashlib.sha256(spelled).hexdigest()[:32]


def test_fingerprint_takes_1_and_1_0_for_one_value() -> None:
    one, other = (EncodecModel(oracles.tiny_segment_config(chunk_length_s=s)) for s in (1, 1.0))
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other)
