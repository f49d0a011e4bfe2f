"""From worklet to worklet: what two pages capture and play, as their own worklets see it, and the delay between."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from chromium_kit import Page, page
from web.test_web_page import READY

RATE = 24_000
WINDOW_S, HOP_S = 0.2, 0.05
LONGEST_S = 0.6
LIKE = 0.6
"""Correlation from which a place counts as found: below it, the sound is silence or was made up."""
QUIET = 0.005

TAP = """
    const taken = registerProcessor;
    globalThis.registerProcessor = (name, Base) => taken(name, class extends Base {
        #sound = new Int16Array(24064);
        #times = [];
        process(inputs, outputs) {
            const goesOn = super.process(inputs, outputs);
            const sound = (name === "capture" ? inputs : outputs)[0][0], at = this.#times.length * 128;
            for (let i = 0; i < 128; i++) this.#sound[at + i] = sound ? 32767 * sound[i] : 0;
            this.#times.push(Date.now());
            if (at + 128 === this.#sound.length) {
                this.port.postMessage({ sound: this.#sound, times: this.#times });
                this.#times = [];
            }
            return goesOn;
        }
    });
"""
PATCH = """
    const tap = URL.createObjectURL(new Blob([%s], { type: "text/javascript" }));
    const { addModule } = AudioWorklet.prototype;
    AudioWorklet.prototype.addModule = async function (url) {
        this.tapped ??= addModule.call(this, tap);
        await this.tapped;
        await addModule.call(this, url);
    };
    window.taps = { capture: [], playback: [] };
    window.AudioWorkletNode = class extends AudioWorkletNode {
        constructor(context, name, options) {
            super(context, name, options);
            this.port.onmessage = ({ data }) => taps[name].push(data);
        }
    };
    window.dropTaps = () => {
        for (const name in taps) taps[name] = [];
    };
    window.takeTaps = () => {
        const bytes = (arrays) => {
            let text = "";
            for (const array of arrays) {
                const some = new Uint8Array(array.buffer);
                for (let i = 0; i < some.length; i += 4096) text += String.fromCharCode(...some.subarray(i, i + 4096));
            }
            return btoa(text);
        };
        const found = {};
        for (const [name, parts] of Object.entries(taps)) {
            found[name] = [
                bytes(parts.map(({ sound }) => sound)), bytes(parts.map(({ times }) => Float64Array.from(times))),
            ];
        }
        dropTaps();
        return found;
    };
"""


class Tapped(NamedTuple):
    """Samples [T] that went through a worklet, and of each the time (Unix, s) at which it did."""

    sound: np.ndarray
    times: np.ndarray


@asynccontextmanager
async def tapped(url: str, folder: Path, *options: str) -> AsyncIterator[Page]:
    """A call page whose worklets note what goes through them."""
    async with page("about:blank", folder, *options) as tab:
        await tab.ask("Page.enable")
        await tab.ask("Page.setBypassCSP", enabled=True)  # the worklet that taps comes from no server
        await tab.ask("Page.addScriptToEvaluateOnNewDocument", source=PATCH % repr(TAP))
        await tab.go(url)
        await tab.until(READY)
        yield tab


async def take(tab: Page) -> dict[str, Tapped]:
    """What went through `capture` and `playback` since the last time."""
    found: dict[str, Any] = await tab.run("return takeTaps()")
    made = {}
    for name, (sound, times) in found.items():
        pcm = np.frombuffer(base64.b64decode(sound), np.int16) / np.float32(32767)
        blocks = np.frombuffer(base64.b64decode(times), np.float64) / 1000
        made[name] = Tapped(pcm, np.repeat(blocks, 128))
    return made


def delays_ms(said: Tapped, heard: Tapped) -> np.ndarray:
    """Of each window of `said` that is found again in `heard`: when it was said (Unix, s), and the delay. [N, 2]"""
    window, hop, found = round(WINDOW_S * RATE), round(HOP_S * RATE), []
    for begin in range(0, len(said.sound) - window, hop):
        piece = said.sound[begin : begin + window]
        if np.sqrt(np.mean(piece**2)) < QUIET:
            continue
        at_s = said.times[begin + window // 2]
        first = int(np.searchsorted(heard.times, at_s)) - window // 2
        place = heard.sound[max(0, first) : first + window + round(LONGEST_S * RATE)]
        if first < 0 or len(place) < window + LONGEST_S * RATE:
            continue
        energy = np.convolve(place**2, np.ones(window), "valid")
        size = 1 << (len(place) + window).bit_length()
        spectrum = np.fft.rfft(place, size) * np.conj(np.fft.rfft(piece, size))
        products = np.fft.irfft(spectrum, size)[: len(energy)]
        likeness = products / np.sqrt(np.maximum(energy, 1e-9) * np.sum(piece**2))
        best = int(np.argmax(likeness))
        if likeness[best] > LIKE:
            found.append((at_s, 1000 * (heard.times[first + best + window // 2] - at_s)))
    return np.array(found)
