"""The errors of the package: one family, each message says what to do."""

from __future__ import annotations


class StreamingEncodecError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(StreamingEncodecError, ValueError):
    """A model configuration has a field that cannot be; the message names the field."""


class CheckpointError(StreamingEncodecError):
    """A checkpoint is missing, damaged, or of another shape; the message names file and tensor."""


class StreamError(StreamingEncodecError, ValueError):
    """Samples, codes or a state that a stream cannot take; the message says what it takes."""


class PacketError(StreamingEncodecError, ValueError):
    """Bytes that are not a packet of this protocol; hostile bytes raise this and nothing else."""


class FileFormatError(StreamingEncodecError):
    """An audio or ``.ecdc`` file that is missing, damaged or not of a kind that can be read."""


class DeviceError(StreamingEncodecError):
    """An audio device is missing, busy, or refuses the rate; the message says how to get one."""


class CallError(StreamingEncodecError):
    """A call cannot be set up or kept: relay down, token refused, model mismatch."""


class FolderError(StreamingEncodecError):
    """A folder that a command would fill is in use by another run, or cannot be written."""


class MissingExtraError(StreamingEncodecError, ImportError):
    """An optional dependency is not installed; the message says how to install it."""
