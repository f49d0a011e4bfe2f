"""The formats by name."""

from __future__ import annotations

from streaming_encodec.corpus.formats.base import Format
from streaming_encodec.corpus.formats.parquet import ParquetFiles, arrow
from streaming_encodec.corpus.formats.single import EcdcFiles, NpyFiles
from streaming_encodec.corpus.formats.wds import WdsTars
from streaming_encodec.errors import ConfigError

FORMATS = ("ecdc", "wds", "parquet", "npy")


def find_format(name: str) -> Format:
    """The format of this name.

    Raises:
        ConfigError: there is none. MissingExtraError: it needs a package that is not installed.
    """
    made: dict[str, Format] = {"ecdc": EcdcFiles(), "wds": WdsTars(), "parquet": ParquetFiles(), "npy": NpyFiles()}
    if name not in made:
        raise ConfigError(f"there is no format {name!r}: choose {', '.join(FORMATS)}")
    if name == "parquet":
        arrow()
    return made[name]
