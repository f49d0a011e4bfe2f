"""Original ``.th`` files: the state dicts that the ``encodec`` package publishes for 24 and 48 kHz.

They are pickles. Only torch's restricted unpickler reads them (``weights_only=True``, which makes tensors and
calls nothing), and only one that is known to be sound: torch 2.10 or later. There is no other way in.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from streaming_encodec.errors import CheckpointError, ConfigError
from streaming_encodec.model.checkpoints.folder import weights_in_memory
from streaming_encodec.model.checkpoints.original_config import infer_config
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.weights import PlainWeights

_LEAST_TORCH = (2, 10)
_MOST_PICKLE_BYTES = 1 << 22
_MOST_MEMBERS = 1 << 12

# The original wraps every convolution twice (padding, norm) and calls a Sequential ``model``.
_RENAMES = (
    (re.compile(r"^(encoder|decoder)\.model\."), r"\1.layers."),
    (re.compile(r"\.(?:conv\.conv|convtr\.convtr)\."), ".conv."),
    (re.compile(r"\.(?:conv|convtr)\.norm\."), ".norm."),
    (re.compile(r"^quantizer\.vq\.layers\.(\d+)\._codebook\."), r"quantizer.layers.\1.codebook."),
)


def read_original(path: str | Path, config: EncodecConfig | None = None) -> PlainWeights:
    """The weights of an original ``.th`` file.

    Args:
        path: the file.
        config: the architecture; None reads it from the tensors' names and shapes, which is possible for
            relatives of the published models (24 kHz mono causal, 48 kHz stereo in segments).

    Raises:
        CheckpointError: the file is missing, damaged, holds more than tensors, or does not fit; or torch is
            too old.
    """
    path = Path(path)
    tensors = read_th(path)
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new_name = published_name(name)
        if new_name in renamed:
            raise CheckpointError(f"{path}: tensor {name} is there twice under different names")
        renamed[new_name] = tensor
    if config is None:
        try:
            config = infer_config(renamed)
        except (ConfigError, CheckpointError) as error:
            raise CheckpointError(
                f"{path}: its tensors do not tell the architecture: {error}."
                " Pass it yourself: EncodecModel.from_original(path, config)"
            ) from error
    return weights_in_memory(config, renamed, str(path))


def published_name(name: str) -> str:
    """The Hugging Face name of a tensor, from its name in an original file."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def read_th(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.th`` file by name; what a pickle asks to run is refused.

    Raises:
        CheckpointError: as in ``read_original``.
    """
    require_safe_torch(torch.__version__)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: give the path of a .th file")
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises the first error of a damaged archive or a refused pickle, which may be of any type.
        reason = str(error).split("\n", maxsplit=1)[0]
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors, which is never unpickled"
            f" ({type(error).__name__}: {reason}): fetch it again, or save only its state dict"
        ) from error
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds {type(content).__name__}, no state dict of the original encodec")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            shown = repr(name)[:200] if isinstance(name, str) else f"of type {type(name).__name__}"
            raise CheckpointError(f"{path}: entry {shown} is no tensor: save only the model's state dict")
    tensors = {name: value.detach() for name, value in content.items()}
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > path.stat().st_size:
        raise CheckpointError(
            f"{path}: its tensors say that they have {claimed} bytes, the file has {path.stat().st_size}: save their"
            " contiguous() copies"
        )
    return tensors


def _check_archive(path: Path) -> None:
    """Raise ``CheckpointError`` for an archive that becomes larger than it is when it is read."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":  # what torch goes by
                return  # its older format holds plain bytes
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): fetch it again") from error
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise CheckpointError(f"{path}: {member.filename[:200]!r} is compressed, as torch never writes it")
        if member.filename.endswith(".pkl") and member.file_size > _MOST_PICKLE_BYTES:
            raise CheckpointError(f"{path}: {member.filename[:200]!r} is too large for a list of tensors")
    names = {member.filename for member in members}
    if len(names) < len(members) or len(members) > _MOST_MEMBERS:
        raise CheckpointError(f"{path} is damaged: it has {len(members)} members under {len(names)} names")


def require_safe_torch(version: str) -> None:
    """Raise ``CheckpointError`` where torch's restricted unpickler is older than 2.10."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < _LEAST_TORCH:
        raise CheckpointError(
            f"torch {version} cannot be trusted with .th files: install torch 2.10 or later, or use the same"
            " model as a folder with model.safetensors"
        )
