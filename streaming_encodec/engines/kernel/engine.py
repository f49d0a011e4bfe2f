"""The engine ``kernel``: all of a stream in C, in numpy. CPU and float32. Imports no torch."""

from __future__ import annotations

from functools import cached_property

from streaming_encodec.engines.kernel.codec import KernelCodec, KernelQuantizer, KernelStepper
from streaming_encodec.engines.kernel.self_test import load_library
from streaming_encodec.model.architecture import make_parts
from streaming_encodec.model.find import CodecModel
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.stepping.arrays import NumpyArrays
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.stepping.stepper import Quantizer, Stepper


class KernelEngine(Engine):
    """One ``KernelCodec`` behind a stepper for each direction and a quantiser; ``half`` as in its ``from_weights``.

    Raises:
        StreamError: the model is not float32 on the CPU. MissingExtraError: there is no library for this machine.
    """

    def __init__(self, name: str, model: CodecModel, half: bool = False) -> None:
        load_library()
        if not isinstance(model, ModelFolder):
            from streaming_encodec.model.plain import check_plain

            check_plain(model, "the kernel computes")
        self._half = half
        super().__init__(name, model, NumpyArrays())

    def __reduce__(self) -> tuple[type[KernelEngine], tuple[str, CodecModel, bool]]:
        # Pickled and copied as its name and its model; the rest is made again where it is used.
        return KernelEngine, (self.name, self.model, self._half)

    @cached_property
    def codec(self) -> KernelCodec:
        """The model in the kernel's layout: a copy of its weights."""
        if isinstance(self.model, ModelFolder):
            with self.model.weights() as weights:
                return KernelCodec.from_weights(weights.config, weights, load_library(), self._half)
        from streaming_encodec.model.plain import numpy_weights

        return KernelCodec.from_weights(self.model.config, numpy_weights(self.model), load_library(), self._half)

    @property
    def arithmetic(self) -> str:
        """Names the bits that it gives, the same on every machine."""
        return self.codec.arithmetic

    def _make_quantizer(self) -> Quantizer:
        return KernelQuantizer(self.codec)

    def _make_encoder(self) -> Stepper:
        return KernelStepper(self.codec.encoder, make_parts(self.config)[0])

    def _make_decoder(self) -> Stepper:
        return KernelStepper(self.codec.decoder, make_parts(self.config)[1])
