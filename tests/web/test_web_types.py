"""The types of the package's JavaScript, which its comments state."""

from __future__ import annotations

import subprocess

import pytest
from ci_kit import cannot
from web.node_kit import HERE, node

pytestmark = pytest.mark.node


def test_types_are_right() -> None:
    compiler = HERE / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.is_file():
        cannot(f"TypeScript is not installed: npm ci --prefix {HERE}")
    done = subprocess.run(
        [node(), compiler, "--project", HERE], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout
