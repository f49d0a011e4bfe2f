"""What streaming and engines share: a layer stack that steps, its state as a value, silence."""
