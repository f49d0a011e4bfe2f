"""demo, talk, devices and doctor, as a newcomer without sound devices meets them, and on made-up ones."""

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_kit import Run, save_random
from device_kit import FakeBackend
from tls_kit import relay_in_thread
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from streaming_encodec.audio.devices import portaudio
from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.cli.commands.doctor import _visit, look_at_relay
from streaming_encodec.cli.shared import live_command
from streaming_encodec.client.settings import CodecSettings
from streaming_encodec.client.threaded import ThreadedVoiceClient
from streaming_encodec.errors import CallError, CallErrorReason, DeviceError
from streaming_encodec.live.feedback import FeedbackSuppressor
from streaming_encodec.live.figures import CallMeter
from streaming_encodec.live.file_card import FileCard
from streaming_encodec.live.loop import LiveLoop
from streaming_encodec.live.ready import before_others
from streaming_encodec.live.speed import Speed
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.transport.close_codes import CloseCode


class NoSound(FakeBackend):
    """A machine without PortAudio."""

    def devices(self) -> list:
        raise DeviceError(f"PortAudio is not on this machine: {portaudio.HOW_TO_GET_PORTAUDIO}")

    version = devices


def _howl(self: FeedbackSuppressor, pcm: np.ndarray) -> np.ndarray:
    self.caught += 1
    return pcm


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("live") / "small", target_bandwidths=(1.5, 3.0, 6.0))


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    # What a command refuses on a slow machine has its own test; the others must pass on one.
    monkeypatch.setattr(live_command, "measure_speed", lambda *_: Speed(1.0, 1.5, 13.3))
    return run


@pytest.fixture
def relay() -> Iterator[str]:
    with relay_in_thread() as running:
        yield running.url


def test_the_first_run_needs_no_flag_and_no_device(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portaudio, "PortAudio", NoSound)
    result = run("demo", "--json", "-m", model, "--engine", "fused", "--seconds", 1)
    assert result.code == 0, result.err
    assert "PortAudio is not on this machine: install it with" in result.err
    facts = result.json
    sound, rate = soundfile.read(tmp_path / "demo.wav")
    assert rate == 24_000
    assert len(sound) >= 1.4 * rate
    assert np.abs(sound).max() > 0
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert facts["packets_sent"] > 12  # two frames in each, up to six where the machine is busy
    assert facts["packets_lost"] < 20  # none but where the machine is too busy to read its own sockets
    assert facts["wire_kbps"] > facts["payload_kbps"] > 3
    assert sum(facts["delay_ms"].values()) > 20


