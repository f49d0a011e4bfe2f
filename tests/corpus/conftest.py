"""Models and speech of the tests of commands, and a way to run these."""

from cli_kit import mono_model, run, segment_model, speech

__all__ = ["mono_model", "run", "segment_model", "speech"]
