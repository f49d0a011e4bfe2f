"""`wire` and `voice` import neither torch nor anything that reads clocks, files or sockets for them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import streaming_encodec

ROOT = Path(streaming_encodec.__file__).parent
FILES = [f for room in ("wire", "voice") for f in sorted((ROOT / room).glob("*.py"))]
REFUSED = "asyncio datetime io os pathlib pickle random socket sys threading time".split()  # noqa: SIM905
ALLOWED = {"numpy", "streaming_encodec", *sys.stdlib_module_names} - set(REFUSED)
ROOMS = {"wire": {"wire", "errors", "types"}, "voice": {"wire", "voice", "errors", "types"}}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_imports(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            parts = name.split(".")
            assert parts[0] in ALLOWED, f"{file.name} imports {name}"
            if parts[0] == "streaming_encodec":
                assert parts[1] in ROOMS[file.parent.name], f"{file.name} imports {name}"


def test_torch_stays_away() -> None:
    modules = ("bench.playout", "voice.playout", "wire.ecdc")
    code = "import sys, " + ", ".join(f"streaming_encodec.{m}" for m in modules)
    code += "\nassert not {'torch', 'websockets', 'sounddevice'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
