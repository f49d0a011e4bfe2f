"""Models and speech of the tests of commands."""

from cli_kit import mono_model, segment_model, speech

__all__ = ["mono_model", "segment_model", "speech"]
