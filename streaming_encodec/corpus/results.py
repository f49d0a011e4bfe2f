"""What `encode_file`, `decode_file` and `stream_file` tell of the file that they wrote."""

from __future__ import annotations

from dataclasses import dataclass

from streaming_encodec.corpus.times import TimeHistogram


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscodedFile:
    """What became of a file.

    Attributes:
        model: its short name, as `.ecdc` files have it; empty for a model that was streamed without a name.
    """

    model: str
    sample_rate: int
    channels: int
    samples: int
    num_codebooks: int
    bandwidth_kbps: float

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return self.samples / self.sample_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """What was read of a sound file.

    Attributes:
        samples: at the file's own rate.
        samples_promised: by its header; None where it does not say.
        notes: what its user should know, such as bytes that are no sound.
    """

    samples: int
    samples_promised: int | None
    notes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedFile(TranscodedFile):
    """Result of `encode_file`.

    Attributes:
        arithmetic: what computed the codes (see docs/export.md); None for the layers themselves.
    """

    source: SourceFile
    arithmetic: str | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedFile(TranscodedFile):
    """Result of `decode_file`.

    Attributes:
        named_model: the model that the file names, which need not be the one that decoded it.
    """

    named_model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedFile(TranscodedFile):
    """Result of `stream_file`.

    Attributes:
        start: `silence`, `exact`, or `segments` for a model that needs whole segments.
        delay_samples: from a sample's arrival to its sound, at most, when computing takes no time.
        times: milliseconds of computing for each frame, both ways.
    """

    source: SourceFile
    start: str
    engine: str
    frames: int
    frame_ms: float
    delay_samples: int
    times: TimeHistogram
