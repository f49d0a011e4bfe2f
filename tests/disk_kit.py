"""A small disk that can be made as full as a test wants it: a tmpfs, mounted for the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_PAGES = 8192


class SmallDisk:
    """A folder on a file system of its own, 32 MiB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def leave(self, pages: int) -> None:
        """Fill the disk until only so many pages are free."""
        self._ballast.unlink(missing_ok=True)
        self._ballast.touch()
        state = os.statvfs(self.folder)
        with self._ballast.open("wb") as file:
            file.write(bytes(state.f_bavail * state.f_frsize - pages * PAGE_BYTES))

    def files(self) -> dict[str, bytes]:
        """All that is there, hidden files too, by name; the ballast apart."""
        found = (file for file in self.folder.rglob("*") if file.is_file() and file != self._ballast)
        return {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in found}


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount one at `folder`; a skip where this process may not mount (CAP_SYS_ADMIN)."""
    if sys.platform != "linux":
        pytest.skip("a disk for the test is mounted on Linux only")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_PAGES * PAGE_BYTES},huge=never", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small disk of the test's own."""
    with small_disk(tmp_path / "disk") as disk:
        yield disk
