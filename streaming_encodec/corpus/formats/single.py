"""Formats with files of their own for each recording: `ecdc` and `npy`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.audio.files.atomic import AtomicPath, not_written
from streaming_encodec.audio.files.ecdc import EcdcReader, EcdcWriter, is_whole_ecdc
from streaming_encodec.audio.files.targets import check_target
from streaming_encodec.corpus.dataset import Dataset
from streaming_encodec.corpus.encoding import Encoding
from streaming_encodec.corpus.formats.base import Failed, Line, one_line, stops_all, with_fields
from streaming_encodec.corpus.recordings import Recording
from streaming_encodec.errors import FileFormatError, StreamingEncodecError


class SingleFiles(ABC):
    """Each recording is written to the place in a tree that its id says."""

    name: str
    by_shard = False
    _ending: str

    def write(
        self,
        folder: Path,
        number: int,
        encoded: Iterable[tuple[Recording, Encoding]],
        dataset: Dataset,
        failed: Failed,
    ) -> list[Line]:
        lines = []
        for recording, encoding in encoded:
            path = self._path(folder, recording.id)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                check_target(path, [path.suffix], [recording.audio])
                self._write(path, encoding, dataset)
            except (StreamingEncodecError, OSError) as error:
                if stops_all(error):
                    raise error if isinstance(error, FileFormatError) else not_written(path, error) from error
                failed(recording, one_line(error))
                continue
            line = self._line(folder, recording.id, encoding.codes.shape[1], encoding.samples)
            lines.append(with_fields(line, recording))
        return lines

    def found(self, folder: Path, key: str, dataset: Dataset, line: Line | None) -> Line | None:
        """As `Format.found`; the files themselves are looked at, since they may be of an earlier version."""
        found = self._found(self._path(folder, key), dataset, line)
        if found is None:
            return None
        return self._line(folder, key, *found)

    def files_of(self, key: str) -> tuple[str, ...]:
        return (key + self._ending,)

    def read(self, folder: Path, number: int, wanted: set[str], dataset: Dataset) -> dict[str, Encoding]:
        return {name: self._read(self._path(folder, name), dataset) for name in sorted(wanted)}

    def _path(self, folder: Path, key: str) -> Path:
        return folder / (key + self._ending)

    def _line(self, folder: Path, key: str, frames: int, samples: int) -> Line:
        path = self._path(folder, key)
        return {
            "id": key,
            "file": key + self._ending,
            "num_frames": int(frames),
            "samples": samples,
            "bytes": path.stat().st_size,
        }

    @abstractmethod
    def _write(self, path: Path, encoding: Encoding, dataset: Dataset) -> None: ...

    @abstractmethod
    def _found(self, path: Path, dataset: Dataset, line: Line | None) -> tuple[int, int] | None:
        """Frames and samples of a file that is complete."""

    @abstractmethod
    def _read(self, path: Path, dataset: Dataset) -> Encoding: ...


class EcdcFiles(SingleFiles):
    """`.ecdc` files, as `encode_file` writes them."""

    name = "ecdc"
    _ending = ".ecdc"

    def _write(self, path: Path, encoding: Encoding, dataset: Dataset) -> None:
        layout, arithmetic = dataset.layout, None if dataset.arithmetic == "layers" else dataset.arithmetic
        with EcdcWriter(path, dataset.model, dataset.codebooks, layout, arithmetic) as writer:
            if layout.segment_samples is None:
                writer.push(encoding.codes)
            else:
                at = 0
                for place, samples in enumerate(layout.segments(encoding.samples)):
                    frames = layout.frames_of(samples)
                    scale = None if encoding.scales is None else float(encoding.scales[place])
                    writer.push_segment(encoding.codes[:, at : at + frames], scale)
                    at += frames
            writer.close(encoding.samples)

    def _found(self, path: Path, dataset: Dataset, line: Line | None) -> tuple[int, int] | None:
        layout = dataset.layout
        if not is_whole_ecdc(path, layout):
            return None
        with EcdcReader(path) as reader:
            header = reader.header
        if (header.model, header.num_codebooks) != (dataset.model, dataset.codebooks):
            return None
        if (header.arithmetic or "layers") != dataset.arithmetic:
            return None
        return sum(layout.frames_of(samples) for samples in layout.segments(header.samples)), header.samples

    def _read(self, path: Path, dataset: Dataset) -> Encoding:
        with EcdcReader(path) as reader:
            blocks = list(reader.blocks(dataset.layout))
        nothing = np.zeros((dataset.codebooks, 0), np.int64)
        codes = np.concatenate([nothing, *(block.codes for block in blocks)], axis=1).astype(dataset.element)
        scales = np.array([block.scale for block in blocks], np.float32) if dataset.normalize else None
        return Encoding(codes, scales, reader.header.samples)


class NpyFiles(SingleFiles):
    """`ID.npy` with the codes [K, F], and where the model normalizes `ID.scales.npy`, which is written first."""

    name = "npy"
    _ending = ".npy"

    def files_of(self, key: str) -> tuple[str, ...]:
        return f"{key}.npy", f"{key}.scales.npy"

    def _write(self, path: Path, encoding: Encoding, dataset: Dataset) -> None:
        if encoding.scales is not None:
            _save(_scales(path), encoding.scales)
        _save(path, encoding.codes)

    def _found(self, path: Path, dataset: Dataset, line: Line | None) -> tuple[int, int] | None:
        if line is None or not isinstance(line.get("samples"), int):
            return None  # the file does not say how long its sound was
        try:
            codes = np.load(path, mmap_mode="r", allow_pickle=False)
            scales = np.load(_scales(path), allow_pickle=False) if dataset.normalize else None
        except (OSError, ValueError):
            return None
        lengths = list(dataset.layout.segments(line["samples"]))
        frames = sum(map(dataset.layout.frames_of, lengths))
        fits = codes.dtype == np.dtype(dataset.element) and codes.shape == (dataset.codebooks, frames)
        return (frames, line["samples"]) if fits and (scales is None or len(scales) == len(lengths)) else None

    def _read(self, path: Path, dataset: Dataset) -> Encoding:
        try:
            codes = np.load(path, allow_pickle=False)
            scales = np.load(_scales(path), allow_pickle=False) if dataset.normalize else None
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{path}: cannot be read: {one_line(error)}") from error
        return Encoding(codes, scales, -1)


def _scales(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".npy") + ".scales.npy")


def _save(path: Path, array: NDArray[Any]) -> None:
    with AtomicPath(path) as target, target.temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
