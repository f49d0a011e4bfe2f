"""The codec inside a telephone: 20 ms of int16 in, a packet out, and back, with packets lost on the way.

    python demos/voip_embed.py --wav in.wav out.wav --rate 16000 --loss 5

The loop in `main` is what a SIP or RTP stack does with any codec. Its two ends would be two programs.
"""

import argparse
import random

import numpy as np
import soundfile
import soxr

from streaming_encodec import VoiceDecoder, VoiceEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wav", nargs=2, metavar=("IN", "OUT"), required=True)
    parser.add_argument("--rate", type=int, default=16_000, help="of the telephone: 8000, 16000, 48000 …")
    parser.add_argument("--loss", type=float, default=0.0, help="per cent of packets")
    parser.add_argument("--model", default="voice-24khz")
    options = parser.parse_args()

    encoder = VoiceEncoder(options.rate, frame_ms=20, model=options.model)
    decoder = VoiceDecoder(options.rate, frame_ms=20, model=options.model, output="bytes")

    sound, rate = soundfile.read(options.wav[0], dtype="float32", always_2d=True)
    sound = soxr.resample(sound.mean(axis=1), rate, options.rate)
    # Clipped: a resampled file goes past full scale now and then, and would come out on the other side.
    said = np.clip(sound * 32767, -32768, 32767).astype("<i2").tobytes()

    chance, frame_bytes = random.Random(1), 2 * encoder.frame_samples
    packets = payload = 0
    with soundfile.SoundFile(options.wav[1], "w", options.rate, 1, subtype="PCM_16") as file:
        for at in range(0, len(said) - frame_bytes + 1, frame_bytes):
            lost = False
            for packet in encoder.encode(said[at : at + frame_bytes]):  # one each 20 ms
                packets, payload = packets + 1, payload + len(packet)
                lost = 100 * chance.random() < options.loss
                if not lost:
                    decoder.push(packet)
            count = decoder.frame_samples
            file.buffer_write(decoder.decode_lost(count) if lost else decoder.pull(count), "int16")

    seconds = len(said) / 2 / options.rate
    made_up = decoder.statistics.concealed_samples / decoder.stream_format.sample_rate
    print(f"{packets} packets, {8 * payload / max(seconds, 1e-9) / 1000:.1f} kbps with their headers")
    print(f"{1000 * made_up:.0f} ms made up; the codec's delay is {encoder.delay_ms + decoder.delay_ms:.1f} ms")


if __name__ == "__main__":
    main()
