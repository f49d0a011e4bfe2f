"""The rooms stay apart: the contracts of ``pyproject.toml`` hold, and one import against them is seen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"

WRONG = {
    "Rooms import rooms below them": ("wire/header.py", "from streaming_encodec.voice import pace"),
    "No circles": ("model/config.py", "from streaming_encodec.model import geometry"),
    "wire and voice are pure": ("voice/pace.py", "import asyncio"),
    "The media end of a call knows no sockets": ("call/mixer.py", "import websockets"),
    "The live path needs no torch": ("streaming/encoder.py", "import torch"),
    "A relay needs neither the codec": ("relay/rooms.py", "import numpy"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the package in this folder."""
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); {LINT}"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's sources, to be spoilt."""
    folder = tmp_path_factory.mktemp("rooms")
    shutil.copytree(ROOT / "streaming_encodec", folder / "streaming_encodec", ignore=_all_but_python)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _all_but_python(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (Path(folder) / name).is_file() and not name.endswith(".py")}


def test_every_contract_holds(copied: Path) -> None:
    done = lint(copied)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_an_import_against_them_is_seen(copied: Path) -> None:
    before = {file: (copied / "streaming_encodec" / file).read_text() for file, _ in WRONG.values()}
    for file, line in WRONG.values():
        path = copied / "streaming_encodec" / file
        path.write_text(f"{before[file]}\n{line}\n")
    try:
        done = lint(copied)
    finally:
        for file, text in before.items():
            (copied / "streaming_encodec" / file).write_text(text)
    assert done.returncode == 1
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    for contract in WRONG:
        assert any(line.startswith(contract) for line in broken), (contract, done.stdout)
