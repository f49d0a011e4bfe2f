"""The weights that training starts from."""

from __future__ import annotations

import torch

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.training.config import VOICE_24KHZ
from streaming_encodec.training.initial import initialise


def test_sound_keeps_its_level_through_the_untrained_codec() -> None:
    torch.manual_seed(0)
    model = EncodecModel(VOICE_24KHZ)
    initialise(model)
    x = 0.1 * torch.randn(1, 1, 24000)
    with torch.no_grad():
        latent = model.encoder(x)
        y = model.decoder(latent)
    assert 0.05 < float(latent.std()) < 1.0
    assert 0.02 < float(y.std()) < 0.5
    # The latent tells two sounds apart: it is not a constant from the biases.
    with torch.no_grad():
        other = model.encoder(torch.roll(x, 777, -1))
    assert float((latent - other).std()) > 0.5 * float(latent.std())
