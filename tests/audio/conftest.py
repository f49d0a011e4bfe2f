"""What the tests of sound cards share."""

import pytest
from device_kit import FakeBackend


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()
