"""EnCodec codes from a generator, as Bark, VALL-E or MusicGen emit them, played as they arrive.

    python demos/tokens_to_speech.py --model facebook/encodec_24khz
    python demos/tokens_to_speech.py --wav in.wav out.wav

A language model takes the place of `tokens_of`: it yields the codes of a frame, [K, 1], whenever it has made one.
`tokens_to_speech` gives 13 ms of sound for each at once, with no clicks between them, so speech begins with the first
frame and not after the last. Here the codes are those of a sound file.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np

from streaming_encodec import AudioReader, AudioWriter, SoundCard, StreamingEncoder, bundled_clip, tokens_to_speech

AHEAD_S = 0.2  # a language model makes codes unevenly: sound in stock hides its pauses


def tokens_of(encoder: StreamingEncoder, path: str) -> Iterator[np.ndarray]:
    """Frames of codes [K, 1], one after the other: put your model here."""
    with AudioReader(path, encoder.model.config.sampling_rate, channels=1) as reader:
        for block in reader:
            yield from encoder.push(block).T[:, :, None]  # codes [K, F], as F times [K, 1]
    yield from encoder.flush().T[:, :, None]


def play(speech: Iterator[np.ndarray], rate: int) -> None:
    """Through the speaker: ask for more while less than AHEAD_S waits for it."""
    card = SoundCard(rate, use_input=False)
    try:
        for sound in speech:
            card.write(sound)
            while (card.queued_s or 0.0) > AHEAD_S:
                time.sleep(0.005)
        while card.queued_s:
            time.sleep(0.01)
    finally:
        card.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wav", nargs=2, metavar=("IN", "OUT"))
    parser.add_argument("--model", default="voice-24khz")
    parser.add_argument("--bandwidth", type=float, default=6.0, help="kbps: Bark speaks 8 codebooks, 6 kbps")
    options = parser.parse_args()

    encoder = StreamingEncoder(options.model, options.bandwidth)
    rate = encoder.model.config.sampling_rate
    speech = tokens_to_speech(tokens_of(encoder, options.wav[0] if options.wav else str(bundled_clip())), options.model)
    if not options.wav:
        play(speech, rate)
        return
    frames, begin, first_ms = 0, time.perf_counter(), 0.0
    with AudioWriter(options.wav[1], rate) as writer:
        for sound in speech:
            first_ms = first_ms or 1000 * (time.perf_counter() - begin)
            writer.write(sound)
            frames += sound.shape[1] // encoder.model.config.hop_length
    print(f"{frames} frames; the first sound after {first_ms:.1f} ms, those of the first codes among them")


if __name__ == "__main__":
    main()
