"""From a model's name to its folder: a path, a model of the package, or one from the hub. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path

from streaming_encodec.errors import CheckpointError
from streaming_encodec.model.stored import WEIGHTS_NAME

CONFIG_NAME = "config.json"

_ASSETS = Path(__file__).parents[2] / "assets"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = (CONFIG_NAME, WEIGHTS_NAME)


def find_folder(name: str | Path) -> Path:
    """The folder of a model; the first that fits of

    1. a folder in Hugging Face layout,
    2. a model that comes with the package (``bundled_models``),
    3. a hub id such as ``facebook/encodec_24khz``: from the cache, else downloaded into it.

    Raises:
        CheckpointError: nothing there, or no network; the message says what to do.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix in (".safetensors", ".json"):
            raise CheckpointError(f"{path} is one file of a model: give its folder, {path.parent}")
        raise CheckpointError(f"{path} is no model: give a folder with {WEIGHTS_NAME}, or an original .th file")
    if name in bundled_models():
        return _ASSETS / str(name)
    if isinstance(name, str) and _HUB_ID.fullmatch(name) and path.suffix not in (".th", ".safetensors"):
        # The hub's client takes half a second to import, which a bundled model's call should not wait for.
        from streaming_encodec.model.checkpoints.hub import fetch

        return fetch(name, _FILES)
    bundled = ", ".join(bundled_models()) or "none in this installation"
    raise CheckpointError(
        f"there is no model {str(name)!r}: give a folder with {CONFIG_NAME} and {WEIGHTS_NAME}, an original"
        f" .th file, a bundled model ({bundled}), or a hub id such as facebook/encodec_24khz"
    )


def is_original(name: str | Path) -> bool:
    """Whether this is an original ``.th`` file, which is there: only torch reads it."""
    path = Path(name).expanduser()
    return path.suffix == ".th" and path.is_file()


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with the package, sorted."""
    if not _ASSETS.is_dir():
        return ()
    return tuple(sorted(a.name for a in _ASSETS.iterdir() if all((a / f).is_file() for f in _FILES)))
