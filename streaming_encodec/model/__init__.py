"""The EnCodec network: configuration, layers with an offline and a streaming face, checkpoints."""
