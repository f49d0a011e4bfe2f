"""A random model of the 24 kHz shape, small enough for tests."""

import pytest
import torch

from streaming_encodec import EncodecConfig, EncodecModel


@pytest.fixture(scope="session")
def model() -> EncodecModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return EncodecModel(
            EncodecConfig(num_filters=4, hidden_size=16, num_lstm_layers=1, target_bandwidths=(1.5, 3.0, 6.0))
        )
