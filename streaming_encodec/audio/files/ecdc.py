"""`.ecdc` files on disk, around the byte-level work of `streaming_encodec.wire.ecdc`."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.audio.files.atomic import AtomicPath, not_written
from streaming_encodec.audio.files.source import ByteSource, unreadable
from streaming_encodec.audio.files.standard import is_standard, standard_output
from streaming_encodec.errors import FileFormatError, StreamError
from streaming_encodec.wire.ecdc import (
    MAX_HEADER_BYTES,
    EcdcBlock,
    EcdcHeader,
    EcdcLayout,
    EcdcPacker,
    EcdcParser,
)

_READ_BYTES = 4096
# Codes of about 20 minutes at 6 kbps stay in memory; more go to a temporary file beside the output.
_SPOOL_BYTES = 1 << 20


class EcdcWriter:
    """A `.ecdc` file written while the sound is still coming.

    The format stores the length before the codes, so the codes wait in a spool until `close` passes the length;
    then the file is written and renamed. An interrupted encoding is closed with the samples so far and is a valid
    file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: str,
        num_codebooks: int,
        layout: EcdcLayout,
        arithmetic: str | None = None,
    ) -> None:
        self._model, self._arithmetic = model, arithmetic
        self._num_codebooks = num_codebooks
        self._layout = layout
        self._packer = EcdcPacker(num_codebooks, layout)
        self._frames = 0
        self._path = Path(path)
        # To standard output nothing can be written before the length is known either.
        self._target = None if is_standard(path) else AtomicPath(path)
        folder = None if self._target is None else str(self._target.path.parent)
        self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=folder)  # noqa: SIM115
        if layout.segment_samples is None:
            self._packer.begin()

    def push(self, codes: NDArray[np.integer]) -> None:
        """Append frames [K, f] of a model without segments."""
        self._keep(self._packer.push(codes))
        self._frames += codes.shape[1]

    def push_segment(self, codes: NDArray[np.integer], scale: float | None) -> None:
        """Append one whole segment [K, f] with its scale."""
        self._keep(self._packer.begin(scale) + self._packer.push(codes) + self._packer.end())
        self._frames += codes.shape[1]

    def close(self, samples: int) -> int:
        """Complete the file and rename it.

        Args:
            samples: length of the sound that the frames hold, at the model's rate.

        Returns:
            Size of the file in bytes.

        Raises:
            StreamError: the frames pushed are not those of so many samples.
            FileFormatError: the disk refuses, for example when full; an old file is unchanged.
        """
        wanted = sum(self._layout.frames_of(n) for n in self._layout.segments(samples))
        if wanted != self._frames:
            raise StreamError(f"{samples} samples are {wanted} frames, but {self._frames} were written")
        if self._layout.segment_samples is None:
            self._keep(self._packer.end())
        try:
            size = self._spool.tell()
            self._spool.seek(0)
            header = EcdcHeader(self._model, samples, self._num_codebooks, self._arithmetic).to_bytes()
            if self._target is None:
                self._copy(header, standard_output())
            else:
                with self._target.temporary.open("wb") as out:
                    self._copy(header, out)
            self._spool.close()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise not_written(self._path, error) from error
        if self._target is not None:
            self._target.commit()
        return len(header) + size

    def _copy(self, header: bytes, out: BinaryIO) -> None:
        out.write(header)
        shutil.copyfileobj(self._spool, out)
        out.flush()

    def discard(self) -> None:
        """Delete the temporary files; does nothing after `close`."""
        with contextlib.suppress(OSError):  # of a full disk, reported already
            self._spool.close()
        if self._target is not None:
            self._target.discard()

    def _keep(self, data: bytes) -> None:
        try:
            self._spool.write(data)
        except OSError as error:
            raise not_written(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class EcdcReader:
    """A `.ecdc` file read once from its beginning to its end, so that it may be a pipe; `-` is standard input.

    Attributes:
        header: the file's header.
    """

    def __init__(self, path: str | os.PathLike[str] | ByteSource) -> None:
        """
        Args:
            path: the file, or an open one, which is closed with the reader.

        Raises:
            FileFormatError: missing or damaged.
        """
        self._source = path if isinstance(path, ByteSource) else ByteSource(path)
        self._path = self._source.path
        try:
            self.header = self._read_header()
        except BaseException:
            self._source.close()
            raise

    def blocks(self, layout: EcdcLayout) -> Iterator[EcdcBlock]:
        """The codes, in constant memory.

        Raises:
            FileFormatError: damaged, cut off, or not of this layout.
        """
        parser = EcdcParser(lambda _: layout)
        try:
            yield from parser.feed(self._taken)
            while data := self._source.file.read(_READ_BYTES):
                yield from parser.feed(data)
            parser.finish()
        except OSError as error:
            raise unreadable(self._path, error) from error
        except FileFormatError as error:
            raise FileFormatError(f"{self._path}: {error}") from None

    def size(self) -> int:
        """Read to the end, and return the file's size in bytes."""
        size = len(self._taken)
        while data := self._source.file.read(1 << 20):
            size += len(data)
        return size

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_header(self) -> EcdcHeader:
        self._taken = b""
        try:
            while len(self._taken) < MAX_HEADER_BYTES and (data := self._source.file.read(_READ_BYTES)):
                self._taken += data
                parsed = EcdcHeader.parse(self._taken)
                if parsed is not None:
                    return parsed[0]
        except OSError as error:
            raise unreadable(self._path, error) from error
        except FileFormatError as error:
            raise FileFormatError(f"{self._path}: {error}") from None
        raise FileFormatError(f"{self._path}: the .ecdc file ends within its header; it is empty or was cut off")


def is_whole_ecdc(path: str | os.PathLike[str], layout: EcdcLayout) -> bool:
    """Whether a `.ecdc` file exists and is as long as its header says, so not cut off by a crash."""
    try:
        with Path(path).open("rb") as file:
            parsed = EcdcHeader.parse(file.read(MAX_HEADER_BYTES))
            size = file.seek(0, os.SEEK_END)
    except (OSError, FileFormatError):
        return False
    if parsed is None:
        return False
    header, begin = parsed
    # Segments are summed one by one: a damaged header could name far too many.
    if header.num_codebooks > layout.max_codebooks or header.samples > 8 * size * layout.hop_length:
        return False
    return size == begin + layout.body_bytes(header.samples, header.num_codebooks)
