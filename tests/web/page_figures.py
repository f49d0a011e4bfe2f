"""The call page's figures in Chromium: ``PYTHONPATH=tests python -m web.page_figures [NAME …]``.

Names: visit, codec, slow, restart, lost, pages, speakers; without any, all. Each prints lines of JSON. Needs Chromium.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from chromium_kit import Page, page
from cli.test_cli_call_commands import free_port
from line_kit import line
from udp_kit import udp_way
from web.page_delay import delays_ms, take, tapped
from web.test_web_page import ALLOWED, READY, RECEIVED, WAY, join, loaded, relay, speaks
from web.test_web_page import FIGURES as FIGURES_SHOWN
from web.test_web_page_troubles import PROGRESS

from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.bench import web as bench_web
from streaming_encodec.client.client import VoiceClient
from streaming_encodec.client.settings import CodecSettings, ConnectionSettings

RATE, BLOCK_S = 24_000, 0.02
SPEAKERS = 4
VOICE_THREADS = (
    "DedicatedWorker",
    "Realtime Audio",
    "AudioOutput",
    "AudioThread",
    "Chrome_ChildIOT",
    "Chrome_IOThread",
    "ThreadPool",
)
SETTLE_S, MINUTE_S = 45.0, 60.0  # the jitter buffer remembers for half a minute what starting two browsers was like
SECONDS = 40.0
TIMES = 4
BLOCK_FRAMES, HOP, ROUNDS = 25, 320, 60

TRACE = """
    window.trace = [];
    setInterval(() => trace.push([performance.timeOrigin + performance.now(), %s]), 10);
"""


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def options(folder: Path) -> list[str]:
    """The bundled clip as the microphone, and no click for sound."""
    pcm, rate = soundfile.read(bundled_clip(), dtype="float32")
    soundfile.write(folder / "speech.wav", pcm, rate)
    fake = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={folder / 'speech.wav'}"]
    return [ALLOWED, *fake, "--autoplay-policy=no-user-gesture-required"]


async def visit(folder: Path) -> None:
    """A first visit on this machine, and a second one."""
    port = free_port()
    async with relay(port), page("about:blank", folder / "visit") as tab:
        for which in ("first", "second"):
            before = tab.browser.received
            await tab.go(f"http://localhost:{port}/r/kitchen")
            await tab.until(READY)
            ready_s = await tab.run("return performance.now() / 1000")
            say(visit=which, bytes=tab.browser.received - before, ready_s=round(ready_s, 2))


async def slow(folder: Path) -> None:
    """A first visit at 200 kB/s."""
    port, far = free_port(), free_port()
    async with relay(port), line(port, far, bytes_per_s=200e3), page("about:blank", folder / "slow") as tab:
        await tab.ask("Page.enable")
        await tab.ask("Page.addScriptToEvaluateOnNewDocument", source=PROGRESS)
        await tab.go(f"http://localhost:{far}/r/kitchen")
        await tab.until(READY, 120)
        ready_s, shares = await tab.run("return [performance.now() / 1000, new Set(shares).size]")
        say(visit="first, at 200 kB/s", bytes=tab.browser.received, ready_s=round(ready_s, 1), progress_steps=shares)


@asynccontextmanager
async def two(port: int, far: int, folder: Path) -> AsyncIterator[tuple[Page, Page]]:
    """Anna, whose network is at the port `far`, and Ben hear each other. Each notes when."""
    fake = options(folder)
    async with AsyncExitStack() as stack:
        tabs = []
        for name, at in (("Anna", far), ("Ben", port)):
            tabs.append(await stack.enter_async_context(loaded(at, Path(tempfile.mkdtemp(dir=folder)), *fake)))
            await join(tabs[-1], name)
        for tab, other in zip(tabs, ("Ben", "Anna"), strict=True):
            await tab.until(speaks(other))
            await tab.run(TRACE % speaks(other))
        yield tabs[0], tabs[1]


async def heard_again(tabs: tuple[Page, Page], since_s: float) -> list[float]:
    """In each page, how long after that moment (Unix time) the other one was first shown as speaking."""
    found = []
    for tab in tabs:
        heard = await tab.run(f"return trace.findLast(([at]) => at < {since_s * 1000})[1]")
        assert not heard, "what was said before had ended"
        test = f"trace.find(([at, on]) => on && at > {since_s * 1000})"
        await tab.until(test)
        found.append(round((await tab.run(f"return ({test})[0]")) / 1000 - since_s, 2))
    return found


async def restart(folder: Path) -> None:
    """The relay is away for 3 s: how long after it listens again both are heard."""
    port = free_port()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(relay(port))
        tabs = await stack.enter_async_context(two(port, port, folder))
        for _ in range(TIMES):
            await server.stop()
            await asyncio.sleep(3)
            server = await stack.enter_async_context(relay(port))
            say(relay="away for 3 s", heard_again_s=await heard_again(tabs, time.time()))
            await asyncio.sleep(5)


async def lost(folder: Path) -> None:
    """Anna's network, TCP and UDP, is lost for 3 s: how long after it is back each hears the other."""
    port, far = free_port(), free_port()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(relay(port))
        network = await stack.enter_async_context(line(port, far))
        for datagrams in (False, True):
            if datagrams:
                way = await stack.enter_async_context(udp_way(server, far))
            async with two(port, far, folder) as tabs:
                if datagrams:
                    await tabs[0].until(f"{WAY} === 'datagrams' && {RECEIVED} > 100")
                for _ in range(TIMES):
                    network.lose()
                    if datagrams:
                        way.blocked = True
                    await asyncio.sleep(3)
                    network.restore()
                    if datagrams:
                        way.blocked = False
                    again = await heard_again(tabs, time.time())
                    say(network="lost for 3 s", datagrams=datagrams, heard_again_s=again)
                    await asyncio.sleep(8)


