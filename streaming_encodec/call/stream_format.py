"""What a model's codes are, as the two ends of a call tell each other."""

from __future__ import annotations

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.fingerprint import fingerprint
from streaming_encodec.model.plain import plain_model
from streaming_encodec.wire.hello import StreamFormat


def stream_format(model: EncodecModel) -> StreamFormat:
    """The format of a model's stream, its fingerprint included (0.1 s for the 24 kHz model: keep it)."""
    model = plain_model(model)
    config = model.config
    return StreamFormat(
        model=fingerprint(model),
        sample_rate=config.sampling_rate,
        channels=config.audio_channels,
        frame_samples=config.hop_length,
        max_codebooks=config.num_quantizers,
        codebook_size=config.codebook_size,
    )
