"""A client in JavaScript, written from docs/protocol.md alone, in calls with this package."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from call_kit import HOP, PATIENT, RATE, Ear, VoiceClient, say, sound, tiny_model
from ci_kit import cannot
from cli.test_cli_call_commands import first_event, free_port, started
from client.test_client_call import offline_codes
from jsonschema import Draft202012Validator
from relay_kit import KEY, running, until
from web.node_kit import node_program
from wire.vectors import DATA, FINGERPRINT, SCHEMA

from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.find import fingerprint
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder

FOLDER = Path(__file__).parent / "js_client"
BUNDLED = DATA.joinpath("../../assets/voice-24khz")

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def node() -> str:
    """The program, where it and the client's one dependency are installed."""
    found = node_program()
    if not (FOLDER / "node_modules" / "ws").is_dir():
        cannot(f"the client's dependency is not installed: npm ci --prefix {FOLDER}")
    return found


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return tiny_model()


class Client:
    """The client's process; `log` is what it wrote when it left."""

    def __init__(self, process: Process, out: Path) -> None:
        self.process, self._out = process, out

    async def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode().strip()

    async def log(self) -> dict[str, Any]:
        """Wait until it has left."""
        _, errors = await asyncio.wait_for(self.process.communicate(), 60)
        found: dict[str, Any] = json.loads(self._out.read_text()) if self._out.exists() else {}
        assert self.process.returncode == 0, (found.get("code"), errors.decode())
        validator = Draft202012Validator(SCHEMA)
        for text in (*found["sent"], *found["told"]):
            validator.validate(json.loads(text))
        return found


@asynccontextmanager
async def javascript(
    node: str, folder: Path, url: str, model: EncodecModel, codes: np.ndarray, **job: Any
) -> AsyncIterator[Client]:
    """The client in a room, about to say these codes [K, frames]."""
    job |= {"url": url, "room": "lobby", "format": stream_format(model).to_dict(), "codes": codes.tolist()}
    (folder / "job.json").write_text(json.dumps(job))
    program = (node, FOLDER / "client.mjs", folder / "job.json", folder / "out.json")
    process = await asyncio.create_subprocess_exec(*program, stdout=PIPE, stderr=PIPE)
    try:
        client = Client(process, folder / "out.json")
        said = await client.line()
        assert said.startswith("welcome "), (said, (await process.communicate())[1].decode())
        yield client
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def codes_of(speaker: dict[str, Any]) -> np.ndarray:
    """What the client heard of one speaker: [K, frames]."""
    return np.array(speaker["codes"]).T


def run(node: str, program: str, *arguments: object) -> str:
    command = [node, str(FOLDER / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def likeness(sound: np.ndarray, piece: np.ndarray) -> float:
    """How much the place in `sound` that is most like `piece` is like it: 1 is the same, whatever the loudness."""
    size = 1 << (len(sound) + len(piece)).bit_length()
    products = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(piece, size)), size)
    sums = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
    energies = sums[len(piece) :] - sums[: -len(piece)]
    norms = np.sqrt(np.maximum(energies, 1e-9) * np.sum(piece.astype(np.float64) ** 2))
    return float((products[: len(energies)] / norms).max())


def test_it_reads_and_writes_the_golden_packets(node: str) -> None:
    assert json.loads(run(node, "vectors.mjs", DATA / "packets.json"))["good"] > 9


def test_it_computes_the_same_fingerprints(node: str, model: EncodecModel, tmp_path: Path) -> None:
    assert run(node, "fingerprint.mjs", DATA / "fingerprint.json") == FINGERPRINT["fingerprint"]
    assert run(node, "fingerprint.mjs", BUNDLED) == fingerprint(EncodecModel.from_pretrained("voice-24khz"))
    model.save_pretrained(tmp_path)
    assert run(node, "fingerprint.mjs", tmp_path) == fingerprint(model)


@pytest.mark.parametrize("frames_per_packet", [1, 6])
async def test_it_talks_with_this_package_code_for_code(
    node: str, model: EncodecModel, tmp_path: Path, frames_per_packet: int
) -> None:
    theirs, ours = offline_codes(model, sound(2.0, 1)), offline_codes(model, sound(2.0, 2))
    async with (
        running(token_key=KEY) as relay,
        VoiceClient(relay.url, KEY.sign("lobby", now_s=time.time()), model, playout=PATIENT) as call,
        Ear(call) as ear,
        javascript(
            node,
            tmp_path,
            relay.url,
            model,
            theirs,
            framesPerPacket=frames_per_packet,
            token=KEY.sign("lobby", now_s=time.time()),
        ) as client,
    ):
        await until(lambda: call.present, "it is there")
        (number,) = call.present
        await say(call, sound(2.0, 2))
        await call.finish()
        await until(lambda: ear.frames(number) >= theirs.shape[1], "all of it was played")
        log = await client.log()
        assert np.array_equal(ear.heard(number), theirs)
        assert list(log["heard"]) == [str(call.sender)]
        heard = log["heard"][str(call.sender)]
        assert np.array_equal(codes_of(heard), ours)
        assert (heard["lost"], heard["ended"], log["code"]) == (0, True, 1000)
        await until(lambda: (call.sender, number) in call.statistics.reports, "its report came")
        await until(lambda: not call.present, "it was seen to leave")


