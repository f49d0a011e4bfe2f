"""A serializer for Pipecat's WebSocket transports: voice as codes, 6 kbps in place of 256.

    pip install pipecat-ai
    python demos/pipecat_serializer.py --wav in.wav out.wav

In a bot: `WebsocketServerParams(serializer=EncodecSerializer(model), audio_in_enabled=True, …)`, and the same class at
the other end. Make one for each connection: it holds the streams of both directions.
"""

import argparse
import asyncio

import numpy as np
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.serializers.base_serializer import FrameSerializer

from streaming_encodec import (
    AudioReader,
    AudioWriter,
    PacketError,
    VoiceDecoder,
    VoiceEncoder,
    parse_packet,
)


class EncodecSerializer(FrameSerializer):
    """Audio frames to messages and back; other frames are not sent.

    A message holds whole packets, each after its length in two bytes: a long audio frame makes several.
    """

    def __init__(self, model: str, rate: int = 16_000, bandwidth: float = 6.0) -> None:
        super().__init__()
        self._rate = rate
        self._encoder = VoiceEncoder(rate, model=model, bandwidth=bandwidth)
        # Pulled by whole frames below, so the output need not start late.
        whole = 3000 * self._encoder.stream_format.frame_seconds
        self._decoder = VoiceDecoder(rate, whole, model=model, output="bytes")
        self._frames = self._given = 0

    async def serialize(self, frame: Frame) -> str | bytes | None:
        """What the bot says, as a message; None where no frame of the codec is complete yet."""
        if not isinstance(frame, OutputAudioRawFrame):
            return None
        if (frame.sample_rate, frame.num_channels) != (self._rate, 1):
            raise ValueError(f"set audio_out_sample_rate={self._rate} and one channel in the transport")
        packets = await asyncio.to_thread(self._encoder.encode, frame.audio)
        return b"".join(len(packet).to_bytes(2, "little") + packet for packet in packets) or None

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """A message that arrived, as sound for the pipeline; None for a message of another kind."""
        if isinstance(data, str):
            return None
        try:
            while data:
                size = 2 + int.from_bytes(data[:2], "little")
                packet, data = data[2:size], data[size:]
                self._frames += parse_packet(packet).num_frames
                self._decoder.push(packet)
        except PacketError:
            return None
        stream = self._decoder.stream_format
        due = self._frames * stream.frame_samples * self._rate // stream.sample_rate
        sound = await asyncio.to_thread(self._decoder.pull, due - self._given)
        self._given = due
        return InputAudioRawFrame(audio=sound, sample_rate=self._rate, num_channels=1)


async def through(source: str, target: str, model: str, rate: int = 16_000) -> None:
    """What two transports do: one end's output is the other end's input."""
    bot, person = EncodecSerializer(model, rate), EncodecSerializer(model, rate)
    sent = 0
    with AudioReader(source, rate, channels=1) as reader, AudioWriter(target, rate) as writer:
        for block in reader.blocks(rate // 25):  # 40 ms, as Pipecat's transports speak
            # Clipped: a resampled file goes past full scale now and then, and would come out on the other side.
            audio = np.clip(block[0] * 32767, -32768, 32767).astype("<i2").tobytes()
            message = await bot.serialize(OutputAudioRawFrame(audio, rate, 1))
            if message is None:
                continue
            sent += len(message)
            frame = await person.deserialize(message)
            if isinstance(frame, InputAudioRawFrame):
                writer.write(np.frombuffer(frame.audio, "<i2")[None].astype(np.float32) / 32768)
        print(f"{sent} bytes for {writer.samples / rate:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wav", nargs=2, metavar=("IN", "OUT"), required=True)
    parser.add_argument("--model", default="voice-24khz")
    options = parser.parse_args()
    asyncio.run(through(*options.wav, options.model))
