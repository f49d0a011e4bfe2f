"""What a model's codes are, as the two ends of a call tell each other."""

from __future__ import annotations

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.wire.hello import StreamFormat, model_fingerprint


def stream_format(model: EncodecModel) -> StreamFormat:
    """The format of a model's stream, its fingerprint included (0.2 s for the 24 kHz model: keep it)."""
    config = model.config
    weights = {name: weight.detach().float().cpu().numpy() for name, weight in model.state_dict().items()}
    return StreamFormat(
        model=model_fingerprint(config.to_dict(), weights),
        sample_rate=config.sampling_rate,
        channels=config.audio_channels,
        frame_samples=config.hop_length,
        max_codebooks=config.num_quantizers,
        codebook_size=config.codebook_size,
    )