CODEC = """
    const base = document.querySelector("base").href, root = new URL("../../", base);
    const get = async path => new Uint8Array(await (await fetch(path)).arrayBuffer());
    const { kernel, model } = await (await fetch(new URL("call.json", root))).json();
    const folder = new URL(model.folder, root);
    const codec = await (await import(new URL("codec/index.js", base))).loadCodec({
        wasm: await get(new URL(kernel, root)), weights: await get(new URL("model.safetensors", folder)),
        config: await (await fetch(new URL("config.json", folder))).json(), fingerprint: "",
    });
    const encoder = codec.createEncoder({ codebooks: 8 }), decoder = codec.createDecoder();
    window.take = (pcm, frames) => {
        const sound = Float32Array.from(atob(pcm).match(/../gs), two => {
            const value = two.charCodeAt(0) | (two.charCodeAt(1) << 8);
            return (value - (value & 0x8000 ? 65536 : 0)) / 32768;
        });
        const began = performance.now(), codes = [];
        for (let i = 0; i < frames; i++) codes.push(encoder.encode(sound.subarray(i * codec.hop, (i + 1) * codec.hop)));
        for (const some of codes) decoder.decode(some, 1);
        return (performance.now() - began) / frames;
    };
"""
"""The clock of a page is coarse, so a block of frames is measured at once."""


async def codec(folder: Path) -> None:
    """To encode and decode a frame at 6 kbps: Chromium, ONNX Runtime float32 and Python's kernel, in turns."""
    port = free_port()
    pcm, _ = soundfile.read(bundled_clip(), dtype="int16")
    size = BLOCK_FRAMES * HOP
    async with relay(port), page(f"http://localhost:{port}/", folder / "codec") as tab:
        await tab.until(READY)
        await tab.run(CODEC)
        engines = {name: bench_web._Python(name, (pcm / 32768).astype(np.float32)) for name in ("onnx", "kernel")}
        times: dict[str, list[float]] = {"chromium": [], "onnx": [], "kernel": []}
        for turn in range(ROUNDS + 4):
            at = turn * size % (len(pcm) - size)
            block = base64.b64encode(pcm[at : at + size].tobytes()).decode()
            made = {"chromium": await tab.run(f"return take('{block}', {BLOCK_FRAMES})")}
            made |= {
                name: float(np.sum(engine.measure(BLOCK_FRAMES)) / BLOCK_FRAMES) for name, engine in engines.items()
            }
            for name, ms in made.items():
                times[name] += [ms] if turn >= 4 else []  # the first are for warming up
    for name, some in times.items():
        low, middle = np.quantile(some, (0.05, 0.5))
        ratio = np.median(np.array(some) / times["onnx"])
        say(codec=name, p5_ms=round(low, 2), p50_ms=round(middle, 2), against_onnx=round(float(ratio), 2))


MADE = "return ['underruns', 'played', 'madeUp'].map(name => Number(document.getElementById('status').dataset[name]))"


@asynccontextmanager
async def relay_process(port: int) -> AsyncIterator[None]:
    """A relay whose loop does nothing else: what this process computes must not delay it."""
    command = (sys.executable, "-c", "from streaming_encodec.cli.app import main; main()", "serve", "--port", str(port))
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
    try:
        async with asyncio.timeout(60):
            while not await _answers(port):
                assert process.returncode is None, "the relay ended"
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("localhost", port)
    except OSError:
        await asyncio.sleep(0.05)
        return False
    writer.close()
    return True


