"""Streaming: the offline model's output from small blocks. Façades hold state; the laws are in ``stepping/half.py``."""
