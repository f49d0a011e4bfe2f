"""The shortest live loop: microphone, codec, speaker. Wear headphones, or it howls.

    python demos/mic_to_speaker.py
    python demos/mic_to_speaker.py --wav in.wav out.wav     (no devices needed)

No network and no jitter buffer here: `streaming-encodec demo` has them.
"""

import argparse
import time

import numpy as np

from streaming_encodec import AudioReader, AudioWriter, SoundCard, StreamingDecoder, StreamingEncoder


def through_file(encoder: StreamingEncoder, decoder: StreamingDecoder, source: str, target: str) -> None:
    """A file, block by block, as it would come from a microphone."""
    rate = encoder.model.config.sampling_rate
    with AudioReader(source, rate, channels=1) as reader, AudioWriter(target, rate) as writer:
        for block in reader:
            writer.write(decoder.push(encoder.push(block)))


def through_devices(encoder: StreamingEncoder, decoder: StreamingDecoder) -> None:
    """Until Ctrl-C. The sound card's callbacks only copy; the codec runs in this thread."""
    card = SoundCard(encoder.model.config.sampling_rate)
    print("speak;", ", ".join(f"{kind}: {name}" for kind, name in card.names.items()))
    # Some sound ahead, so that a late turn of this loop is not heard.
    card.write(np.zeros((1, round(card.sample_rate * 0.03)), np.float32))
    try:
        while True:
            card.write(decoder.push(encoder.push(card.read())))
            card.maintain()  # opens a device again that was unplugged
            time.sleep(0.003)
    except KeyboardInterrupt:
        print(f"\n{card.counts.underruns} underruns, {card.counts.overruns} overruns")
    finally:
        card.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wav", nargs=2, metavar=("IN", "OUT"))
    parser.add_argument("--model", default="voice-24khz")
    parser.add_argument("--bandwidth", type=float, default=6.0, help="kbps")
    options = parser.parse_args()

    encoder = StreamingEncoder(options.model, options.bandwidth)
    decoder = StreamingDecoder(options.model)
    encoder.warm_up()
    decoder.warm_up(encoder.num_codebooks)
    if options.wav:
        through_file(encoder, decoder, *options.wav)
    else:
        through_devices(encoder, decoder)


if __name__ == "__main__":
    main()
