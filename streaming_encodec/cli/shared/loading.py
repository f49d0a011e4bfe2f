"""`--model`: a hub id, a folder, a `.th` file or the name of a bundled model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from streaming_encodec.cli.shared.console import note
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL, short_name, weights_of

if TYPE_CHECKING:
    from streaming_encodec.model.config import EncodecConfig
    from streaming_encodec.model.encodec import EncodecModel
    from streaming_encodec.model.find import CodecModel

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A bundled model, a hub id such as facebook/encodec_24khz, a folder, or an original .th file.",
    ),
]


# How far weights can be relied on, and what the commands say of it. An evaluation is needed to leave "preview".
_CAVEATS = {
    "trained": "",
    "preview": " (preview: near Opus at 6 kbps)",
    "random": " (UNTRAINED: random weights)",
}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and what the commands say of it."""

    model: CodecModel
    name: str  # short, as written into `.ecdc` files
    weights: str  # "trained", "preview" or "random"

    @property
    def config(self) -> EncodecConfig:
        return self.model.config

    def in_torch(self) -> EncodecModel:
        """For what torch alone can do, such as a loss. Raises ``MissingExtraError`` where it is not installed."""
        from streaming_encodec.model.find import torch_model

        return torch_model(self.model)


def caveat(weights: str) -> str:
    """What to put behind a model's name: nothing where its weights are trained."""
    return _CAVEATS[weights]


def note_preview(name: str) -> None:
    """Of the bundled model, say on stderr that it is a preview."""
    if name == DEFAULT_MODEL:
        note(
            f"{name} is a preview: at 6 kbps near Opus, but one word in sixteen is hard to understand; "
            "--model facebook/encodec_24khz sounds as published"
        )


def load_model(name: str) -> LoadedModel:
    """Load what `--model` names. Of the bundled model, stderr says that it is a preview.

    Raises:
        CheckpointError: there is no such model, or its files are damaged, or there is no network to fetch it.
        MissingExtraError: it needs torch, which is not installed.
    """
    from streaming_encodec.corpus.transcode import open_model

    model = open_model(name)
    note_preview(name)
    return LoadedModel(model, short_name(name), weights_of(name))