async def test_it_comes_back_with_its_ticket_and_its_numbers_go_on(
    node: str, model: EncodecModel, tmp_path: Path
) -> None:
    codes = offline_codes(model, sound(3.0, 1))
    async with (
        running() as relay,
        VoiceClient(relay.url, None, model, playout=PATIENT) as call,
        javascript(node, tmp_path, relay.url, model, codes, cutAfter=20) as client,
    ):
        (number,) = call.present
        await client.line()  # the second welcome
        arrived = call.statistics.packets_arrived
        await until(lambda: call.statistics.packets_arrived > arrived + 10, "it goes on speaking")
        assert call.present == {number}
        await call.send(sound(0.1))
        await call.finish()
        log = await client.log()
    assert (log["welcomes"], log["resumed"], log["code"]) == (2, 1, 1000)
    welcomes = [json.loads(text) for text in log["told"] if '"welcome"' in text]
    assert [welcome["sender"] for welcome in welcomes] == [number, number]


async def test_a_seat_that_says_nothing_shows_that_it_lives(node: str, model: EncodecModel, tmp_path: Path) -> None:
    limits = RelayLimits(idle_s=1.5, heartbeat_s=0.3)
    async with (
        running(limits=limits) as relay,
        VoiceClient(relay.url, None, model, playout=PATIENT) as call,
        javascript(node, tmp_path, relay.url, model, offline_codes(model, sound(0.2))) as client,
    ):
        assert await client.line() == "said all"
        await asyncio.sleep(2 * limits.idle_s)  # the rule is about time
        await call.send(sound(0.1))
        await call.finish()
        log = await client.log()
    assert (log["welcomes"], log["code"]) == (1, 1000)
    assert any('"layers"' in text for text in log["sent"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model": "0" * 32}, 4409),
        ({"max_codebooks": 7}, 4409),
        ({"sample_rate": 8000.5}, 4400),
        ({"frame_samples": 100}, 4400),
    ],
)
async def test_it_is_told_what_is_wrong(
    node: str, model: EncodecModel, tmp_path: Path, change: dict[str, Any], code: int
) -> None:
    """As the page's table of close codes has it."""
    job = {"room": "lobby", "format": stream_format(model).to_dict() | change, "codes": [[0]]}
    async with running() as relay, VoiceClient(relay.url, None, model):
        (tmp_path / "job.json").write_text(json.dumps(job | {"url": relay.url}))
        program = (node, FOLDER / "client.mjs", tmp_path / "job.json", tmp_path / "out.json")
        process = await asyncio.create_subprocess_exec(*program, stderr=PIPE)
        await asyncio.wait_for(process.communicate(), 60)
    assert json.loads((tmp_path / "out.json").read_text())["code"] == code


async def test_listen_hears_it_and_it_hears_send(node: str, model: EncodecModel, tmp_path: Path) -> None:
    """The commands, as a user runs them."""
    model.save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "in.wav", sound(2.0, 2), RATE)
    said, _ = soundfile.read(tmp_path / "in.wav", dtype="float32")
    theirs = offline_codes(model, sound(2.0, 1))
    url = f"ws://127.0.0.1:{(port := free_port())}"
    call = ("--url", url, "--model", tmp_path / "model", "--json")
    with ExitStack() as processes:
        relay = processes.enter_context(started("serve", "--port", port))
        assert first_event(relay)["event"] == "listening"
        listen = processes.enter_context(started("listen", tmp_path / "out.wav", *call))
        assert (await asyncio.to_thread(first_event, relay))["role"] == "subscribe"
        async with javascript(node, tmp_path, url, model, theirs) as client:
            assert await client.line() == "said all"
            send = processes.enter_context(started("send", tmp_path / "in.wav", "--no-adapt", *call))
            sent, heard = await asyncio.gather(
                asyncio.to_thread(send.communicate, timeout=120), asyncio.to_thread(listen.communicate, timeout=120)
            )
            log = await client.log()
    assert (send.returncode, listen.returncode) == (0, 0), (sent, heard)
    (speaker,) = log["heard"].values()
    encoder = StreamingEncoder(model, 6.0, engine="auto")
    assert np.array_equal(codes_of(speaker), np.concatenate([encoder.push(said), encoder.flush()], axis=1))
    facts = json.loads(heard[0])
    assert (facts["speakers"], facts["packets_lost"]) == (2, 0)
    recorded, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    decoded = StreamingDecoder(model, engine="fused").push(theirs)[0]
    pieces = np.split(decoded[: len(decoded) // (7 * HOP) * 7 * HOP], len(decoded) // (7 * HOP))
    found = [likeness(recorded, piece) > 0.99 for piece in pieces]
    assert np.mean(found) > 0.8, found  # playout may bend time here and there
