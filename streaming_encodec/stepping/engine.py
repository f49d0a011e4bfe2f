"""What an engine is to a stream: a stepper for each direction, and a quantiser.

The façades take an engine by name. ``eager`` is the layers themselves; the others live in ``engines/`` and
are imported when one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.fingerprint import fingerprint
from streaming_encodec.model.plain import plain_model
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.stepping.half import ReferenceStepper, Stepper

_MADE = ("quantizer", "encoder", "decoder")


class Quantizer(Protocol):
    """Latents to codes and back, as ``ResidualVectorQuantizer`` does it."""

    def encode(self, latent: Tensor, num_codebooks: int) -> Tensor:
        """``latent`` [B, D, F] → codes [B, num_codebooks, F], int64."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, K, F] → latent [B, D, F]."""
        ...


class Engine:
    """A way to run one model. It holds no stream: any number of them, and of threads, may share it.

    Its weights are copies, made when a direction is first used: make a new engine after changing the model.
    """

    has_phases = False
    """Its steppers are ``PhasedStepper``s: a stream's start, the silence before it and its end are theirs too."""

    def __init__(
        self,
        name: str,
        model: EncodecModel,
        make_quantizer: Callable[[EncodecModel], Quantizer],
        make_stepper: Callable[[StreamableStack], Stepper],
    ) -> None:
        self.name = name
        self.model = model
        self._make_quantizer, self._make_stepper = make_quantizer, make_stepper

    def __getstate__(self) -> dict[str, Any]:
        # Pickled and copied as its name and its model: what it computes with is made anew where it is used.
        return {name: value for name, value in self.__dict__.items() if name not in _MADE}

    @property
    def arithmetic(self) -> str | None:
        """Which arithmetic makes its codes, for files to say; None for the layers' own."""
        return None if self.name == "eager" else self.name

    @cached_property
    def fingerprint(self) -> str:
        """Of its model: what states of streams are known by. Read from all weights, so kept."""
        return fingerprint(self.model)

    @cached_property
    def quantizer(self) -> Quantizer:
        """Between latents and codes."""
        return self._make_quantizer(self.model)

    @cached_property
    def encoder(self) -> Stepper:
        """From samples to latents."""
        return self._make_stepper(self.model.encoder)

    @cached_property
    def decoder(self) -> Stepper:
        """From latents to samples."""
        return self._make_stepper(self.model.decoder)


def _own_quantizer(model: EncodecModel) -> Quantizer:
    return model.quantizer


EngineOrName: TypeAlias = str | Engine


def find_engine(engine: EngineOrName, model: EncodecModel) -> Engine:
    """The engine of this name for this model; an ``Engine`` is returned as it is.

    Raises:
        StreamError: no such engine, an engine of another model, or one that cannot run this model.
        MissingExtraError: the engine needs a package that is not installed.
    """
    model = plain_model(model)
    if isinstance(engine, Engine):
        if engine.model is not model:
            raise StreamError("the engine was made for another model: make one with make_engine(name, model)")
        return engine
    if engine == "eager":
        return Engine("eager", model, _own_quantizer, ReferenceStepper)
    # The one look upwards, and only when asked for by name.
    from streaming_encodec.engines.registry import make_engine

    return make_engine(engine, model)