def test_without_matplotlib_there_is_no_picture_and_the_way_to_one_is_told(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("demo", "-m", model, "--engine", "fused", "--clip", bundled_clip(), "--seconds", 0.5)
    assert result.code == 0, result.err
    assert 'pip install "streaming-encodec[plot]"' in result.err.replace("\n", " ")
    assert (tmp_path / "demo.wav").exists()
    assert not (tmp_path / "demo.png").exists()


def test_talk_says_what_it_does_about_a_loudspeaker_and_guards_against_howling(
    run: Run, model: Path, relay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portaudio, "PortAudio", FakeBackend)  # its speaker is built in; it never calls back
    monkeypatch.setattr(FeedbackSuppressor, "process", _howl)
    result = run("talk", "room", "-m", model, "--engine", "fused", "--url", relay, "--seconds", 1.5)
    assert result.code == 0, result.err
    assert "Built-in Speaker is no headset by its name" in " ".join(result.out.replace("│", " ").split())
    assert "howling" in result.out


def test_a_bad_network_is_heard_and_counted(run: Run, model: Path, tmp_path: Path) -> None:
    arguments = (
        "--clip",
        bundled_clip(),
        "--seconds",
        2,
        "--loss",
        30,
        "--jitter",
        5,
        "--record",
        "bad.flac",
    )
    result = run("demo", "-m", model, "--engine", "fused", "--json", *arguments)
    assert result.code == 0, result.err
    assert result.json["packets_lost"] > 10
    assert result.json["concealed_share"] > 0.05
    assert soundfile.info(tmp_path / "bad.flac").samplerate == 24_000
    assert (tmp_path / "bad.png").exists()


def test_a_summary_in_words(run: Run, model: Path) -> None:
    result = run("demo", "-m", model, "--engine", "fused", "--clip", bundled_clip(), "--seconds", 0.5)
    assert result.code == 0
    for word in ("mouth to ear", "frame time", "bitrate", "losses", "demo.wav"):
        assert word in result.out


def test_a_device_that_was_named_must_be_there(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portaudio, "PortAudio", FakeBackend)
    run("demo", "-m", model, "--engine", "fused", "--input", "bluetooth").fails_with("there are 0: Built-in")


def test_a_machine_that_is_too_slow_is_told_before_the_call(
    run: Run, model: Path, relay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_command, "measure_speed", lambda *_: Speed(20.0, 25.0, 40 / 3))
    arguments = ("--clip", bundled_clip(), "--record", "out.wav", "--url", relay)
    talk = run("talk", "room", "-m", model, "--engine", "fused", *arguments)
    talk.fails_with("needs 20.0 ms for a frame of 13.3 ms")
    talk.fails_with("--model voice-24khz is much lighter")


def test_talk_without_a_relay_says_how_to_get_one(run: Run, model: Path) -> None:
    arguments = ("--clip", bundled_clip(), "--record", "out.wav", "--url", "ws://127.0.0.1:9")
    result = run("talk", "room", "-m", model, "--engine", "fused", *arguments)
    assert result.code == 1
    assert "no relay at ws://127.0.0.1:9" in result.err.replace("\n", " ")
    assert "streaming-encodec serve" in result.err


def test_talk_says_a_clip_and_records_the_room(run: Run, model: Path, relay: str, tmp_path: Path) -> None:
    arguments = ("--clip", bundled_clip(), "--record", "out.wav", "--url", relay, "--seconds", 3, "--json")
    result = run("talk", "room", "-m", model, "--engine", "fused", *arguments)
    assert result.code == 0, result.err
    assert result.json["failure"] is None
    assert result.json["packets_sent"] > 30
    assert soundfile.info(tmp_path / "out.wav").frames > 12_000
    usage = run("talk", "room", "--clip", bundled_clip())
    assert usage.code == 2
    assert "--record" in usage.err


OVER = "no connection to ws://relay for 120 s: the call is over"


@pytest.mark.parametrize("form", ["--json", "words"])
def test_talk_that_the_network_ends_says_why_and_how_it_went(
    run: Run, model: Path, relay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    said = 0
    really_send = ThreadedVoiceClient.send

    def send(self: ThreadedVoiceClient, pcm: np.ndarray) -> None:
        nonlocal said
        said += pcm.shape[1]
        if said > 1.5 * self.format.sample_rate:
            self._in_loop(self._link._end, CallError(OVER, CallErrorReason.REPLACED))
        really_send(self, pcm)

    monkeypatch.setattr(ThreadedVoiceClient, "send", send)
    arguments = ("--clip", bundled_clip(), "--record", "out.wav", "--url", relay)
    as_json = (form,) if form == "--json" else ()
    result = run("talk", "room", "-m", model, "--engine", "fused", *arguments, *as_json)
    assert result.code == 1
    assert OVER in " ".join(result.err.split())
    assert soundfile.info(tmp_path / "out.wav").frames > 12_000
    if as_json:
        assert result.json["failure"] == OVER
        assert 1 < result.json["seconds"] < 60
        assert 0 < result.json["payload_kbps"] < 100
    else:
        assert "mouth to ear" in result.out
        assert "0.0 s in room" not in result.out


def client(relay: str, model: EncodecModel, room: str, *, adapt: bool = True) -> ThreadedVoiceClient:
    return ThreadedVoiceClient(relay, None, model, room=room, codec=CodecSettings(engine="fused", adapt=adapt))


def live_loop(card: FileCard, call: ThreadedVoiceClient) -> LiveLoop:
    return LiveLoop(card, call, call, CallMeter(call, call, lambda: 1000 * call.round_trip_s).look)


def test_talk_on_a_bad_network_says_what_was_lost(run: Run, model: Path, relay: str) -> None:
    """Somebody else talks meanwhile, without redundancy; of these packets a third gets lost on the way."""
    loaded = EncodecModel.from_pretrained(model)
    sound, rate = soundfile.read(bundled_clip(), dtype="float32")
    over = threading.Event()
    # Before others, as `talk` is: else it takes the time of this one.
    with before_others(), client(relay, loaded, "bad", adapt=False) as call:
        loop = live_loop(FileCard(np.tile(sound, (1, 8)), rate), call)
        other = threading.Thread(target=loop.run, args=(over.is_set,))
        other.start()
        try:
            arguments = ("--clip", bundled_clip(), "--record", "out.wav", "--url", relay, "--loss", 30, "--jitter", 20)
            result = run("talk", "bad", "-m", model, "--engine", "fused", "--json", *arguments)
        finally:
            over.set()
            other.join()
    assert result.code == 0, result.err
    assert result.json["packets_lost"] > 10
    assert result.json["concealed_share"] > 0.1
    assert result.json["delay_ms"]["network"] >= 20


def test_two_people_hear_each_other(model: Path, relay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = EncodecModel.from_pretrained(model)
    sound, rate = soundfile.read(bundled_clip(), dtype="float32")
    cards = [FileCard(np.tile(sound, (1, 8)), rate) for _ in range(2)]
    calls = [client(relay, loaded, "two", adapt=False) for _ in cards]  # redundancy would repair what is lost
    arrived = calls[0]._voices.on_packet
    count = itertools.count()

    def lossy(data: bytes, now: float) -> None:
        """Every tenth packet never comes."""
        if next(count) % 10 != 5:
            arrived(data, now)

    monkeypatch.setattr(calls[0]._voices, "on_packet", lossy)
    with calls[0], ExitStack() as stack:
        stack.enter_context(calls[1])
        loops = [live_loop(card, call) for card, call in zip(cards, calls, strict=True)]
        ends = list(zip(loops, cards, strict=True))
        # Until both have said and heard enough: a busy machine takes its time, and the sound lasts long enough.
        while not all(card.done for card in cards):
            for loop in loops:
                loop.step()
            if all(loop.figures().packets_sent > 100 and np.abs(card.heard).max() > 0 for loop, card in ends):
                break
            time.sleep(0.003)
        for loop, card in ends:
            figures = loop.figures()
            assert figures.speakers == 1
            assert figures.connected
            assert figures.packets_sent > 100
            assert np.abs(card.heard).max() > 0
        missed = loops[0].figures()
        assert missed.network_ms >= 0  # known once the first ping has come back
        assert missed.wire_bits > missed.payload_bits > 0
        # When one hangs up, what the other has missed of its voice is not forgotten.
        assert missed.packets_lost > 0
        assert missed.concealed_share > 0
        stack.close()
        while calls[0].speakers and not cards[0].done:
            loops[0].step()
            time.sleep(0.003)
        assert calls[0].speakers == ()
        assert loops[0].figures().packets_lost >= missed.packets_lost
        assert loops[0].figures().concealed_share > 0


def test_devices(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portaudio, "PortAudio", FakeBackend)
    result = run("devices")
    assert result.code == 0
    assert "USB Headset" in result.out
    listed = run("devices", "--json").json["devices"]
    assert [device["name"] for device in listed][:2] == ["Built-in Microphone", "Built-in Speaker"]
    assert listed[0]["rates"] == [24_000, 48_000]
    # Some interfaces are opened in stereo only, or with all they have.
    monkeypatch.setattr(portaudio, "PortAudio", lambda: FakeBackend(channels=2))
    listed = run("devices", "--json").json["devices"]
    assert [device["rates"] for device in listed] == [[], [24_000, 48_000], []]
    monkeypatch.setattr(portaudio, "PortAudio", NoSound)
    run("devices").fails_with("apt install libportaudio2")


def test_doctor_finds_what_is_wrong_and_says_what_to_do(
    run: Run, model: Path, relay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portaudio, "PortAudio", NoSound)
    sick = run("doctor", "-m", model, "--engine", "fused", "--url", "ws://127.0.0.1:9", "--loop", "--json")
    assert sick.code == 1
    verdicts = {finding["subject"]: finding for finding in sick.json["findings"]}
    assert verdicts["PortAudio"]["verdict"] == verdicts["relay"]["verdict"] == "bad"
    assert "apt install" in verdicts["PortAudio"]["details"]
    assert "streaming-encodec serve" in verdicts["relay"]["cure"]
    assert verdicts["loop"]["verdict"] == "bad"
    assert "takes a microphone and a speaker" in verdicts["loop"]["details"]
    monkeypatch.setattr(portaudio, "PortAudio", type("Works", (FakeBackend,), {"version": lambda self: "V19, x"}))
    well = {
        f["subject"]: f
        for f in run("doctor", "-m", model, "--engine", "fused", "--url", relay, "--json").json["findings"]
    }
    assert {well[name]["verdict"] for name in ("PortAudio", "microphone", "speaker")} == {"ok"}
    assert well["relay"]["verdict"] in ("ok", "poor")
    assert "loop" not in well  # no sound unasked
    assert "ms takes" in well["speed"]["details"]


@pytest.mark.parametrize("url", ["ws://127.0.0.1:87650", "ws://host..name:1", "ws://[::1:8765", "localhost:8765"])
def test_an_address_that_cannot_be_is_told(run: Run, model: Path, tmp_path: Path, url: str) -> None:
    run("listen", tmp_path / "heard.wav", "-m", model, "--url", url).fails_with(f"{url} is no WebSocket address (")
    (finding,) = look_at_relay(url)
    assert finding.verdict == "bad"
    assert f"{url} is no WebSocket address" in finding.details


async def test_doctor_says_why_a_relay_hangs_up() -> None:
    async def full(socket: ServerConnection) -> None:
        await socket.close(CloseCode.TRY_LATER, "full")

    async with serve(full, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)]) as server:
        port = server.sockets[0].getsockname()[1]
        finding = await _visit(f"ws://127.0.0.1:{port}")
    assert finding.verdict == "bad"
    assert "ends the connection at once" in finding.details
    assert "try later" in finding.cure
