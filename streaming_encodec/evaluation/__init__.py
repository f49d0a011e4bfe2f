"""Evaluation: how good a model sounds, measured through the streaming path and beside Opus.

The metrics' packages are optional (extra ``[eval]``); see ``docs/quality.md`` for what is measured and how.
"""
