"""The `.ecdc` file, version 0 without a language model, byte for byte as the original `encodec` has it.

Layout (https://github.com/facebookresearch/encodec, `binary.py` and `compress.py`):

    "ECDC"  u8 version = 0  u32 length of the JSON, big endian
    JSON    {"m": model, "al": samples, "nc": codebooks, "lm": false}; other keys are passed over, and one is ours:
            "ar": the arithmetic that computed the codes, such as "kernel-1"; without it, the published layers' own
    then for each segment:
        f32 scale, big endian          only when the model normalizes
        codes, frame after frame, each code in `bits_per_codebook` bits, least significant bit first;
        the last byte of a segment is filled with zero bits

Neither the number of segments nor the number of frames is stored: both follow from the length and the model
(`EcdcLayout`). The original computes them in floating point, and for some lengths (6720 samples at 24 kHz is
the shortest) expects a frame more than it wrote, so it cannot read its own file. This module computes them in
integers and reads such files.

Nothing in this module touches a file: `EcdcPacker` makes bytes, `EcdcParser` takes them in any pieces.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.errors import FileFormatError, StreamError
from streaming_encodec.wire.bits import pack_bits, unpack_bits
from streaming_encodec.wire.fields import as_whole

Codes = NDArray[np.int64]

_FIXED = struct.Struct("!4sBI")
_SCALE = struct.Struct("!f")
_MAGIC = b"ECDC"
_VERSION = 0
# The original's header is about 60 bytes. A length beyond this comes from a damaged file, not from a writer.
_MAX_JSON_BYTES = 65_536
MAX_HEADER_BYTES = _FIXED.size + _MAX_JSON_BYTES


@dataclass(frozen=True, slots=True)
class EcdcHeader:
    """The header of a file.

    Attributes:
        model: name of the model, as `encodec_24khz`.
        samples: length of the audio in samples at the model's rate.
        num_codebooks: codebooks in every frame.
        arithmetic: what computed the codes; None for the published layers' own, or if the file does not say.
    """

    model: str
    samples: int
    num_codebooks: int
    arithmetic: str | None = None

    def to_bytes(self) -> bytes:
        """The header as the original writes it, with the same keys, order and spaces; then this package's own key."""
        meta: dict[str, object] = {"m": self.model, "al": self.samples, "nc": self.num_codebooks, "lm": False}
        if self.arithmetic is not None:
            meta["ar"] = self.arithmetic
        text = json.dumps(meta).encode("utf-8")
        return _FIXED.pack(_MAGIC, _VERSION, len(text)) + text

    @classmethod
    def parse(cls, data: bytes | bytearray) -> "tuple[EcdcHeader, int] | None":
        """Read a header from the start of `data`.

        Returns:
            The header and the number of bytes it takes, or `None` when `data` ends before the header does.

        Raises:
            FileFormatError: `data` does not begin as a `.ecdc` file that this module reads.
        """
        known = min(len(data), len(_MAGIC))
        if bytes(data[:known]) != _MAGIC[:known]:
            raise FileFormatError("not an .ecdc file: it does not begin with 'ECDC'")
        if len(data) < _FIXED.size:
            return None
        _, version, size = _FIXED.unpack_from(data)
        if version != _VERSION:
            raise FileFormatError(f".ecdc version {version} is not known; this program reads version {_VERSION}")
        if size > _MAX_JSON_BYTES:
            raise FileFormatError(f"damaged .ecdc header: it claims to be {size} bytes long")
        end = _FIXED.size + size
        if len(data) < end:
            return None
        return cls._from_json(bytes(data[_FIXED.size : end])), end

    @classmethod
    def _from_json(cls, text: bytes) -> "EcdcHeader":
        try:
            meta = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"damaged .ecdc header: {error}") from None
        if not isinstance(meta, dict):
            raise FileFormatError("damaged .ecdc header: the JSON is not an object")
        name, samples, books, lm = (meta.get(key) for key in ("m", "al", "nc", "lm"))
        if not isinstance(name, str):
            raise FileFormatError(f"damaged .ecdc header: 'm' must be the name of a model, not {name!r}")
        if (whole_samples := as_whole(samples)) is None or whole_samples < 0:
            raise FileFormatError(f"damaged .ecdc header: 'al' must be a number of samples, not {samples!r}")
        if (whole_books := as_whole(books)) is None or whole_books < 1:
            raise FileFormatError(f"damaged .ecdc header: 'nc' must be a number of codebooks, not {books!r}")
        if lm is not False:
            raise FileFormatError(
                "this .ecdc file was packed with a language model, which only the machine that wrote it can "
                "undo reliably; pack it again without (`encodec` without --lm)"
            )
        arithmetic = meta.get("ar")
        return cls(name, whole_samples, whole_books, arithmetic if isinstance(arithmetic, str) else None)


