"""Telephone systems and agents as participants of a room: their message formats, their clocks, their sound."""
