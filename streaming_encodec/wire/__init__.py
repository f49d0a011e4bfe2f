"""Bytes on the wire and in files: bits, packets, control messages, `.ecdc`. Pure: numpy only, no I/O."""
