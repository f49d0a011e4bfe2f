"""Hear what is said in a room of a relay; `websocket_sender.py` speaks there.

streaming-encodec serve &
python demos/websocket_receiver.py --wav out.wav --seconds 10
python demos/websocket_receiver.py                      (plays it)
"""

import argparse
import asyncio
import contextlib
import time

from streaming_encodec import AudioWriter, SoundCard, VoiceClient


async def into_file(call: VoiceClient, path: str, seconds: float) -> None:
    """The client keeps the pace: a block every frame, silence too, from the first word on."""
    await call.wait_for_voice()
    rate = call.format.sample_rate
    with AudioWriter(path, rate) as writer:
        async for block in call.receive():
            writer.write(block)
            if writer.samples >= seconds * rate:
                return


async def into_speaker(call: VoiceClient, seconds: float) -> None:
    """The sound card keeps the pace: a frame is made whenever less than `target_s` waits for it."""
    card, end = SoundCard(call.format.sample_rate, use_input=False), time.monotonic() + seconds
    try:
        while time.monotonic() < end and not call.over:
            queued = card.queued_s
            if queued is not None and queued < card.target_s:
                now = time.monotonic() + queued - card.target_s
                card.write(await call.pull(call.format.frame_samples, now))
            else:
                card.maintain()
                await asyncio.sleep(0.003)
    finally:
        card.close()


async def hear(options: argparse.Namespace) -> None:
    client = VoiceClient(options.url, options.token, options.model, room=options.room, role="subscribe")
    async with client as call:
        print(f"listening in {call.room}", flush=True)
        if options.wav:
            await into_file(call, options.wav, options.seconds)
        else:
            await into_speaker(call, options.seconds)
        for number, statistics in call.statistics.speakers.items():
            print(f"speaker {number}: {100 * statistics.concealed_share:.2f} % concealed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wav", metavar="OUT")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--url", default="ws://127.0.0.1:8765")
    parser.add_argument("--room", default="lobby")
    parser.add_argument("--token")
    parser.add_argument("--model", default="voice-24khz")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(hear(parser.parse_args()))


if __name__ == "__main__":
    main()
