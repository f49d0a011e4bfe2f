"""The same bits on every machine: AVX2, plain C, WebAssembly, ARM; codes and samples of speech."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from engines.kernel_kit import ASSETS, Speech, digest, emulated_arm, node

from streaming_encodec.engines.kernel.codec import ARITHMETIC
from streaming_encodec.engines.kernel.self_test import EXPECTED, load_library, result

WEIGHTS = "c380b34e9acd5e89c51b62cfaafb7e6740de4da3aa742d9d49e3321a3517c202"
MINUTE = "5b4e37506b618c93b25db6fe4de590488f38e3c4b6f1251adc9515a459ec1c04"
"""Of a minute of speech by the bundled model with these weights. Other weights or another arithmetic have another."""


def test_seconds_of_speech_are_the_same_bits_here_in_plain_c_and_in_node() -> None:
    speech = Speech(3)
    best = speech.here(load_library())
    assert digest(speech.here(load_library(plain=True))) == digest(best)
    assert digest(speech.elsewhere(node(), load_library())) == digest(best)


def test_every_library_of_this_machine_passes_the_self_test() -> None:
    assert ARITHMETIC == "kernel-1"  # with other bits, another name
    assert result(load_library()) == result(load_library(plain=True)) == EXPECTED


def test_the_hash_of_the_minute_was_made_with_the_bundled_weights() -> None:
    """New weights need a new hash: run the slow test below, which prints what it found, and replace both."""
    assert hashlib.sha256((ASSETS / "voice-24khz" / "model.safetensors").read_bytes()).hexdigest() == WEIGHTS


@pytest.mark.slow
def test_a_minute_of_speech_is_the_same_bits_here_in_plain_c_and_in_node() -> None:
    speech, best = Speech(60), load_library()
    found = {
        best.name: digest(speech.here(best)),
        "plain": digest(speech.here(load_library(plain=True))),
        "node": digest(speech.elsewhere(node(), best)),
    }
    assert set(found.values()) == {MINUTE}, found


@pytest.mark.slow
def test_seconds_of_speech_are_the_same_bits_on_an_emulated_arm(tmp_path: Path) -> None:
    """An emulated processor takes half an hour for the minute, which gave the same hash too."""
    speech, best = Speech(4), load_library()
    assert digest(speech.elsewhere(emulated_arm(tmp_path), best)) == digest(speech.here(best))
