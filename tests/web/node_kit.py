"""Programs of these tests in Node.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ci_kit import cannot

import streaming_encodec

HERE = Path(__file__).parent
WEB = Path(streaming_encodec.__file__).parent / "web"
NODE_VERSION = 18
_PATIENT_S = 300


def node_program() -> str:
    """Node.js, where it is new enough."""
    found = shutil.which("node")
    if found is None:
        cannot("Node.js is not installed: apt install nodejs npm")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < NODE_VERSION:
        cannot(f"Node.js is {version.strip()}: {NODE_VERSION} or later is needed")
    return found


def node() -> str:
    """The program, where the kernel was built for it."""
    found = node_program()
    if not (WEB / "codec" / "kernel.wasm").is_file():
        cannot("kernel.wasm was not built: python hatch_build.py")
    return found


def run(program: str | Path, *arguments: str | Path, content: bytes = b"") -> bytes:
    """What a program of this folder writes. Its errors are the test's."""
    done = subprocess.run(
        [node(), HERE / program, *arguments], input=content, capture_output=True, check=False, timeout=_PATIENT_S
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout
