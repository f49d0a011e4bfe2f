"""From a name to a model: a folder, an original file, a model of the package, or one from the hub."""

from __future__ import annotations

import re
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_encodec.errors import CheckpointError
from streaming_encodec.model.checkpoints.folder import CONFIG_NAME, load_folder
from streaming_encodec.model.checkpoints.original import load_original
from streaming_encodec.model.stored import WEIGHTS_NAME

if TYPE_CHECKING:
    from streaming_encodec.model.encodec import EncodecModel

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = (CONFIG_NAME, WEIGHTS_NAME)


def load_pretrained(name: str | Path) -> EncodecModel:
    """Load a model by name; the first that fits of

    1. a folder in Hugging Face layout,
    2. an original ``.th`` file,
    3. a model that comes with the package (``bundled_models``),
    4. a hub id such as ``facebook/encodec_24khz``: from the cache, else downloaded into it.

    Raises:
        CheckpointError: not found, no network, or files that do not fit; the message says what to do.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return load_folder(path)
    if path.is_file():
        return _load_file(path)
    if name in bundled_models():
        with as_file(_assets().joinpath(str(name))) as folder:
            return load_folder(folder)
    if isinstance(name, str) and _HUB_ID.fullmatch(name) and path.suffix not in (".th", ".safetensors"):
        # The hub's client takes half a second to import, which a bundled model's call should not wait for.
        from streaming_encodec.model.checkpoints.hub import fetch

        return load_folder(fetch(name, _FILES))
    bundled = ", ".join(bundled_models()) or "none in this installation"
    raise CheckpointError(
        f"there is no model {str(name)!r}: give a folder with {CONFIG_NAME} and {WEIGHTS_NAME}, an original"
        f" .th file, a bundled model ({bundled}), or a hub id such as facebook/encodec_24khz"
    )


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with the package, sorted."""
    assets = _assets()
    if not assets.is_dir():
        return ()
    return tuple(sorted(a.name for a in assets.iterdir() if all(a.joinpath(f).is_file() for f in _FILES)))


def _assets() -> Traversable:
    return files("streaming_encodec").joinpath("assets")


def _load_file(path: Path) -> EncodecModel:
    if path.suffix == ".th":
        return load_original(path)
    if path.suffix in (".safetensors", ".json"):
        raise CheckpointError(f"{path} is one file of a model: give its folder, {path.parent}")
    raise CheckpointError(f"{path} is no model: give a folder with {WEIGHTS_NAME}, or an original .th file")
