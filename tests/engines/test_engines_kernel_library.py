"""The kernel where it is missing, damaged or wrong: one clear reason, and ONNX Runtime in its place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.kernel_kit import ROOT
from strategies import random_model, small_config

import streaming_encodec as se
from streaming_encodec.cli.commands.doctor import look_at_kernel
from streaming_encodec.engines import make_engine, make_live_engine
from streaming_encodec.engines.kernel import self_test, shared_library
from streaming_encodec.errors import MissingExtraError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the built libraries, which the loader takes for them."""
    self_test.load_library()  # where it is missing to begin with, these tests have nothing to damage
    folder = tmp_path / "lib"
    shutil.copytree(shared_library.LIBRARIES, folder)
    monkeypatch.setattr(shared_library, "LIBRARIES", folder)
    monkeypatch.setattr(shared_library, "MANIFEST", folder / "manifest.json")
    self_test.load_library.cache_clear()
    yield folder
    self_test.load_library.cache_clear()


def model() -> se.EncodecModel:
    return random_model(small_config(), 0).float()


def says(reason: str) -> None:
    """The engine is missing for this reason, everyone hears of it, and `auto` takes the next best."""
    assert reason in (self_test.why_missing() or "")
    with pytest.raises(MissingExtraError, match=reason):
        make_engine("kernel", model())
    assert look_at_kernel().verdict == "poor"
    assert reason in look_at_kernel().cure
    assert make_engine("auto", model()).name == "onnx"
    assert make_live_engine("auto", model()).name == "onnx-int8"


def test_doctor_says_which_library_runs(installed: Path) -> None:
    assert look_at_kernel().details == self_test.load_library().name


def test_a_package_that_was_built_without_it(installed: Path) -> None:
    (installed / "manifest.json").unlink()
    says("was not built")


def test_a_library_with_a_byte_changed_is_not_loaded(installed: Path) -> None:
    for path in installed.glob("kernel-*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    says("is damaged")


def test_a_library_of_another_source_is_not_loaded(installed: Path) -> None:
    manifest = json.loads((installed / "manifest.json").read_text())
    (installed / "manifest.json").write_text(json.dumps(manifest | {"source": "0" * 64}))
    says("another source")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"source": 1}'])
def test_a_manifest_that_is_damaged(installed: Path, content: str) -> None:
    (installed / "manifest.json").write_text(content)
    says("again")


def test_a_processor_that_computes_other_numbers(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "EXPECTED", "0" * 64)
    says("wrong numbers")


def test_a_machine_that_nothing_is_made_for(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    says("not made for plan9")


def test_without_a_compiler_the_package_is_built_all_the_same(installed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "ziglang"
    broken.mkdir()
    (broken / "__main__.py").write_text('import sys; sys.exit("error: no compiler for this machine")')
    (broken / "__init__.py").touch()
    program = (
        "import sys, hatch_build; from pathlib import Path;"
        " print(*hatch_build.build(['linux-x86_64'], Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(installed)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["kernel-linux-x86_64.so", "kernel-linux-x86_64-avx2.so"]
    assert not list(installed.glob("kernel*"))
    says("no compiler for this machine")
