"""Whole calls through a relay on this machine: what is played is what was said."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
from call_kit import HOP, PATIENT, RATE, Ear, VoiceClient, codec, say, sound, tiny_model
from relay_kit import KEY, FakeClock, running, until

from streaming_encodec.client.settings import ConnectionSettings
from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.control import Joined, Left
from streaming_encodec.wire.hello import Welcome


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return tiny_model()


def offline_codes(model: EncodecModel, pcm: np.ndarray, bandwidth: float = 6.0) -> np.ndarray:
    encoder = StreamingEncoder(model, bandwidth, engine="fused")
    return np.concatenate([encoder.push(pcm), encoder.flush()], axis=1)


AT_ONCE = ReceiverSettings(DelaySettings(minimum_frames=2, initial_frames=2))


@pytest.mark.parametrize("frames_per_packet", [1, 3])
async def test_a_clean_network_plays_what_was_sent_code_for_code(model: EncodecModel, frames_per_packet: int) -> None:
    """The clock stands still while packets travel: the machine running this may be as slow as it likes."""
    pcm = sound(2.0)
    sent = offline_codes(model, pcm)
    clock = FakeClock()
    async with (
        running(clock=clock) as relay,
        VoiceClient(relay.url, None, model, role="subscribe", clock=clock, playout=AT_ONCE) as listener,
        VoiceClient(
            relay.url,
            None,
            model,
            role="publish",
            codec=codec(packets=SenderSettings(frames_per_packet=frames_per_packet)),
            clock=clock,
        ) as speaker,
    ):
        ear = Ear(listener)
        blocks = []
        packets = 0
        for number in range(len(pcm) // HOP + 10):
            if number < len(pcm) // HOP:
                await speaker.send(pcm[number * HOP : (number + 1) * HOP])
                packets += (number + 1) % frames_per_packet == 0
                await until(lambda: listener.statistics.packets_arrived >= packets, "it came")  # noqa: B023
            blocks.append(await listener.pull(HOP, clock.now_s))
            clock.now_s += HOP / RATE
            if number == len(pcm) // HOP - 1:
                await speaker.finish()
                await until(lambda: listener.statistics.packets_arrived > packets, "the end came")  # noqa: B023
        statistics = listener.statistics.speakers[speaker.sender]
        assert np.array_equal(ear.heard(speaker.sender), sent)
        assert statistics.concealed_samples == statistics.skipped_frames == statistics.packets_lost == 0
        # Settled at the least of all buffers.
        assert listener.statistics.playout_target_ms[speaker.sender] == pytest.approx(2 * 1000 * HOP / RATE)
    played = np.concatenate(blocks, axis=1)
    # Past the fade from silence (3 ms) the sound is the decoder's: all of it, if time was not bent.
    bent = statistics.inserted_samples_for_deceleration + statistics.removed_samples_for_acceleration
    assert frames_per_packet == 3 or not bent
    expected = StreamingDecoder(model, engine="fused").push(sent)
    begin = int(np.argmax(np.abs(played[0]) > 0)) // HOP * HOP
    length = 5 * HOP if bent else expected.shape[1]
    difference = played[0, begin + 72 : begin + length] - expected[0, 72:length]
    assert np.abs(difference).max() < 1e-6


def unhurried() -> AbstractAsyncContextManager[Relay]:
    """A relay whose clock stands still: no packet is late for it, however often this machine pauses."""
    return running(clock=FakeClock(), limits=RelayLimits(burst_s=100.0))


async def test_two_speakers_are_mixed_and_each_is_whole(model: EncodecModel) -> None:
    voices = {bandwidth: sound(1.0, seed) for seed, bandwidth in enumerate((1.5, 6.0))}
    async with (
        unhurried() as relay,
        VoiceClient(relay.url, None, model, role="subscribe", playout=PATIENT) as listener,
        Ear(listener) as ear,
    ):

        async def speak(bandwidth: float) -> int:
            async with VoiceClient(relay.url, None, model, role="publish", codec=codec(bandwidth)) as call:
                await say(call, voices[bandwidth])
                return call.sender

        numbers = await asyncio.gather(*(speak(bandwidth) for bandwidth in voices))
        await until(lambda: not listener.speakers and len(ear.codes) == 2, "all was played")
        for number, (bandwidth, pcm) in zip(numbers, voices.items(), strict=True):
            assert np.array_equal(ear.heard(number), offline_codes(model, pcm, bandwidth))


async def test_who_hung_up_was_not_cut_off(model: EncodecModel) -> None:
    async with running() as relay, VoiceClient(relay.url, None, model) as client:
        await client.send(sound(0.1))
    assert client.over
    client.check()


async def test_talking_both_ways(model: EncodecModel) -> None:
    async with (
        unhurried() as relay,
        VoiceClient(relay.url, None, model, playout=PATIENT) as one,
        VoiceClient(relay.url, None, model, playout=PATIENT) as two,
        Ear(one) as ear_one,
        Ear(two) as ear_two,
    ):
        assert two.present == {one.sender}
        await asyncio.gather(say(one, sound(0.5, 1)), say(two, sound(0.5, 2)))
        await asyncio.gather(one.finish(), two.finish())
        wanted_one, wanted_two = offline_codes(model, sound(0.5, 2)), offline_codes(model, sound(0.5, 1))
        await until(lambda: ear_one.frames(two.sender) >= wanted_one.shape[1], "one heard all of two")
        await until(lambda: ear_two.frames(one.sender) >= wanted_two.shape[1], "two heard all of one")
        assert np.array_equal(ear_one.heard(two.sender), wanted_one)
        assert np.array_equal(ear_two.heard(one.sender), wanted_two)


async def test_the_relay_cuts_codebooks_for_one_listener_only(model: EncodecModel) -> None:
    pcm = sound(0.6)
    sent = offline_codes(model, pcm)
    cut = ConnectionSettings(max_codebooks=2)
    async with (
        unhurried() as relay,
        VoiceClient(relay.url, None, model, role="subscribe", connection=cut, playout=PATIENT) as narrow,
        VoiceClient(relay.url, None, model, role="subscribe", playout=PATIENT) as wide,
        Ear(narrow) as ear_narrow,
        Ear(wide) as ear_wide,
    ):
        async with VoiceClient(relay.url, None, model, role="publish") as speaker:
            await say(speaker, pcm)
        await until(lambda: not narrow.speakers and not wide.speakers and ear_wide.codes, "all was played")
        assert np.array_equal(ear_narrow.heard(speaker.sender), sent[:2])
        assert np.array_equal(ear_wide.heard(speaker.sender), sent)


async def test_layers_change_within_a_call(model: EncodecModel) -> None:
    async with (
        unhurried() as relay,
        VoiceClient(relay.url, None, model, role="subscribe", playout=PATIENT) as listener,
        Ear(listener) as ear,
        VoiceClient(relay.url, None, model, role="publish") as speaker,
    ):
        await say(speaker, sound(0.4))
        listener.layers(1)
        speaker.bandwidth = 3.0
        await asyncio.sleep(0.05)
        await say(speaker, sound(0.4))
        await speaker.finish()
        await until(lambda: ear.frames(speaker.sender) >= 2 * 30, "all was played")
        shapes = [codes.shape[0] for codes in ear.codes[speaker.sender] if codes is not None]
        most = model.config.num_codebooks_for(6.0)
        assert shapes[0] == most
        assert shapes[-1] == 1


async def test_reports_reach_the_speaker(model: EncodecModel) -> None:
    async with (
        unhurried() as relay,
        VoiceClient(relay.url, None, model, role="subscribe", playout=PATIENT) as listener,
        Ear(listener),
        VoiceClient(relay.url, None, model, role="publish") as speaker,
    ):
        await say(speaker, sound(1.5))
        await until(lambda: speaker.statistics.reports, "a report came")
        (sender, _), report = next(iter(speaker.statistics.reports.items()))
        assert sender == speaker.sender
        assert report.fraction_concealed < 0.5
        heard = listener.statistics.speakers[sender]
        assert heard.packets_received > 50
        assert heard.packets_lost == 0


async def test_a_killed_relay_comes_back_and_both_sides_resume(model: EncodecModel) -> None:
    token = {seat: KEY.sign("r", now_s=_unix(), ttl_s=600) for seat in "sl"}
    async with running(token_key=KEY) as relay:
        port = relay.port
        speaker = VoiceClient(relay.url, token["s"], model, role="publish")
        listener = VoiceClient(relay.url, token["l"], model, role="subscribe", playout=PATIENT)
        await speaker.__aenter__()
        await listener.__aenter__()
        for connection in list(relay._admission.connections):  # as the kernel does for a killed process
            connection.transport.abort()
    await until(lambda: not (speaker.connected or listener.connected), "both lost the relay")
    await asyncio.sleep(0.7)
    from streaming_encodec.relay.config import RelayConfig

    async with Relay(RelayConfig(port=port, token_key=KEY)), Ear(listener) as ear:
        talk = asyncio.create_task(say(speaker, sound(3.0)))
        await until(lambda: speaker.connected and listener.connected, "both came back")
        await until(lambda: ear.codes, "voice came through again")
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)
        assert listener.statistics.link.connects == 2
        await speaker.__aexit__(None, None, None)
        await listener.__aexit__(None, None, None)


async def test_after_a_relays_restart_the_others_are_awaited(model: EncodecModel) -> None:
    """Whoever is back first meets an empty room, and must not take that for the end of the call."""
    now_s = [100.0]
    listener = VoiceClient("ws://127.0.0.1:1", None, model, role="subscribe", clock=lambda: now_s[0])
    for message, expected in (
        (Welcome(0), False),  # nobody was there yet
        (Welcome(0, speakers=(3,)), False),
        (Welcome(0), True),
        (Joined(1), False),
        (Welcome(0), True),
        (Welcome(0, speakers=(2,)), False),
        (Left(2), False),
        (Joined(2), False),
        (Welcome(0), True),
    ):
        listener._on_control(message)
        assert listener.others_returning is expected, message
    now_s[0] += 20.0
    assert not listener.others_returning


async def test_a_lost_connection_keeps_its_seat(model: EncodecModel) -> None:
    async with (
        running(token_key=KEY) as relay,
        VoiceClient(relay.url, KEY.sign("r", now_s=_unix(), subscribe=False), model) as speaker,
        VoiceClient(relay.url, KEY.sign("r", now_s=_unix(), publish=False), model) as listener,
        Ear(listener) as ear,
    ):
        number = speaker.sender
        await say(speaker, sound(0.3))
        for connection in list(relay._admission.connections):
            connection.transport.abort()
        await until(lambda: not (speaker.connected or listener.connected), "both lost the relay")
        await until(lambda: speaker.connected and listener.connected, "both came back")
        assert speaker.statistics.link.resumes == listener.statistics.link.resumes == 1
        assert speaker.sender == number
        assert listener.present == {number}
        before = len(ear.codes[number])
        await say(speaker, sound(0.5))
        await until(lambda: len(ear.codes[number]) > before + 20, "voice came through again")


@contextmanager
def fails(says: str, reason: CallErrorReason, close_code: int | None = None) -> Iterator[None]:
    with pytest.raises(CallError, match=says) as told:
        yield
    assert (told.value.reason, told.value.close_code) == (reason, close_code)


async def test_what_a_caller_is_told(model: EncodecModel) -> None:
    async with running(token_key=KEY) as relay:
        url = relay.url
        with fails("does not let you in", CallErrorReason.NOT_ALLOWED, 4403):
            async with VoiceClient(url, KEY.sign("r", now_s=0.0), model):
                pass
        with fails("does not let you in", CallErrorReason.NOT_ALLOWED, 4403):
            async with VoiceClient(url, None, model):
                pass
        async with VoiceClient(url, KEY.sign("r", now_s=_unix()), model):
            with fails("another model", CallErrorReason.WRONG_MODEL, 4409):
                async with VoiceClient(url, KEY.sign("r", now_s=_unix()), tiny_model(1)):
                    pass
        async with VoiceClient(url, KEY.sign("r", now_s=_unix(), publish=False), model) as call:
            assert call.role == "subscribe"
            with fails("only listen", CallErrorReason.LISTEN_ONLY):
                await call.send(sound(0.1))
    with fails("is it running", CallErrorReason.UNREACHABLE):
        async with VoiceClient(url, None, model):
            pass
    with pytest.raises(ConfigError, match="no WebSocket address"):
        async with VoiceClient("http//nonsense", None, model):
            pass
    with fails("no token", CallErrorReason.NOT_ALLOWED):
        VoiceClient(url, "half a token", model)
    with pytest.raises(ConfigError, match="a room's name has 1 to 64"):
        VoiceClient(url, None, model, room="x" * 65)
    with pytest.raises(ConfigError, match="role"):
        VoiceClient(url, None, model, role="king")


async def test_a_fresh_token_is_fetched_for_each_connection(model: EncodecModel) -> None:
    made = []

    async def fetch() -> str:
        made.append(KEY.sign("r", now_s=_unix()))
        return made[-1]

    async with (
        running(token_key=KEY) as relay,
        VoiceClient(relay.url, fetch, model, room="r") as call,
    ):
        next(iter(relay._admission.connections)).transport.abort()
        await until(lambda: len(made) == 2 and call.connected, "it came back")


async def test_an_outage_without_end_ends_the_call(model: EncodecModel) -> None:
    async with running() as relay:
        call = VoiceClient(relay.url, None, model, connection=ConnectionSettings(give_up_s=0.3))
        await call.__aenter__()
    with fails("the call is over", CallErrorReason.LOST):
        async for _ in call.receive():
            pass
    assert call.over
    with fails("the call is over", CallErrorReason.LOST):
        await call.send(sound(0.1))
    await call.__aexit__(None, None, None)


async def test_receiving_follows_the_clock(model: EncodecModel) -> None:
    loop = asyncio.get_running_loop()
    async with running() as relay, VoiceClient(relay.url, None, model) as call:
        begin_s = loop.time()
        samples = 0
        async for block in call.receive(480):
            assert block.shape == (1, 480)
            samples += 480
            if samples >= RATE // 2:
                break
        assert loop.time() - begin_s >= samples / RATE - 0.021


def _unix() -> float:
    import time

    return time.time()


async def test_a_client_is_good_for_one_call(model: EncodecModel) -> None:
    async with running() as relay:
        call = VoiceClient(relay.url, None, model)
        async with call:
            with fails("make another one", CallErrorReason.MISUSE):
                async with call:
                    pass
            await call.send(sound(0.1))  # the call that goes on is not disturbed
        with fails("make another one", CallErrorReason.MISUSE):
            await call.__aenter__()
        await call.__aexit__(None, None, None)
        refused = VoiceClient(f"ws://127.0.0.1:{relay.port}/nowhere", None, model)
        for says in ("no relay that takes this client", "make another one"):
            with pytest.raises(CallError, match=says):
                await refused.__aenter__()


async def test_two_tasks_that_enter_one_client(model: EncodecModel) -> None:
    async with running() as relay:
        call = VoiceClient(relay.url, None, model)
        one, other = await asyncio.gather(call.__aenter__(), call.__aenter__(), return_exceptions=True)
        assert one is call
        assert isinstance(other, CallError)
        assert call.connected
        await call.__aexit__(None, None, None)


async def _receive(call: VoiceClient) -> None:
    async for _ in call.receive():
        break


USES: dict[str, Callable[[VoiceClient], Any]] = {
    "send": lambda call: call.send(sound(0.1)),
    "finish": lambda call: call.finish(),
    "receive": _receive,
    "pull": lambda call: call.pull(HOP, 0.0),
    "wait_for_voice": lambda call: call.wait_for_voice(),
}


async def use(call: VoiceClient, name: str) -> None:
    done = USES[name](call)
    if inspect.isawaitable(done):
        await asyncio.wait_for(done, 10)


@pytest.mark.parametrize("name", USES)
async def test_a_client_outside_its_call_says_what_to_do(model: EncodecModel, name: str) -> None:
    async with running() as relay:
        call = VoiceClient(relay.url, None, model)
        with fails("use it within `async with`", CallErrorReason.MISUSE):
            await use(call, name)
        async with call:
            pass
        if name == "receive":  # there is nothing more to hear, which is no error
            await use(call, name)
            return
        with fails("make another VoiceClient", CallErrorReason.MISUSE):
            await use(call, name)


async def test_a_client_belongs_to_the_event_loop_that_entered_it(model: EncodecModel) -> None:
    async with running() as relay, VoiceClient(relay.url, None, model) as call:

        def elsewhere(name: str) -> None:
            with pytest.raises(CallError, match="belongs to another event loop"):
                asyncio.run(use(call, name))

        for name in ("send", "finish", "receive", "pull", "wait_for_voice"):
            await asyncio.to_thread(elsewhere, name)
