from __future__ import annotations

from collections.abc import Iterator

import pytest
from ci_kit import cannot

from streaming_encodec.bench import sound_card


@pytest.fixture(scope="module")
def card() -> Iterator[None]:
    """JACK's dummy card, while a module's tests run."""
    missing = sound_card.what_is_missing()
    if missing is not None:
        cannot(missing)
    with sound_card.dummy_card():
        yield
