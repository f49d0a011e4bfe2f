"""A decoder that takes frames which are already here in one step, and gives their sound one by one.

After a pause, most of a step's time goes into loading code and weights into the caches, so two frames in one step take
little longer than one. Which frame is played next is still decided when it is due: if it is another than the one
decoded ahead, the stream goes back to where it was (law 4: its state is a value).
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from streaming_encodec.stepping.half import HalfState
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.types import IntArray

FloatArray = npt.NDArray[np.float32]


class AheadDecoder:
    """One speaker's stream. Sound and state are as if every frame had been decoded when it was asked for."""

    def __init__(self, stream: StreamingDecoder) -> None:
        self._stream = stream
        self._frame = stream.config.hop_length
        self._ahead: deque[tuple[IntArray, FloatArray]] = deque()  # decoded and not yet asked for
        self._given: list[IntArray] = []  # of the same step, asked for since
        self._before: HalfState | None = None  # where that step began

    def decode(self, codes: IntArray, following: tuple[IntArray, ...] = ()) -> FloatArray:
        """The sound [C, n] of a frame ``codes`` [K, 1]; ``following`` are likely to be asked for next.

        They are recognised later by identity.
        """
        if self._ahead and self._ahead[0][0] is codes:
            self._given.append(codes)
            return self._ahead.popleft()[1]
        self._return()
        if not following:
            return self._sound(self._stream.push(codes))
        self._before, self._given = self._stream.mark(), [codes]
        whole = self._sound(self._stream.push_together(np.concatenate((codes, *following), axis=1)))
        # Counted from the end: a stream with a start delay gives less for its first frames.
        ends = [max(0, whole.shape[1] - self._frame * left) for left in range(len(following), -1, -1)]
        for later, (begin, end) in zip(following, pairwise(ends), strict=True):
            self._ahead.append((later, whole[:, begin:end]))
        return whole[:, : ends[0]]

    def decode_latent(self, latent: FloatArray, num_codebooks: int) -> FloatArray:
        """The sound of a latent frame [1, D, 1] in place of codes."""
        self._return()
        return self._sound(self._stream.push_latent(latent, num_codebooks)[0])

    def reset(self) -> None:
        """Reset the stream."""
        self._ahead.clear()
        self._stream.reset()

    def _return(self) -> None:
        """Go back to the state after the frames that were asked for."""
        if self._ahead and self._before is not None:
            self._ahead.clear()
            self._stream.rewind(self._before)
            for codes in self._given:
                self._stream.push(codes)
        self._before = None  # an engine may write over a state that nobody holds

    @staticmethod
    def _sound(pcm: npt.NDArray[np.floating]) -> FloatArray:
        return pcm.astype(np.float32, copy=False)
