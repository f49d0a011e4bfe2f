"""What the tests of the command line share."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel

CLIP = Path(str(files("streaming_encodec"))) / "assets" / "speech.flac"


def save_random(folder: Path, **fields: Any) -> Path:
    """A folder with a random model of 4 filters, biases not zero."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"num_filters": 4, "hidden_size": 16, "num_lstm_layers": 1}
    model = EncodecModel(EncodecConfig(**(small | fields)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


class Result:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str, error: BaseException | None) -> None:
        self.code, self.out, self.err, self.error = code, out, err, error

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; nothing else may be there."""
        (line,) = self.out.splitlines()
        value: dict[str, Any] = json.loads(line)
        return value

    def fails_with(self, says: str) -> None:
        """Exit code 1 and one line on stderr that says so, notes apart; nothing on stdout."""
        lines = [line for line in self.err.splitlines() if not line.startswith("note:")]
        assert self.code == 1, (self.out, self.err, self.error)
        assert self.out == ""
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert says in lines[0]


Run = Callable[..., Result]


def noise(path: Path, samples: int, rate: int = 24_000, channels: int = 1) -> Path:
    """A file of noise."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        for start in range(0, samples, 100_000):
            file.write(0.3 * rng.standard_normal((min(100_000, samples - start), channels)))
    return path