@dataclass(frozen=True, slots=True)
class EcdcLayout:
    """What the header does not hold and both ends know from the model.

    Attributes:
        hop_length: samples a frame.
        codebook_size: entries of a codebook; codes are below it.
        max_codebooks: codebooks the model has.
        segment_samples: length of a segment, or `None` when the whole file is one.
        stride_samples: distance between the starts of two segments.
        normalize: whether each segment has its scale.
    """

    hop_length: int
    codebook_size: int
    max_codebooks: int
    segment_samples: int | None = None
    stride_samples: int | None = None
    normalize: bool = False

    @property
    def bits_per_codebook(self) -> int:
        return max(1, math.ceil(math.log2(self.codebook_size)))

    def frames_of(self, samples: int) -> int:
        """Frames that this many samples take."""
        return -(-samples // self.hop_length)

    def segments(self, samples: int) -> Iterator[int]:
        """Length in samples of each segment of a file of ``samples`` samples."""
        if self.segment_samples is None or self.stride_samples is None:
            if samples:
                yield samples
            return
        for offset in range(0, samples, self.stride_samples):
            yield min(self.segment_samples, samples - offset)

    def body_bytes(self, samples: int, num_codebooks: int) -> int:
        """Size of all that follows the header of a whole file."""
        frame_bits = num_codebooks * self.bits_per_codebook
        scale = _SCALE.size if self.normalize else 0
        return sum(scale + -(-self.frames_of(length) * frame_bits // 8) for length in self.segments(samples))


class EcdcPacker:
    """Codes in, bytes out. The header is not part of it: it holds the length, which is known only at the end.

    Call `begin` (with the scale, where the model normalizes), `push` any number of times, `end`; and so on
    for each segment. A model without segments has one.
    """

    def __init__(self, num_codebooks: int, layout: EcdcLayout) -> None:
        """
        Raises:
            StreamError: the model has fewer codebooks.
        """
        if not 1 <= num_codebooks <= layout.max_codebooks:
            raise StreamError(f"the model has 1 to {layout.max_codebooks} codebooks, not {num_codebooks}")
        self._layout = layout
        self._num_codebooks = num_codebooks
        # Frames after which the bits fill whole bytes; a multiple of them goes out at once, the rest waits.
        frame_bits = num_codebooks * layout.bits_per_codebook
        self._align_frames = 8 // math.gcd(8, frame_bits)
        self._held = np.empty((num_codebooks, 0), np.int64)
        self._open = False

    def begin(self, scale: float | None = None) -> bytes:
        """Open a segment. `scale` is given exactly when the model normalizes."""
        if self._open:
            raise StreamError("a segment is open already; call end() first")
        if (scale is not None) != self._layout.normalize:
            raise StreamError("a model that normalizes has a scale with each segment, any other has none")
        self._open = True
        return b"" if scale is None else _SCALE.pack(scale)

    def push(self, codes: NDArray[np.integer]) -> bytes:
        """Append frames.

        Args:
            codes: [K, f], f >= 0, each in 0 … codebook_size - 1.

        Returns:
            The bytes that are complete; up to 7 frames are held back until more come or `end`.

        Raises:
            StreamError: wrong shape, code out of range, or no open segment.
        """
        if not self._open:
            raise StreamError("no segment is open; call begin() first")
        if codes.ndim != 2 or codes.shape[0] != self._num_codebooks:
            raise StreamError(f"expected codes [{self._num_codebooks}, frames], got {list(codes.shape)}")
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < self._layout.codebook_size:
            raise StreamError(f"codes must lie in 0 … {self._layout.codebook_size - 1}")
        held = np.concatenate([self._held, codes], axis=1)
        ready = held.shape[1] - held.shape[1] % self._align_frames
        self._held = held[:, ready:]
        return self._pack(held[:, :ready])

    def end(self) -> bytes:
        """Close the segment; its last byte is filled up with zero bits."""
        if not self._open:
            raise StreamError("no segment is open; call begin() first")
        rest = self._pack(self._held)
        self._held = self._held[:, :0]
        self._open = False
        return rest

    def _pack(self, codes: Codes) -> bytes:
        return pack_bits(codes.T.reshape(-1), self._layout.bits_per_codebook)


@dataclass(frozen=True, slots=True)
class EcdcBlock:
    """Frames from a file.

    Attributes:
        codes: [K, f] int64.
        scale: the segment's scale, `None` when the model does not normalize.
    """

    codes: Codes
    scale: float | None


class EcdcParser:
    """Bytes in, in any pieces; header and codes out, as soon as they are complete.

    With a segmented layout each block is one whole segment; otherwise it holds the whole frames that are
    available. Memory is bounded by the piece fed plus one segment.
    """

    def __init__(self, layout_of: Callable[[EcdcHeader], EcdcLayout]) -> None:
        """
        Args:
            layout_of: called once with the header; finds the model and states its layout. It may raise.
        """
        self.header: EcdcHeader | None = None
        self._layout_of = layout_of
        self._layout: EcdcLayout | None = None
        self._buffer = bytearray()
        self._segments: Iterator[int] = iter(())
        self._frames_left: int | None = None  # of the segment being read; None between segments
        self._done = False

    def feed(self, data: bytes) -> list[EcdcBlock]:
        """Take the next bytes of the file.

        Raises:
            FileFormatError: the bytes are not a `.ecdc` file that fits the model.
        """
        self._buffer += data
        if self._layout is None:
            parsed = EcdcHeader.parse(self._buffer)
            if parsed is None:
                return []
            self._start(*parsed)
        blocks = []
        while (block := self._next_block()) is not None:
            blocks.append(block)
        if self._done and self._buffer:
            raise FileFormatError(f"{len(self._buffer)} bytes too many at the end of the .ecdc file, or a wrong length")
        return blocks

    def finish(self) -> None:
        """Declare the end of the input.

        Raises:
            FileFormatError: the file ends too soon.
        """
        if self._layout is None:
            raise FileFormatError("the .ecdc file ends within its header; it is empty or was cut off")
        if not self._done:
            raise FileFormatError("the .ecdc file ends before its last frame; it was cut off")

    def _start(self, header: EcdcHeader, size: int) -> None:
        layout = self._layout_of(header)
        if header.num_codebooks > layout.max_codebooks:
            raise FileFormatError(
                f"the .ecdc file has {header.num_codebooks} codebooks, the model {layout.max_codebooks}: "
                "damaged, or another model"
            )
        self.header, self._layout = header, layout
        self._segments = layout.segments(header.samples)
        self._next_segment()
        del self._buffer[:size]

    def _next_segment(self) -> None:
        assert self._layout is not None
        samples = next(self._segments, None)
        if samples is None:
            self._done = True
        else:
            self._frames_left = self._layout.frames_of(samples)

    def _next_block(self) -> EcdcBlock | None:
        if self._done or self._layout is None or self.header is None or self._frames_left is None:
            return None
        layout, books = self._layout, self.header.num_codebooks
        scale_bytes = _SCALE.size if layout.normalize else 0
        frame_bits = books * layout.bits_per_codebook
        rest_bytes = -(-self._frames_left * frame_bits // 8)
        frames, size = self._frames_left, scale_bytes + rest_bytes
        if len(self._buffer) < size:
            if layout.segment_samples is not None or layout.normalize:
                return None
            # One segment only: return what is available, by frames that fill whole bytes.
            align = 8 // math.gcd(8, frame_bits)
            frames = len(self._buffer) * 8 // frame_bits // align * align
            size = frames * frame_bits // 8
            if frames == 0:
                return None
        scale = self._scale() if layout.normalize else None
        flat = unpack_bits(self._buffer[scale_bytes:size], frames * books, layout.bits_per_codebook)
        if flat.size and int(flat.max()) >= layout.codebook_size:
            raise FileFormatError(f"damaged .ecdc file: a code is above {layout.codebook_size - 1}")
        del self._buffer[:size]
        self._frames_left -= frames
        if self._frames_left == 0:
            self._next_segment()
        return EcdcBlock(flat.reshape(frames, books).T, scale)

    def _scale(self) -> float:
        scale: float = _SCALE.unpack_from(self._buffer)[0]
        if not math.isfinite(scale) or scale <= 0:
            raise FileFormatError(f"damaged .ecdc file: a segment's scale is {scale}")
        return scale
