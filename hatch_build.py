"""Compile the kernel when the package is built, with zig's C compiler from PyPI: nothing is needed on the machine.

For this machine and WebAssembly, or, with ``STREAMING_ENCODEC_KERNEL=all``, for every target: the wheel carries them
side by side and each machine loads its own, so that one wheel serves all. The one for WebAssembly lies in ``web/``.
Where nothing can be compiled the package is built without; the engine then says that it is missing, and why. As a
program (``python hatch_build.py [TARGET…]``) it does the same in place.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a program, where only the compiler is wanted
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).parent
KERNEL = ROOT / "streaming_encodec" / "engines" / "kernel"
SOURCE, LIBRARIES = KERNEL / "kernel.c", KERNEL / "lib"
WASM = "kernel.wasm"
WASM_FOLDER = ROOT / "streaming_encodec" / "web" / "codec"
"""Beside the modules that load it, so that ``web/`` is a whole package of JavaScript."""

# No contraction to fused multiply-add and no library functions: the same bits everywhere. No libc: one file serves
# every Linux.
FLAGS = [
    "-O3",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wframe-larger-than=4000",
    "-ffp-contract=off",
    "-ffreestanding",
    "-fno-builtin",
    "-nostdlib",
    "-fvisibility=hidden",
    "-s",
]
_SHARED = ["-shared", "-fPIC"]
_DLL = ["-shared", "-mno-stack-arg-probe"]
# zig puts the stack below all else: one that overflows leaves the memory, which ends the call, and never reaches the
# weights. Frames have less than 4,000 bytes each, and calls go six deep.
_WASM = [
    "-msimd128",
    "-Wl,--no-entry",
    "-Wl,--export-dynamic",
    "-Wl,--export=__heap_base",
    "-Wl,-z,stack-size=131072",
]
_AVX2 = ["-mavx2", "-mf16c"]

# By target: file, zig's name of the machine, flags. Two for x86: the processor decides at run time.
TARGETS: dict[str, list[tuple[str, str, list[str]]]] = {
    "linux-x86_64": [
        ("kernel-linux-x86_64.so", "x86_64-linux-gnu", _SHARED),
        ("kernel-linux-x86_64-avx2.so", "x86_64-linux-gnu", _SHARED + _AVX2),
    ],
    "linux-aarch64": [("kernel-linux-aarch64.so", "aarch64-linux-gnu", _SHARED)],
    "macos-x86_64": [
        ("kernel-macos-x86_64.dylib", "x86_64-macos", _SHARED),
        ("kernel-macos-x86_64-avx2.dylib", "x86_64-macos", _SHARED + _AVX2),
    ],
    "macos-aarch64": [("kernel-macos-aarch64.dylib", "aarch64-macos", _SHARED)],
    "windows-x86_64": [
        ("kernel-windows-x86_64.dll", "x86_64-windows-gnu", _DLL),
        ("kernel-windows-x86_64-avx2.dll", "x86_64-windows-gnu", _DLL + _AVX2),
    ],
    "wasm32": [(WASM, "wasm32-freestanding", _WASM)],
}


def wanted_targets() -> list[str]:
    """What this build is to compile."""
    wish = os.environ.get("STREAMING_ENCODEC_KERNEL", "host")
    if wish == "all":
        return list(TARGETS)
    if wish == "none":
        return []
    if wish != "host":
        raise ValueError(f"STREAMING_ENCODEC_KERNEL is {wish!r}: choose host, all or none")
    system, machine = platform.system().lower(), platform.machine().lower()
    host = f"{system.replace('darwin', 'macos')}-{machine.replace('amd64', 'x86_64').replace('arm64', 'aarch64')}"
    return [target for target in (host, "wasm32") if target in TARGETS]


def build(targets: list[str], folder: Path = LIBRARIES) -> dict[str, str]:
    """Compile for these targets, all at once, and write the manifest. Returns why some could not, by file."""
    places = {WASM: WASM_FOLDER} if folder == LIBRARIES else {}
    for place in (folder, *places.values()):
        place.mkdir(parents=True, exist_ok=True)
    files, failed = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        running = {}
        for file, machine, flags in [entry for target in targets for entry in TARGETS[target]]:
            made = Path(temporary) / file
            running[file] = made, start(["-target", machine, *FLAGS, *flags, str(SOURCE), "-o", str(made)], temporary)
        for file, (made, process) in running.items():
            output, _ = process.communicate()
            if process.returncode:
                lines = output.strip().splitlines() or ["the compiler failed"]
                failed[file] = next((line for line in lines if "error" in line), lines[-1])
                continue
            content = made.read_bytes()
            files[file] = hashlib.sha256(content).hexdigest()
            _write(places.get(file, folder) / file, content)
    for old in [*folder.glob("kernel*"), *(place / file for file, place in places.items())]:
        if old.name not in files or old.parent != places.get(old.name, folder):
            old.unlink(missing_ok=True)  # of an earlier source, or for other machines
    manifest = {"source": hashlib.sha256(SOURCE.read_bytes()).hexdigest(), "files": files, "failed": failed}
    _write(folder / "manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())
    return failed


def start(arguments: list[str], cache: str) -> subprocess.Popen[str]:
    """The compiler with these arguments, working in the folder ``cache``: it leaves nothing elsewhere."""
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    return subprocess.Popen(
        [sys.executable, "-m", "ziglang", "cc", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _write(path: Path, content: bytes) -> None:
    # Whole or not at all: another process may be loading it, or building it too.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)


class KernelBuildHook(BuildHookInterface):  # type: ignore[misc,type-arg,unused-ignore]
    """Runs for wheels and for editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and let the wheel have the libraries, which git does not know."""
        for file, reason in build(wanted_targets()).items():
            self.app.display_warning(f"the kernel's {file} is left out: {reason}")
        build_data["artifacts"] += [f"/{KERNEL.relative_to(ROOT).as_posix()}/lib/*"]
        build_data["artifacts"] += [f"/{(WASM_FOLDER / WASM).relative_to(ROOT).as_posix()}"]


if __name__ == "__main__":
    problems = build(sys.argv[1:] or wanted_targets())
    for file, reason in problems.items():
        print(f"{file}: {reason}", file=sys.stderr)
    sys.exit(bool(problems))
