"""The types of the package's JavaScript, which its comments state, and those that programs in TypeScript see."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ci_kit import cannot
from web.node_kit import HERE, WEB, node

pytestmark = pytest.mark.node

PROGRAM = """
import { loadCodec, type Codec } from "streaming-encodec-web";
import { IncomingVoices, OutgoingVoice } from "streaming-encodec-web/call";
import { LIVE_PLAYOUT } from "streaming-encodec-web/voice";
import { parsePacket } from "streaming-encodec-web/wire";

export async function main(wasm: BufferSource, weights: Uint8Array, config: unknown): Promise<number> {
  const codec: Codec = await loadCodec({ wasm, weights, config }), format = await codec.format();
  const voice = new OutgoingVoice(codec, format, { firstSequence: 0, firstTimestamp: 0 });
  const voices = new IncomingVoices(codec, format, { settings: LIVE_PLAYOUT, nowS: 0, onReports: () => {} });
  for (const packet of voice.push(new Float32Array(640), 0)) voices.onPacket(packet, parsePacket(packet).timestamp);
  // @ts-expect-error: time is a number
  voices.read(320, "now");
  return voices.read(320, 0).length;
}
"""


def compiler() -> Path:
    found = HERE / "node_modules" / "typescript" / "bin" / "tsc"
    if not found.is_file():
        cannot(f"TypeScript is not installed: npm ci --prefix {HERE}")
    return found


def call(folder: Path, *command: str | Path) -> None:
    paths = f"{compiler().parent.parent.parent / '.bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": paths}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_right() -> None:
    call(HERE, node(), compiler(), "--project", HERE)


def test_a_program_in_typescript_sees_them(tmp_path: Path) -> None:
    """The declarations are made, packed, installed, and a strict program is checked against them."""
    npm = shutil.which("npm")
    assert npm is not None
    web, user = tmp_path / "web", tmp_path / "user"
    shutil.copytree(WEB, web)
    call(web, npm, "run", "types")
    user.mkdir()
    call(web, npm, "pack", "--pack-destination", user, "--ignore-scripts")
    (user / "package.json").write_text('{"type": "module"}')
    call(user, npm, "install", "--offline", "--no-audit", "--no-fund", next(user.glob("*.tgz")))
    (user / "main.ts").write_text(PROGRAM)
    options = ("--strict", "--noEmit", "--target", "ES2022", "--module", "NodeNext", "--lib", "ES2022,DOM")
    call(user, node(), compiler(), *options, "main.ts")