async def pages(folder: Path) -> None:
    """Two pages speak for a minute: how long from worklet to worklet, how much is made up, how often sound pauses."""
    port = free_port()
    fake, names = options(folder), ("Anna", "Ben")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(relay_process(port))
        tabs = []
        for name in names:
            tabs.append(
                await stack.enter_async_context(tapped(f"http://localhost:{port}/r/kitchen", folder / name, *fake))
            )
            await join(tabs[-1], name)
        for tab in tabs:
            await tab.until(f"{WAY} === 'datagrams' && {RECEIVED} > 100")
        hurried = hurry()
        await asyncio.sleep(SETTLE_S)
        before = [await tab.run(MADE) for tab in tabs]
        for tab in tabs:
            await tab.run("dropTaps()")
        await asyncio.sleep(MINUTE_S)
        after = [await tab.run(MADE) for tab in tabs]
        sound = [await take(tab) for tab in tabs]
        shown = [await tab.run(f"return {FIGURES_SHOWN}") for tab in tabs]
    for i, name in enumerate(names):
        found = delays_ms(sound[1 - i]["capture"], sound[i]["playback"])
        p5, p50, p95 = np.quantile(found[:, 1], (0.05, 0.5, 0.95))
        tens = (found[:, 0] - found[0, 0]) // 10
        underruns, played, made_up = np.subtract(after[i], before[i])
        say(
            heard_by=name,
            worklet_to_worklet_ms={"p5": round(p5, 1), "p50": round(p50, 1), "p95": round(p95, 1)},
            p50_of_ten_seconds=[round(np.median(found[tens == i, 1])) for i in range(round(MINUTE_S / 10))],
            windows=len(found),
            made_up=round(made_up / max(1, played), 5),
            pauses_of_the_loudspeaker=int(underruns),
            page=shown[i],
            real_time_threads=hurried,
        )


async def speakers(folder: Path) -> None:
    """Processor time of the whole browser, and of the call's Worker alone, while others speak and Anna speaks too."""
    port = free_port()
    pcm, rate = soundfile.read(bundled_clip(), dtype="float32")
    assert rate == RATE
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(relay_process(port))
        tab = await stack.enter_async_context(loaded(port, folder / "speakers", *options(folder)))
        await join(tab, "Anna")
        clients = [await stack.enter_async_context(_program(port, number)) for number in range(SPEAKERS)]
        tasks = [asyncio.create_task(_speak(client, np.roll(pcm, i * RATE))) for i, client in enumerate(clients)]
        try:
            everybody = " && ".join(f"document.body.innerText.includes('Program {i}')" for i in range(SPEAKERS))
            await tab.until(everybody)
            await asyncio.sleep(5)
            began, before = time.monotonic(), _cpu_s()
            await asyncio.sleep(SECONDS)
            after, passed = _cpu_s(), time.monotonic() - began
        finally:
            for task in tasks:
                task.cancel()
        figures = await tab.run("return document.getElementById('figures').textContent")
    shares = {name: round((seconds - before.get(name, 0.0)) / passed, 3) for name, seconds in after.items()}
    most = dict(sorted(shares.items(), key=lambda share: -share[1])[:12])
    say(speakers=SPEAKERS, of_a_core=most, page=figures)


def _program(port: int, number: int) -> VoiceClient:
    codec = CodecSettings(bandwidth=6.0, dtx=False)
    named = ConnectionSettings(name=f"Program {number}")
    return VoiceClient(f"ws://localhost:{port}/r/kitchen", None, "voice-24khz", codec=codec, connection=named)


async def _speak(client: VoiceClient, pcm: np.ndarray) -> None:
    loop, size = asyncio.get_running_loop(), round(BLOCK_S * RATE)
    began = loop.time()
    for block in range(1 << 30):
        at = block * size % (len(pcm) - size)
        await client.send(pcm[at : at + size])
        await asyncio.sleep(max(0.0, began + (block + 1) * BLOCK_S - loop.time()))


def _cpu_s() -> dict[str, float]:
    """Of the browser's processes, which are below this one: all together, by kind of process, and by thread."""
    spent: dict[str, float] = defaultdict(float)
    for process in _below(os.getpid()):
        try:
            kind = _kind(process)
            if kind == "relay":
                continue
            for name in ("all", kind):
                spent[name] += _used_s(process)
            for thread in (process / "task").iterdir():
                spent[f"{kind}: {(thread / 'comm').read_text().strip()}"] += _used_s(thread)
        except FileNotFoundError:
            continue  # it has ended
    return spent


def _used_s(folder: Path) -> float:
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _below(parent: int) -> Iterator[Path]:
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in children.read_text().split():
            yield Path("/proc", child)
            yield from _below(int(child))


def hurry() -> int:
    """Real-time priority for the threads that voice passes, as desktops give it to sound; how many got it. Needs root.

    Not for whole browsers: their threads wait for each other with `sched_yield`, and would stop the machine.
    """
    count = 0
    for process in _below(os.getpid()):
        kind = _kind(process)
        for thread in (process / "task").iterdir():
            name = (thread / "comm").read_text().strip()
            if kind in ("utility", "relay") or name.startswith(VOICE_THREADS):
                try:
                    os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(5))
                except (PermissionError, ProcessLookupError):
                    continue
                count += 1
    return count


def _kind(process: Path) -> str:
    words = (process / "cmdline").read_bytes().replace(b" ", b"\0").split(b"\0")
    if b"serve" in words:
        return "relay"
    return next((word[7:].decode() for word in words if word.startswith(b"--type=")), "browser")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


FIGURES: dict[str, Callable[[Path], Awaitable[None]]] = {
    "visit": visit,
    "codec": codec,
    "slow": slow,
    "restart": restart,
    "lost": lost,
    "pages": pages,
    "speakers": speakers,
}


async def main(names: list[str]) -> None:
    for name in names or list(FIGURES):
        with _folder() as folder:
            await FIGURES[name](folder)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
