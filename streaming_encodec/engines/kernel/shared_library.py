"""The compiled library: found beside this file, checked, called through ctypes. Imports no torch.

``hatch_build.py`` compiles ``kernel.c`` into ``lib/`` when the package is built, with a manifest of checksums. For x86
there are two, one for any processor and one with AVX2 and F16C; the first says whether the second runs. The same
bits come from both.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import platform
import sys
from ctypes import c_int32, c_void_p
from pathlib import Path
from typing import Any

from streaming_encodec.errors import MissingExtraError

FOLDER = Path(__file__).parent
LIBRARIES = FOLDER / "lib"
SOURCE, MANIFEST = FOLDER / "kernel.c", LIBRARIES / "manifest.json"

_ENDINGS = {"linux": "so", "macos": "dylib", "windows": "dll"}
_SYSTEMS = {"darwin": "macos"}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

_REBUILD = "install streaming-encodec again (pip install .)"


class Library:
    """The functions of ``kernel.c``. They hold no memory of their own: any threads may call them at once.

    Pointers are addresses, sizes whole numbers: ``codec.py`` sees to it that they fit.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        functions = ctypes.CDLL(str(path))  # lets other threads run while it computes

        def declared(function: str, result: Any, *arguments: Any) -> Any:
            found = getattr(functions, function)
            found.restype, found.argtypes = result, arguments
            return found

        self.scratch = declared("kernel_scratch", c_int32, c_void_p, c_int32, c_int32, c_int32)
        """(image, part, batch, n) → floats of scratch memory for ``run``."""
        self.run = declared("kernel_run", c_int32, c_void_p, *[c_int32] * 4, *[c_void_p] * 5)
        """(image, part, phase, batch, n, x, y, before, after, scratch) → outputs of each stream."""
        self.search = declared("kernel_search", None, c_void_p, c_int32, c_int32, *[c_void_p] * 3)
        """(image, rows, codebooks, latent, codes, scratch)."""
        self.lookup = declared("kernel_lookup", None, c_void_p, c_int32, c_int32, c_void_p, c_void_p)
        """(image, rows, codebooks, codes, latent)."""
        self.has_avx2 = declared("kernel_has_avx2", c_int32)


def open_library(plain: bool = False) -> Library:
    """The library for this machine, checked and not yet tried out: see ``self_test.load_library``.

    Args:
        plain: without AVX2 also where the processor has it.

    Raises:
        MissingExtraError: there is none for this machine, or it is damaged; the message says why.
    """
    system, machine = platform.system().lower(), platform.machine().lower()
    system, machine = _SYSTEMS.get(system, system), _MACHINES.get(machine, machine)
    if system not in _ENDINGS or sys.maxsize < 2**32:
        raise MissingExtraError(f"the kernel is not made for {system} on {machine}: use engine='onnx'")
    name = f"{system}-{machine}"
    library = _open(name, _ENDINGS[system])
    if plain or machine != "x86_64" or not library.has_avx2():
        return library
    return _open(f"{name}-avx2", _ENDINGS[system])


def _open(name: str, ending: str) -> Library:
    manifest = _read_manifest()
    file = f"kernel-{name}.{ending}"
    if manifest.get("source") != _digest(SOURCE):
        raise MissingExtraError(f"the kernel was built from another source than the one here: {_REBUILD}")
    wanted = manifest["files"].get(file)
    if wanted is None:
        reason = manifest["failed"].get(file, "it was built for other machines")
        raise MissingExtraError(f"the kernel was not built for {name} ({reason}): {_REBUILD}, or use engine='onnx'")
    path = LIBRARIES / file
    try:
        if _digest(path) != wanted:
            raise MissingExtraError(f"{path} is damaged: {_REBUILD}")
        return Library(path, name)
    except (OSError, AttributeError) as error:
        raise MissingExtraError(f"{path} cannot be loaded ({error}): {_REBUILD}") from error


def _read_manifest() -> dict[str, Any]:
    try:
        manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingExtraError(f"the kernel was not built: {_REBUILD}, or use engine='onnx'") from None
    except (OSError, ValueError) as error:
        raise MissingExtraError(f"{MANIFEST} cannot be read ({error}): {_REBUILD}") from error
    return {"files": {}, "failed": {}} | (manifest if isinstance(manifest, dict) else {})


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
