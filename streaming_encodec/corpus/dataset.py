"""`dataset.json`: what the codes of a folder are, for programs that read them and for a run that continues it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streaming_encodec._version import __version__
from streaming_encodec.audio.files.atomic import write_text
from streaming_encodec.errors import ConfigError
from streaming_encodec.json_text import read_json
from streaming_encodec.wire.ecdc import EcdcLayout

DATASET_NAME = "dataset.json"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What all recordings of a corpus have in common.

    Attributes:
        format: `ecdc`, `npy`, `wds` or `parquet`.
        model, fingerprint: its short name; the hash of its configuration and weights.
        codebooks: of each frame; `model_codebooks` has the model.
        hop_length: samples a frame.
        start: `exact`, as the offline model starts, or `segments` for a model that needs whole segments.
        segment_samples, stride_samples, normalize: of a model of segments.
        arithmetic: what computed the codes (docs/export.md), `layers` for the layers themselves.
        device, batch: where that was not one stream on the CPU.
        recordings, sha256, shard_size, shards, columns: of the list, in a format of shards; else None.
    """

    format: str
    model: str
    fingerprint: str
    sample_rate: int
    channels: int
    hop_length: int
    bandwidth_kbps: float
    codebooks: int
    codebook_size: int
    model_codebooks: int
    start: str
    segment_samples: int | None
    stride_samples: int | None
    normalize: bool
    arithmetic: str
    device: str = "cpu"
    batch: int | None = None
    recordings: int | None = None
    sha256: str | None = None
    shard_size: int | None = None
    shards: int | None = None
    columns: dict[str, str] | None = None

    @property
    def layout(self) -> EcdcLayout:
        """How frames and segments follow from the length of a sound."""
        return EcdcLayout(
            self.hop_length,
            self.codebook_size,
            self.model_codebooks,
            self.segment_samples,
            self.stride_samples,
            self.normalize,
        )

    @property
    def element(self) -> str:
        """The numpy type of a code."""
        return "uint16" if self.codebook_size <= 1 << 16 else "uint32"

    def describe(self, folder: Path) -> None:
        """Write `dataset.json` into a folder, or check that the one that is there says the same.

        Raises:
            ConfigError: the folder holds codes of another kind, or of other recordings.
            FileFormatError: it cannot be written.
        """
        path, mine = folder / DATASET_NAME, {"version": _VERSION, **asdict(self)}
        if path.exists():
            try:
                there = read_json(path)
            except (OSError, ValueError) as error:
                raise ConfigError(f"{path} cannot be read ({error}): choose another folder") from error
            self._compare(folder, mine, there)
            return
        write_text(path, json.dumps(mine | {"made_by": f"streaming-encodec {__version__}"}, indent=2) + "\n")

    def _compare(self, folder: Path, mine: dict[str, Any], there: Any) -> None:
        if not isinstance(there, dict):
            raise ConfigError(f"{folder / DATASET_NAME} describes no corpus: choose another folder")
        for name, value in mine.items():
            if there.get(name) == value:
                continue
            if name in ("recordings", "sha256", "columns"):
                raise ConfigError(
                    f"{folder} holds codes of another list of recordings, in other shards: choose another folder"
                )
            raise ConfigError(
                f"{folder} holds codes of another kind: {name} is {there.get(name)!r:.80} there, {value!r:.80} here; "
                "choose another folder"
            )
