"""The relay: rooms, admission, tokens, metrics. It forwards packets and never opens them, so it needs no codec."""
