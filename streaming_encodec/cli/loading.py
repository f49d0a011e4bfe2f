"""`--model`: a hub id, a folder, a `.th` file or the name of a bundled model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streaming_encodec.cli.console import note

if TYPE_CHECKING:
    from streaming_encodec.model.config import EncodecConfig
    from streaming_encodec.model.encodec import EncodecModel
    from streaming_encodec.wire.ecdc import EcdcLayout

DEFAULT_MODEL = "voice-24khz"

# What the original package calls its models in `.ecdc` files, and where they are found.
PUBLISHED = {
    "encodec_24khz": "facebook/encodec_24khz",
    "encodec_48khz": "facebook/encodec_48khz",
    "encodec_32khz": "facebook/encodec_32khz",
}

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A bundled model, a hub id such as facebook/encodec_24khz, a folder, or an original .th file.",
    ),
]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and what the commands say of it."""

    model: EncodecModel
    name: str  # short, as written into `.ecdc` files
    trained: bool

    @property
    def config(self) -> EncodecConfig:
        return self.model.config


def bundled_folder(name: str) -> Path | None:
    """The folder of a model that ships with the package, `None` when there is no such."""
    folder = Path(str(files("streaming_encodec"))) / "assets" / name
    return folder if (folder / "config.json").is_file() else None


def load_model(name: str) -> LoadedModel:
    """Load what `--model` names.

    Without bundled weights the default is a random model of the bundled one's architecture, and stderr says
    so: it shows speed, delay and exactness, not quality.

    Raises:
        CheckpointError: there is no such model, or its files are damaged, or there is no network to fetch it.
    """
    from streaming_encodec.model.encodec import EncodecModel

    if name == DEFAULT_MODEL and bundled_folder(name) is None:
        note(
            f"{name} has no trained weights yet: this model is UNTRAINED (random weights), its output "
            "is noise; for sound that can be listened to use --model facebook/encodec_24khz"
        )
        return LoadedModel(_untrained(), name, trained=False)
    return LoadedModel(EncodecModel.from_pretrained(PUBLISHED.get(name, name)), short_name(name), trained=True)


def _untrained() -> EncodecModel:
    import torch

    from streaming_encodec.model.config import EncodecConfig
    from streaming_encodec.model.encodec import EncodecModel

    config = EncodecConfig(target_bandwidths=(1.5, 3.0, 6.0, 12.0), upsampling_ratios=(8, 5, 8), num_lstm_layers=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EncodecModel(config)


def short_name(name: str) -> str:
    """What a model is called in `.ecdc` files.

    `facebook/encodec_24khz` and `encodec_24khz-d7cc33bc.th` alike become `encodec_24khz`, the name that the
    original package knows.
    """
    last = Path(name).name
    match = re.fullmatch(r"(.+?)(-[0-9a-f]{8})?\.th", last)
    return match[1] if match else last


def layout_of(config: EncodecConfig) -> EcdcLayout:
    """How a `.ecdc` file of this model is laid out."""
    from streaming_encodec.wire.ecdc import EcdcLayout

    return EcdcLayout(
        hop_length=config.hop_length,
        codebook_size=config.codebook_size,
        max_codebooks=config.num_quantizers,
        segment_samples=config.chunk_length,
        stride_samples=config.chunk_stride,
        normalize=config.normalize,
    )
