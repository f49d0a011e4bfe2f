"""`serve`, `token`, `send` and `listen` as a user runs them, in processes of their own."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import jwt
import numpy as np
import pytest
import soundfile
from call_kit import HOP, RATE, sound, tiny_model
from typer.testing import CliRunner

from streaming_encodec.cli.app import app
from streaming_encodec.cli.commands.listen import _listen
from streaming_encodec.cli.shared.interrupt import ending_signals
from streaming_encodec.client.link import LinkCounts
from streaming_encodec.client.participant import CallStatistics
from streaming_encodec.relay.tokens import TokenKey
from streaming_encodec.voice.statistics import ReceiverStatistics


def command(*arguments: object) -> list[str]:
    start = "from streaming_encodec.cli.app import main; main()"
    return [sys.executable, "-c", start, *map(str, arguments)]


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_event(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stderr is not None
    event: dict[str, object] = json.loads(process.stderr.readline())
    return event


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The blocks of a time line, which begins with word that the relay let the program in."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    first, *blocks = events[1:] if events[0]["event"] == "dials" else events  # a listener says when it dials
    assert first["event"] == "joined"
    assert {block["event"] for block in blocks} == {"block"}
    ends = [block["first_sample"] + block["samples"] for block in blocks]
    assert [block["first_sample"] for block in blocks] == [0, *ends[:-1]]
    times = [first["at_s"], *(block["at_s"] for block in blocks)]
    assert times == sorted(times)
    return blocks


def wait_for_packets(url: str, wanted: int) -> None:
    """Until the relay has handed out so many voice packets, however long this machine takes for that."""
    name = "streaming_encodec_relay_packets_out_total"
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        with urlopen(url.replace("ws:", "http:") + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        if any(line.startswith(name) and float(line.split()[1]) >= wanted for line in lines):
            return
        time.sleep(0.1)
    raise AssertionError(f"the relay at {url} handed out fewer than {wanted} packets in a minute")


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_a_file_goes_through_a_relay_that_is_killed_on_the_way(tmp_path: Path) -> None:
    """One test for all of it, since each process takes seconds to start."""
    tiny_model().save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "in.wav", sound(120.0), RATE)
    key = tmp_path / "key"
    assert run("token", "--new-key", key)[0] == 0
    speak = run("token", "room", "--key", key, "--no-subscribe")[1].strip()
    (tmp_path / "token").write_text(run("token", "room", "--key", key, "--no-publish")[1])
    url = f"ws://127.0.0.1:{(port := free_port())}"
    call = ("--url", url, "--model", tmp_path / "model", "--json", "--transport", "websocket")
    with started("serve", "--port", port, "--key", key) as relay:
        event = first_event(relay)
        assert (event["event"], event["url"], event["tokens"]) == ("listening", url, True)
        heard_at, said_at = tmp_path / "heard.jsonl", tmp_path / "said.jsonl"
        listening = (tmp_path / "out.wav", "--token", f"@{tmp_path / 'token'}", "--trace", heard_at)
        with started("listen", *listening, *call) as ear:
            assert first_event(relay)["role"] == "subscribe"
            speaking = (tmp_path / "in.wav", "--token", speak, "--no-adapt", "--trace", said_at)
            with started("send", *speaking, *call) as mouth:
                assert first_event(relay)["role"] == "publish"
                wait_for_packets(url, 60)
                relay.send_signal(signal.SIGKILL)
                relay.wait(10)
                with started("serve", "--port", port, "--key", key) as again:
                    events = [first_event(again) for _ in range(3)]
                    assert {event.get("role") for event in events} == {None, "publish", "subscribe"}
                    wait_for_packets(url, 60)
                    mouth.send_signal(signal.SIGINT)
                    sent = json.loads(mouth.communicate(timeout=180)[0])
                    heard = json.loads(ear.communicate(timeout=180)[0])
                    again.send_signal(signal.SIGTERM)
                    errors = again.communicate(timeout=120)[1]
                    assert again.returncode == 0
    assert (mouth.returncode, ear.returncode) == (1, 0)
    assert sent["interrupted"]
    assert sent["connects"] == heard["connects"] == 2
    # On the wire each packet has 58 bytes more: IPv4, TCP with timestamps, WebSocket.
    assert sent["packet_kbps"] == pytest.approx(8 * sent["bytes_sent"] / sent["seconds"] / 1000)
    headers_kbps = 8 * 58 * sent["packets_sent"] / sent["seconds"] / 1000
    assert sent["wire_kbps"] == pytest.approx(sent["packet_kbps"] + headers_kbps)
    ends = [json.loads(line)["event"] for line in errors.splitlines()]
    assert ends[-2:] == ["draining", "stopped"]
    assert heard["packets_received"] > 30
    assert heard["speakers"] == 2  # the same one twice: the new relay cannot know
    pcm, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == RATE
    assert 1.5 < len(pcm) / RATE == heard["seconds"]
    assert float(np.abs(pcm).max()) > 0.01
    told = read_trace(heard_at)
    assert [sum(block["samples"] for block in read_trace(path)) for path in (heard_at, said_at)] == [
        len(pcm),
        round(sent["seconds"] * RATE),
    ]
    assert [len(block["speakers"]) for block in (told[0], told[-1])] == [1, 2]
    for speaker in told[-1]["speakers"]:
        assert speaker["played_samples"] >= speaker["concealed_samples"] >= 0
        assert told[0]["at_s"] < speaker["heard_s"] < told[-1]["at_s"] + 1


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
def test_a_live_pipe_into_a_room_ends_with_its_writer_or_with_ctrl_c(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "in.wav", sound(2.0), RATE, subtype="PCM_16")
    wav = (tmp_path / "in.wav").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    url = f"ws://127.0.0.1:{(port := free_port())}"
    arguments = ("send", tmp_path / "pipe", "--url", url, "--model", tmp_path / "model", "--json")
    with started("serve", "--port", port) as relay:
        first_event(relay)
        for ends in (True, False):
            with started(*arguments) as mouth:
                with (tmp_path / "pipe").open("wb") as pipe:
                    pipe.write(wav if ends else wav[: len(wav) // 2])
                    pipe.flush()
                    if not ends:  # nothing comes any more, and the pipe stays open
                        while first_event(relay)["event"] != "join":
                            pass
                        mouth.send_signal(signal.SIGINT)
                        out, err = mouth.communicate(timeout=60)
                if ends:
                    while first_event(relay)["event"] != "join":
                        pass
                    out, err = mouth.communicate(timeout=60)
            sent = json.loads(out)
            assert (mouth.returncode, sent["interrupted"]) == ((0, False) if ends else (1, True)), err
            assert not ends or sent["input_samples"] == 2 * RATE
            assert "Traceback" not in err
        relay.send_signal(signal.SIGTERM)
        relay.communicate(timeout=60)


class Room:
    """A call in which somebody speaks on and on; at the third block Ctrl-C is pressed."""

    room, speakers, present, others_returning = "r", (1,), frozenset({1}), False

    def __init__(self) -> None:
        spoken = ReceiverStatistics(total_samples_received=HOP, jitter_buffer_emitted_count=HOP)
        self.statistics = CallStatistics(LinkCounts(connects=1), {1: spoken}, {}, 1, 0, {})

    async def __aenter__(self) -> Room:
        return self

    async def __aexit__(self, *exception: object) -> None: ...

    async def wait_for_voice(self) -> None: ...

    async def receive(self) -> AsyncIterator[np.ndarray]:
        for number in itertools.count():
            if number == 3:
                signal.raise_signal(signal.SIGINT)
            yield np.zeros((1, HOP), np.float32)
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("windows", [False, True])
def test_ctrl_c_ends_listening_and_keeps_what_was_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: bool
) -> None:
    """Where the event loop takes no signal handlers (Windows) too."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    before = [(number, signal.getsignal(number)) for number in ending_signals()]
    if windows:
        monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", refuse)
        monkeypatch.setattr(asyncio.SelectorEventLoop, "remove_signal_handler", refuse)
    loaded: Any = SimpleNamespace(config=SimpleNamespace(sampling_rate=RATE, audio_channels=1))
    try:
        facts = asyncio.run(_listen(tmp_path / "heard.wav", Room(), loaded, None, False))
        assert facts["interrupted"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # the next one ends the program
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert soundfile.info(tmp_path / "heard.wav").frames >= 3 * HOP
    assert os.listdir(tmp_path) == ["heard.wav"]


def test_a_token_says_what_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k" * 32)
    code, token, _ = run("token", "r", "--key", tmp_path / "key", "--no-publish", "--ttl", "2m", "--id", "x")
    claims = jwt.decode(token.strip(), b"k" * 32, algorithms=["HS256"], audience="streaming-encodec")
    assert code == 0
    assert (claims["room"], claims["publish"], claims["subscribe"], claims["jti"]) == ("r", False, True, "x")
    assert claims["exp"] - claims["iat"] == 120
    TokenKey.load(tmp_path / "key")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("serve", "--host", "0.0.0.0"), 1, "--insecure"),
        (("serve", "--tls-cert", "x.pem"), 2, "go together"),
        (("serve", "--key", "/nowhere/key"), 1, "cannot be read"),
        (("token", "room"), 2, "--new-key"),
        (("token",), 2, "which room"),
        (("token", "r", "--key", "/nowhere/key"), 1, "cannot be read"),
        (("token", "r", "--key", "k", "--ttl", "2d"), 2, "a day is the most"),
        (("token", "r", "--key", "k", "--ttl", "soon"), 2, "a day is the most"),
        (("token", "r", "--key", "k", "--id", "x" * 65), 1, "a token's id has 1 to 64 characters"),
        (("serve", "--max-speakers", "65"), 2, "--max-speakers"),
        (("send", "/nowhere/in.wav"), 1, "in.wav"),
        (("listen", "out.nonsense"), 1, "out.nonsense"),
        (("listen", "out.wav", "--trace", "t.wav"), 1, "use .jsonl"),
        (("send", "in.wav", "--trace", "nowhere/t.jsonl"), 1, "nowhere"),
    ],
)
def test_what_goes_wrong_is_told(
    arguments: tuple[str, ...], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k").write_bytes(b"k" * 32)
    found, out, err = run(*arguments)
    assert found == code, (out, err)
    assert says in " ".join(err.split()).replace("│ ", "")


def test_no_relay_is_told(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "in.wav", sound(0.1), RATE)
    url = f"ws://127.0.0.1:{free_port()}"
    for arguments in (("send", tmp_path / "in.wav"), ("listen", tmp_path / "out.wav")):
        code, _, err = run(*arguments, "--url", url, "--model", tmp_path / "model")
        assert code == 1
        assert "is it running?" in err
        assert not (tmp_path / "out.wav").exists()
