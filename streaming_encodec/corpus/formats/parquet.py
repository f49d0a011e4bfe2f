"""Parquet files: a row for each recording, with its codes as lists [K][F] and a column for each field."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from streaming_encodec.audio.files.atomic import AtomicPath, not_written
from streaming_encodec.audio.files.source import unreadable
from streaming_encodec.corpus.catalog import as_kind, carried
from streaming_encodec.corpus.dataset import Dataset
from streaming_encodec.corpus.encoding import Encoding
from streaming_encodec.corpus.formats.base import (
    Failed,
    Line,
    facts_of,
    one_line,
    shard_is_there,
    shard_line,
    shard_name,
)
from streaming_encodec.corpus.recordings import Recording
from streaming_encodec.errors import FileFormatError
from streaming_encodec.extras import needs_extra

_GROUP_CODES = 1 << 22
"""Codes of a row group: its rows are kept in memory until it is written."""


class ParquetFiles:
    """A file for each shard. Columns: those of `facts_of`, `codes`, `scales`, and the list's fields."""

    name = "parquet"
    by_shard = True

    def write(
        self,
        folder: Path,
        number: int,
        encoded: Iterable[tuple[Recording, Encoding]],
        dataset: Dataset,
        failed: Failed,
    ) -> list[Line]:
        pa, pq = arrow()
        schema = _schema(pa, dataset)
        path = folder / shard_name(number, ".parquet")
        count, samples, codes = 0, 0, 0
        rows: list[dict[str, Any]] = []
        with AtomicPath(path) as target:
            try:
                with pq.ParquetWriter(target.temporary, schema, compression="zstd") as writer:
                    for recording, encoding in encoded:
                        rows.append(_row(recording, encoding, dataset))
                        count += 1
                        samples += encoding.samples
                        codes += encoding.codes.size
                        if codes >= _GROUP_CODES:
                            writer.write_table(_table(pa, rows, schema))
                            rows, codes = [], 0
                    if rows or not count:
                        writer.write_table(_table(pa, rows, schema))
            except pa.ArrowException as error:
                raise not_written(path, error) from error
            line = shard_line(number, path.name, target.temporary, count, samples)
        return [line]

    def found(self, folder: Path, key: str, dataset: Dataset, line: Line | None) -> Line | None:
        return line if shard_is_there(folder / shard_name(int(key), ".parquet"), line) else None

    def files_of(self, key: str) -> tuple[str, ...]:
        return (shard_name(int(key), ".parquet"),)

    def read(self, folder: Path, number: int, wanted: set[str], dataset: Dataset) -> dict[str, Encoding]:
        pa, pq = arrow()
        path = folder / shard_name(number, ".parquet")
        names = {_text(name): name for name in wanted}
        found: dict[str, Encoding] = {}
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=16, columns=["id", "codes", "scales", "samples"]):
                    for row in batch.to_pylist():
                        if (name := names.get(row["id"])) is not None:
                            codes = np.array(row["codes"], dataset.element).reshape(dataset.codebooks, -1)
                            scales = None if row["scales"] is None else np.array(row["scales"], np.float32)
                            found[name] = Encoding(codes, scales, row["samples"])
        except OSError as error:
            raise unreadable(path, error) from error
        except (pa.ArrowException, ValueError) as error:
            raise FileFormatError(f"{path}: is damaged: {one_line(error)}") from error
        return found


def arrow() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`.

    Raises:
        MissingExtraError: they are not installed.
    """
    with needs_extra("the format parquet", "pyarrow", "corpus"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow, pyarrow.parquet


def _text(name: str) -> str:
    """An id in UTF-8: a file's name may be none."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _schema(pa: Any, dataset: Dataset) -> Any:
    kinds = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string(), "json": pa.string()}
    code = pa.uint16() if dataset.element == "uint16" else pa.uint32()
    fields = [
        ("id", pa.string()),
        ("codes", pa.list_(pa.list_(code))),
        ("scales", pa.list_(pa.float32())),
        ("num_frames", pa.int64()),
        ("samples", pa.int64()),
        ("sample_rate", pa.int32()),
        ("model", pa.string()),
    ]
    return pa.schema(fields + [(name, kinds[kind]) for name, kind in (dataset.columns or {}).items()])


def _row(recording: Recording, encoding: Encoding, dataset: Dataset) -> dict[str, Any]:
    fields = carried(recording)
    own = {name: as_kind(fields.get(name), kind) for name, kind in (dataset.columns or {}).items()}
    facts = facts_of(recording, encoding, dataset)
    facts["id"] = _text(recording.id)
    return facts | {"codes": encoding.codes, "scales": encoding.scales} | own


def _table(pa: Any, rows: list[dict[str, Any]], schema: Any) -> Any:
    columns = []
    for field in schema:
        values = [row[field.name] for row in rows]
        columns.append(_codes(pa, values, field.type) if field.name == "codes" else pa.array(values, field.type))
    return pa.table(columns, schema=schema)


def _codes(pa: Any, values: list[Any], kind: Any) -> Any:
    """Arrays [K, F] as lists of lists, without a Python object for each code."""
    lengths = [len(codes) for codes in values]
    frames = [codes.shape[1] for codes in values for _ in range(len(codes))]
    flat = np.concatenate([codes.reshape(-1) for codes in values]) if values else np.zeros(0, np.uint16)
    inner_offsets = pa.array(np.concatenate([[0], np.cumsum(frames)]).astype(np.int32))
    inner = pa.ListArray.from_arrays(inner_offsets, pa.array(flat, kind.value_type.value_type))
    outer_offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(outer_offsets, inner)
