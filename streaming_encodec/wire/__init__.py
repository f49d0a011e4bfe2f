"""Bytes on the wire and in files: bit packing, packets, control messages, `.ecdc`. Pure: numpy only, no I/O."""
