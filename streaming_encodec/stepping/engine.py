"""What an engine is to a stream: a stepper for each direction, a quantiser, and the arrays they take."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeAlias

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.find import CodecModel, fingerprint
from streaming_encodec.stepping.arrays import Arrays, NumpyArrays, as_numpy
from streaming_encodec.stepping.stepper import Quantizer, Stepper
from streaming_encodec.types import Floats, IntArray

_MADE = ("quantizer", "encoder", "decoder")


class Engine:
    """A way to run one model. It holds no stream: any number of them, and of threads, may share it.

    Its weights are copies, made when a direction is first used: make a new engine after changing the model.
    Engines differ in the methods that begin with ``_make``.
    """

    def __init__(self, name: str, model: CodecModel, arrays: Arrays) -> None:
        self.name, self.model, self.arrays = name, model, arrays
        self.config: EncodecConfig = model.config

    def __getstate__(self) -> dict[str, Any]:
        # Pickled and copied as its name and its model; the rest is made again where it is used.
        return {name: value for name, value in self.__dict__.items() if name not in _MADE}

    @property
    def arithmetic(self) -> str | None:
        """Which arithmetic makes its codes, for files to say; None for the layers' own."""
        return self.name

    @property
    def is_numpy(self) -> bool:
        """Whether it computes in numpy: then one stream alone takes less around its steps than a batch does."""
        return isinstance(self.arrays, NumpyArrays)

    @property
    def reference(self) -> Engine:
        """The engine that computes the silence before streams: itself, if its bits differ from other engines'."""
        return self

    @property
    def weights_now(self) -> tuple[object, tuple[object, ...]]:
        """Whose weights the silence is of, and a value that changes with them."""
        return self, ()

    @cached_property
    def fingerprint(self) -> str:
        """The model's fingerprint, which identifies states of streams. Cached, since it reads all weights."""
        return fingerprint(self.model)

    @cached_property
    def quantizer(self) -> Quantizer:
        """Between latents and codes."""
        return self._make_quantizer()

    @cached_property
    def encoder(self) -> Stepper:
        """From samples to latents."""
        return self._make_encoder()

    @cached_property
    def decoder(self) -> Stepper:
        """From latents to samples."""
        return self._make_decoder()

    def latent(self, codes: IntArray) -> Floats:
        """The latent frames [B, D, F], in numpy, that codes [B, K, F] in range stand for."""
        latent: Floats = as_numpy(self.quantizer.decode(self.arrays.codes(codes)))
        return latent

    def _make_quantizer(self) -> Quantizer:
        raise NotImplementedError

    def _make_encoder(self) -> Stepper:
        raise NotImplementedError

    def _make_decoder(self) -> Stepper:
        raise NotImplementedError


EngineOrName: TypeAlias = str | Engine
