"""A way to run commands, and the models and the speech that they are given."""

from cli_kit import mono_model, run, segment_model, speech

__all__ = ["mono_model", "run", "segment_model", "speech"]
