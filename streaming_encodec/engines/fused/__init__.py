"""Engine `fused`: the model's mathematics as matrix products in torch."""
