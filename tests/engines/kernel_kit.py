"""Speech through the kernel on other machines: the same sound in, and what comes out as bytes.

A program reads seven int32 (floats of the image, samples, hop, samples and frames of the first steps, codebooks, size
of a latent), the image and the samples from its standard input; it starts, steps a frame at a time and flushes, and
writes codes [frames, K] int32 and samples float32.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
from ci_kit import cannot

import streaming_encodec
from streaming_encodec.engines.kernel.codec import KernelCodec
from streaming_encodec.engines.kernel.shared_library import SOURCE, Library
from streaming_encodec.model.architecture import decoder_timing, encoder_timing
from streaming_encodec.model.encodec import EncodecModel

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ASSETS = Path(streaming_encodec.__file__).parent / "assets"
CODEBOOKS = 8


@cache
def hatch_build() -> ModuleType:
    """The module that compiles the kernel when the package is built."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Speech:
    """The bundled clip, over and over, for the bundled model."""

    def __init__(self, seconds: float) -> None:
        self.model = EncodecModel.from_pretrained("voice-24khz")
        clip, _ = soundfile.read(ASSETS / "speech.flac", dtype="float32")
        count = int(seconds * 24_000) + 123  # no whole number of frames
        self.pcm = np.resize(clip, count).astype(np.float32)
        self.first_samples = encoder_timing(self.model.config).start_inputs
        self.first_frames = decoder_timing(self.model.config).start_inputs

    def codec(self, library: Library) -> KernelCodec:
        """The model on this library."""
        weights = {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}
        return KernelCodec.from_weights(self.model.config, weights, library)

    def here(self, library: Library) -> bytes:
        """What this library makes of it, in this process."""
        codec, hop = self.codec(library), self.model.config.hop_length
        x = self.pcm[None, :, None]
        y, state = codec.encoder.start(x[:, : self.first_samples])
        latents, at = [y], self.first_samples
        while x.shape[1] - at >= hop:
            y, state = codec.encoder.step(x[:, at : at + hop], state)
            latents.append(y)
            at += hop
        latents.append(codec.encoder.flush(x[:, at:], state))
        codes = codec.search(np.concatenate(latents, axis=1)[0], CODEBOOKS)
        vectors = codec.lookup(codes)[None]
        y, state = codec.decoder.start(vectors[:, : self.first_frames])
        sounds = [y]
        for frame in range(self.first_frames, vectors.shape[1]):
            y, state = codec.decoder.step(vectors[:, frame : frame + 1], state)
            sounds.append(y)
        return codes.tobytes() + np.concatenate(sounds, axis=1).tobytes()

    def elsewhere(self, command: list[str], library: Library) -> bytes:
        """What a program makes of it. ``library`` is not used but to lay the model out."""
        config, image = self.model.config, self.codec(library).image
        numbers = (image.size, len(self.pcm), config.hop_length, self.first_samples, self.first_frames, CODEBOOKS)
        head = struct.pack("<7i", *numbers, config.hidden_size)
        done = subprocess.run(
            command, input=head + image.tobytes() + self.pcm.tobytes(), capture_output=True, check=True, timeout=1500
        )
        return done.stdout


def digest(content: bytes) -> str:
    """A short name for what came out."""
    return hashlib.sha256(content).hexdigest()


def node() -> list[str]:
    """WebAssembly in node."""
    found = shutil.which("node")
    if found is None:
        cannot("Node.js is not installed: apt install nodejs")
    build = hatch_build()
    return [found, str(HERE / "kernel_program.mjs"), str(build.WASM_FOLDER / build.WASM)]


def emulated_arm(folder: Path) -> list[str]:
    """A 64-bit ARM processor in qemu."""
    found = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if found is None:
        cannot("qemu-aarch64 is not installed: apt install qemu-user")
    program, build = folder / "kernel-aarch64", hatch_build()
    flags = [flag for flag in build.FLAGS if not flag.startswith("-W")]
    sources = [str(SOURCE), str(HERE / "kernel_program.c")]
    machine = ["-target", "aarch64-linux-none", "-static", "-o", str(program)]
    running = build.start([*machine, *flags, *sources], str(folder))
    output, _ = running.communicate()
    assert running.returncode == 0, output
    return [found, str(program)]
