"""Evaluation of a model's sound through the streaming path, beside Opus.

The metrics' packages are optional (extra ``[eval]``); see ``docs/quality.md`` for what is measured and how.
"""
