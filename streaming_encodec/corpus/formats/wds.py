"""WebDataset tars: `KEY.codes.npy`, `KEY.scales.npy` where the model normalizes, what the sample had, `KEY.json`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.audio.files.atomic import AtomicPath
from streaming_encodec.audio.files.source import ByteSource, unreadable
from streaming_encodec.corpus.catalog import carried
from streaming_encodec.corpus.dataset import Dataset
from streaming_encodec.corpus.encoding import Encoding
from streaming_encodec.corpus.formats.base import (
    Failed,
    Line,
    facts_of,
    json_bytes,
    shard_is_there,
    shard_line,
    shard_name,
)
from streaming_encodec.corpus.recordings import Recording
from streaming_encodec.corpus.sources.tar_members import tar_entries
from streaming_encodec.errors import FileFormatError

_OURS = ("codes.npy", "scales.npy", "json")


class WdsTars:
    """A tar for each shard. Its bytes depend on the recordings and their codes alone: no times, no owners."""

    name = "wds"
    by_shard = True

    def write(
        self,
        folder: Path,
        number: int,
        encoded: Iterable[tuple[Recording, Encoding]],
        dataset: Dataset,
        failed: Failed,
    ) -> list[Line]:
        path = folder / shard_name(number, ".tar")
        count, samples = 0, 0
        with AtomicPath(path) as target:
            with tarfile.open(target.temporary, "w", format=tarfile.PAX_FORMAT) as tar:
                for recording, encoding in encoded:
                    try:
                        siblings = [(ending, *_sibling(recording, ending)) for ending, _ in recording.siblings]
                    except (FileFormatError, OSError) as error:
                        failed(recording, str(error))
                        continue
                    key = key_of(recording.id)
                    _add(tar, f"{key}.codes.npy", _npy(encoding.codes))
                    if encoding.scales is not None:
                        _add(tar, f"{key}.scales.npy", _npy(encoding.scales))
                    for ending, file, size in siblings:
                        ending = f"source_{ending}" if ending in _OURS else ending
                        with file:
                            _add_file(tar, f"{key}.{ending}", size, file)
                    copied = dict(recording.siblings)
                    fields = {name: value for name, value in carried(recording).items() if name not in copied}
                    _add(tar, f"{key}.json", json_bytes(facts_of(recording, encoding, dataset) | fields))
                    count += 1
                    samples += encoding.samples
            line = shard_line(number, path.name, target.temporary, count, samples)
        return [line]

    def found(self, folder: Path, key: str, dataset: Dataset, line: Line | None) -> Line | None:
        return line if shard_is_there(folder / shard_name(int(key), ".tar"), line) else None

    def files_of(self, key: str) -> tuple[str, ...]:
        return (shard_name(int(key), ".tar"),)

    def read(self, folder: Path, number: int, wanted: set[str], dataset: Dataset) -> dict[str, Encoding]:
        path = folder / shard_name(number, ".tar")
        keys = {f"{key_of(name)}.{ending}": (name, ending) for name in wanted for ending in _OURS}
        parts: dict[str, dict[str, bytes]] = {}
        try:
            with path.open("rb") as file:
                for entry in tar_entries(path):
                    if (found := keys.get(entry.member.name)) is not None:
                        file.seek(entry.member.start)
                        parts.setdefault(found[0], {})[found[1]] = file.read(entry.member.size)
            return {name: _encoding(held) for name, held in parts.items()}
        except OSError as error:
            raise unreadable(path, error) from error
        except (ValueError, KeyError) as error:
            raise FileFormatError(f"{path}: is damaged: {error}") from error


def key_of(name: str) -> str:
    """An id as a key: WebDataset ends a key at the first dot of a file's name."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.replace("%", "%25").replace(".", "%2E")


def _sibling(recording: Recording, ending: str) -> tuple[BinaryIO, int]:
    member = dict(recording.siblings)[ending]
    return ByteSource.within(recording.audio, member.start, member.size, member.name).file, member.size


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    _add_file(tar, name, len(content), io.BytesIO(content))


def _add_file(tar: tarfile.TarFile, name: str, size: int, file: BinaryIO | io.BytesIO) -> None:
    info = tarfile.TarInfo(name)  # of 1970, and of nobody
    info.size, info.mode = size, 0o644
    tar.addfile(info, file)


def _encoding(held: dict[str, bytes]) -> Encoding:
    def array(name: str) -> NDArray[Any]:
        loaded: NDArray[Any] = np.load(io.BytesIO(held[name]), allow_pickle=False)
        return loaded

    scales = array("scales.npy") if "scales.npy" in held else None
    return Encoding(array("codes.npy"), scales, json.loads(held["json"])["samples"])
