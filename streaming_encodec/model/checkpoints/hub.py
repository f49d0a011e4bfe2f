"""A model's files from the Hugging Face hub, or from its cache."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from streaming_encodec.errors import CheckpointError


def fetch(repo: str, names: tuple[str, ...]) -> Path:
    """A folder that holds these files of ``repo``.

    Raises:
        CheckpointError: no such model, no network, or files missing; the message says what to do.
    """
    # What is cached is used as it is, without asking the network whether there is a newer one: a call starts
    # as fast as possible, works offline, and both ends keep the model that they agreed on.
    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(names), local_files_only=True))
        if all((folder / f).is_file() for f in names):
            return folder
    except LocalEntryNotFoundError:
        pass  # not in the cache: download it
    except (OSError, HFValidationError) as error:
        raise CheckpointError(f"the cache cannot be read for {repo}: {error}") from error
    try:
        # Not file by file with hf_hub_download, which tries again for 23 s where there is no network.
        folder = Path(snapshot_download(repo, allow_patterns=list(names)))
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the hub has no public model {repo!r}: check the spelling, or log in (hf auth login) if it is private"
        ) from error
    except LocalEntryNotFoundError as error:
        raise _not_cached(repo, names, error) from error
    except Exception as error:
        # The hub's own errors, the disk's, and those of the HTTP library that this version of the hub uses.
        raise CheckpointError(f"{repo} could not be downloaded: {error}; run the command again to go on") from error
    missing = [f for f in names if not (folder / f).is_file()]
    if missing == list(names):
        raise _not_cached(repo, names, None)
    if missing:
        raise CheckpointError(
            f"the hub's {repo} has no {missing[0]}: it must hold an EnCodec model in safetensors format"
        )
    return folder


def _not_cached(repo: str, names: tuple[str, ...], error: Exception | None) -> CheckpointError:
    reason = f" ({str(error).splitlines()[0]})" if error is not None and str(error) else ""
    return CheckpointError(
        f"{repo} is not in the cache and the hub cannot be reached{reason}: connect to the network once, set"
        f" HF_HOME to a cache that holds it, or give a local folder with {' and '.join(names)}"
    )
