"""`ThreadedVoiceClient`: calls by plain threads, and the way of a block through the package."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from call_kit import HOP, ThreadedVoiceClient, codec, sound, tiny_model

import streaming_encodec
from streaming_encodec.client.network_thread import NetworkThread
from streaming_encodec.client.settings import ConnectionSettings
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.live.loop import LIVE_PLAYOUT
from streaming_encodec.live.own_call import OwnCall
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay

ROOT = Path(streaming_encodec.__file__).parent


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return tiny_model()


@pytest.fixture
def network() -> Iterator[NetworkThread]:
    thread = NetworkThread()
    yield thread
    thread.close()


@pytest.fixture
def relay(network: NetworkThread) -> Iterator[str]:
    running = Relay(RelayConfig(port=0))
    network.run(running.start())
    yield running.url
    network.run(running.stop())


USES: dict[str, Callable[[ThreadedVoiceClient], Any]] = {
    "send": lambda call: call.send(sound(0.1)),
    "read": lambda call: call.read(HOP, 0.0),
    "read_whole": lambda call: call.read_whole(HOP, 0.0, certain=True),
}


@pytest.mark.parametrize("name", USES)
def test_a_client_outside_its_call_says_what_to_do(model: EncodecModel, relay: str, name: str) -> None:
    call = ThreadedVoiceClient(relay, None, model)
    with pytest.raises(CallError, match="use it within `with`") as raised:
        USES[name](call)
    assert raised.value.reason is CallErrorReason.MISUSE
    with call:
        USES[name](call)
        with pytest.raises(CallError, match="make another one"), call:
            pass
    with pytest.raises(CallError, match="make another ThreadedVoiceClient"):
        USES[name](call)


@pytest.mark.parametrize("name", USES)
def test_a_call_that_is_over_is_noticed_by_who_speaks_and_by_who_only_listens(
    model: EncodecModel, relay: str, name: str
) -> None:
    """While the microphone is unplugged nothing is said, and only listening goes on."""
    with ThreadedVoiceClient(relay, None, model) as call:
        USES[name](call)
        call._link._end(CallError("another connection took this place", CallErrorReason.REPLACED))
        with pytest.raises(CallError, match="took this place"):
            USES[name](call)


def test_a_listener_may_not_speak(model: EncodecModel, relay: str) -> None:
    with (
        ThreadedVoiceClient(relay, None, model, role="subscribe") as call,
        pytest.raises(CallError, match="only listen") as raised,
    ):
        call.send(sound(0.1))
    assert raised.value.reason is CallErrorReason.LISTEN_ONLY


def test_a_refused_client_leaves_no_thread_behind(model: EncodecModel) -> None:
    with pytest.raises(CallError), ThreadedVoiceClient("ws://127.0.0.1:9", None, model):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("streaming-encodec-net")]


def test_clients_that_share_a_network_thread_hear_each_other(
    model: EncodecModel, relay: str, network: NetworkThread
) -> None:
    shared = ConnectionSettings(network=network)
    with (
        ThreadedVoiceClient(relay, None, model, role="subscribe", connection=shared, playout=LIVE_PLAYOUT) as listener,
        ThreadedVoiceClient(relay, None, model, role="publish", connection=shared) as speaker,
    ):
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("streaming-encodec-net") == 1  # the fixture's; asyncio's pool may grow beside it
        arrived = threading.Semaphore(0)
        came: list[bytes] = []
        listener.on_packet(lambda packet, now_s: came.append(packet))
        listener.on_packet(lambda packet, now_s: arrived.release())
        sent: list[bytes] = []
        speaker.on_sent(lambda packet, now_s: sent.append(packet))
        speaker.send(sound(0.2))
        assert len(sent) == 15
        assert all(arrived.acquire(timeout=30) for _ in sent)
        strip = [packet[6:] for packet in sent]  # the relay writes the sender's number
        assert [packet[6:] for packet in came] == strip
        now_s = time.monotonic()
        heard = np.concatenate([listener.read(HOP, now_s + number * HOP / 24_000) for number in range(15)], axis=1)
        assert np.abs(heard).max() > 0
        assert listener.speakers == (speaker.sender,)


@contextmanager
def calls_counted() -> Iterator[Callable[[], set[str]]]:
    """Gives a function that tells which files of the package ran since it was last asked, in threads begun within."""
    names: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            names.add(frame.f_code.co_filename)

    def since() -> set[str]:
        found = {str(Path(name).relative_to(ROOT)) for name in tuple(names) if name.startswith(str(ROOT))}
        names.clear()
        return found

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield since
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def way_of_a_block(model: EncodecModel, engine: str) -> list[str]:
    """The files that most blocks of a call pass from `send` on one side to `read` on the other."""
    passed: Counter[str] = Counter()
    blocks = 30
    with calls_counted() as since, OwnCall(model, codec(engine=engine)) as call:
        arrived = threading.Semaphore(0)
        call.listener.on_packet(lambda packet, now_s: arrived.release())
        for number in range(blocks):
            since()
            call.speaker.send(sound(1.0, number)[:HOP])
            assert arrived.acquire(timeout=30)
            call.listener.read(HOP, time.monotonic())
            passed.update(since())
    measuring = {"live/own_call.py", "voice/network.py"}  # the delay's meter and the network impairment
    return sorted(name for name, times in passed.items() if times > blocks / 2 and name not in measuring)


def test_a_block_passes_few_files_on_its_way_to_the_other_ear(model: EncodecModel) -> None:
    files = way_of_a_block(model, "kernel")
    assert {"client/threaded.py", "relay/participants.py", "voice/receiver.py"} <= set(files)
    # Two frames are decoded in one step, so every second block passes these; on a busy machine frames come one by one.
    assert len(set(files) - {"streaming/decoder.py", "streaming/stream.py"}) <= 32, "\n".join(files)
