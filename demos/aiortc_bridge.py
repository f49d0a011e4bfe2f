"""A voice in a WebRTC call, as codes: an aiortc track in, an aiortc track out, packets on a data channel.

    pip install aiortc
    python demos/aiortc_bridge.py --wav in.wav out.wav

The data channel is unordered and does not retransmit, which suits voice. Here both ends live in this program, which
hands the offer from one to the other; in your call it goes through your signalling.
"""

import argparse
import asyncio
import fractions
import time

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCDataChannel, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError

from streaming_encodec import AudioReader, AudioWriter, VoiceDecoder, VoiceEncoder

RATE = 48_000  # WebRTC's
TICK = RATE // 50


class FileTrack(MediaStreamTrack):
    """A file as a microphone's track: 20 ms every 20 ms."""

    kind = "audio"

    def __init__(self, path: str) -> None:
        super().__init__()
        self._blocks = AudioReader(path, RATE, channels=1).blocks(TICK)
        self._begin, self._sent = time.monotonic(), 0

    async def recv(self) -> av.AudioFrame:
        block = next(self._blocks, None)
        if block is None or block.shape[1] < TICK:
            raise MediaStreamError
        await asyncio.sleep(max(0.0, self._begin + self._sent / RATE - time.monotonic()))
        # Clipped: a resampled file goes past full scale now and then, and would come out on the other side.
        return as_frame(np.clip(block * 32767, -32768, 32767).astype(np.int16), self.sent(TICK))

    def sent(self, count: int) -> int:
        self._sent += count
        return self._sent - count


class DecodedTrack(MediaStreamTrack):
    """What the other end says, as a track for your call: 20 ms every 20 ms, whatever has arrived."""

    kind = "audio"

    def __init__(self, channel: RTCDataChannel, model: str) -> None:
        super().__init__()
        self.decoder = VoiceDecoder(RATE, model=model, jitter_buffer=True)
        channel.on("message", self.decoder.push)
        self._begin, self._made = time.monotonic(), 0

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(max(0.0, self._begin + self._made / RATE - time.monotonic()))
        sound = await asyncio.to_thread(self.decoder.pull, TICK)
        self._made += TICK
        return as_frame(sound[None], self._made - TICK)


def as_frame(sound: np.ndarray, at: int) -> av.AudioFrame:
    """int16 [1, n] as PyAV has it."""
    frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, at, fractions.Fraction(1, RATE)
    return frame


async def bridge(track: MediaStreamTrack, channel: RTCDataChannel, model: str) -> int:
    """Encode a track into the channel until it ends. Returns the packets sent."""
    encoder, packets = VoiceEncoder(RATE, model=model), 0
    mono = av.AudioResampler(format="s16", layout="mono", rate=RATE)  # what comes from a call is stereo
    try:
        while True:
            for frame in mono.resample(await track.recv()):
                for packet in await asyncio.to_thread(encoder.encode, frame.to_ndarray()[0]):
                    channel.send(packet)
                    packets += 1
    except MediaStreamError:
        return packets


async def call(source: str, target: str, model: str) -> None:
    here, there = RTCPeerConnection(), RTCPeerConnection()
    channel = here.createDataChannel("voice", ordered=False, maxRetransmits=0)
    opened, arrived = asyncio.Event(), asyncio.get_running_loop().create_future()
    channel.on("open", opened.set)
    there.on("datachannel", arrived.set_result)
    await here.setLocalDescription(await here.createOffer())
    await there.setRemoteDescription(here.localDescription)
    await there.setLocalDescription(await there.createAnswer())
    await here.setRemoteDescription(there.localDescription)
    await opened.wait()
    heard = DecodedTrack(await arrived, model)
    speaking = asyncio.create_task(bridge(FileTrack(source), channel, model))
    with AudioWriter(target, RATE) as writer:
        while not speaking.done():
            writer.write((await heard.recv()).to_ndarray().astype(np.float32) / 32768)
    share = 100 * heard.decoder.statistics.concealed_share
    print(f"{await speaking} packets, {share:.1f} % concealed")
    await here.close()
    await there.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wav", nargs=2, metavar=("IN", "OUT"), required=True)
    parser.add_argument("--model", default="voice-24khz")
    options = parser.parse_args()
    asyncio.run(call(*options.wav, options.model))
