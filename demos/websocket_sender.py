"""Speak into a room of a relay; `websocket_receiver.py` hears it.

streaming-encodec serve &
python demos/websocket_sender.py --wav in.wav
python demos/websocket_sender.py                        (the microphone)
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np

from streaming_encodec import AudioReader, SoundCard, VoiceClient


async def from_file(path: str, rate: int) -> AsyncIterator[np.ndarray]:
    """20 ms of a file every 20 ms."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    with AudioReader(path, rate, channels=1) as reader:
        for block in reader.blocks(rate // 50):
            yield block
            # After a pause of this machine the file goes on from there: the relay would drop a burst.
            due = max(due + block.shape[1] / rate, loop.time() - 0.2)
            await asyncio.sleep(max(0.0, due - loop.time()))


async def from_microphone(rate: int) -> AsyncIterator[np.ndarray]:
    """The microphone's sound, every few milliseconds, until Ctrl-C."""
    card = SoundCard(rate, use_output=False)
    try:
        while True:
            yield card.read()
            card.maintain()
            await asyncio.sleep(0.005)
    finally:
        card.close()


async def speak(options: argparse.Namespace) -> None:
    client = VoiceClient(options.url, options.token, options.model, room=options.room, role="publish")
    rate = client.format.sample_rate
    sound = from_file(options.wav, rate) if options.wav else from_microphone(rate)
    async with client as call:
        print(f"speaking in {call.room} as number {call.sender}")
        async for block in sound:
            await call.send(block)
    print(f"{call.statistics.link.packets_sent} packets, {call.statistics.link.bytes_sent} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wav", metavar="IN")
    parser.add_argument("--url", default="ws://127.0.0.1:8765")
    parser.add_argument("--room", default="lobby")
    parser.add_argument("--token")
    parser.add_argument("--model", default="voice-24khz")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(speak(parser.parse_args()))


if __name__ == "__main__":
    main()
